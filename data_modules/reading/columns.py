"""Which column plays which role: found by its usual names, or as a configuration maps them."""

from collections.abc import Collection, Mapping, Sequence

from lightning_m2pt.errors import BadInputError

ROLES: dict[str, tuple[str, ...]] = {
    "id": ("id", "question_id", "qid", "uid", "index", "idx"),
    "image": (
        *("image", "images", "image_path", "image_paths", "img", "img_path", "picture", "pictures", "file_name"),
        *("filename", "image_file", "image_name", "path"),
    ),
    "conversation": ("conversations", "messages", "conversation", "dialogue", "dialog", "texts"),
    "question": ("question", "instruction", "prompt", "query", "problem"),
    "input": ("input",),
    "answer": ("answer", "output", "response", "completion", "target", "label"),
    "caption": ("caption", "captions", "description", "text"),
    "history": ("history",),
    "system": ("system", "system_prompt"),
    "task": ("task_name", "task", "category", "dataset_name", "data_source"),
}
"""What a tuning set's columns may be, each with its usual names, the likeliest first."""


def recognised(
    names: Collection[str],
    mapped: Mapping[str, str] | None,
    where: str,
    roles: Mapping[str, Sequence[str]] = ROLES,
    key: str = "data.columns",
) -> dict[str, str]:
    """Returns the column of every role that has one.

    Names are compared without regard to capitals, blanks and hyphens. A mapped role has the column it says, and a
    column that is mapped is found for no other role.

    Args:
        names: Names of all columns that some row has.
        mapped: ``{role: column}`` as a configuration says it.
        where: The file, for errors.
        roles: What columns may be, each with its usual names, the likeliest first.
        key: The setting, for errors.

    Raises:
        BadInputError: If a mapping names no role, or no column.
    """
    mapped = mapped or {}
    for role, column in mapped.items():
        if role not in roles:
            raise BadInputError(f"{role!r:.60} is nothing a column can be", where=key, expected=", ".join(roles))
        if column not in names:
            raise BadInputError(
                f"there is no column {column!r:.60} for {role}",
                where=f"{key}: {where}",
                expected=f"one of {', '.join(sorted(names))[:200]}",
            )
    twice = next((column for column in mapped.values() if list(mapped.values()).count(column) > 1), None)
    if twice is not None:
        raise BadInputError(f"the column {twice!r:.60} is mapped twice", where=key, expected="a column for each role")
    unmapped = [name for name in names if name not in mapped.values()]
    free = {plain(name): name for name in unmapped}
    found = dict(mapped)
    for role, usual in roles.items():
        present = [name for name in usual if name in free]
        if role not in found and present:
            alike = [name for name in unmapped if plain(name) == present[0]]
            if len(alike) > 1:
                raise BadInputError(
                    f"{' and '.join(map(repr, alike))[:120]} may both be {role}",
                    where=where,
                    expected=f"{key}: {{{role}: COLUMN}}, which says which one",
                )
            found[role] = free.pop(present[0])
    return {role: found[role] for role in roles if role in found}


def plain(name: str) -> str:
    """Returns a column's name in small letters, with underscores for blanks and hyphens."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def told(found: Mapping[str, str], names: Collection[str]) -> str:
    """Returns a line that says which column plays which role, and which play none.

    Args:
        found: The column of every role that has one.
        names: Names of all columns.
    """
    pairs = ", ".join(role if role == column else f"{role} = {column}" for role, column in found.items())
    left = [name for name in names if name not in found.values()]
    return f"columns: {pairs or 'none'}" + f"; not used: {', '.join(left)}" * bool(left)
