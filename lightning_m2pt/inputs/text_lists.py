"""Files of prompts that are compared with one another: a name and a text with ``{question}`` a line."""

import re
from pathlib import Path

from lightning_m2pt.configuration.paths import is_yaml
from lightning_m2pt.configuration.strict_yaml import plain, read_mapping
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.reworded_template import QUESTION, QUESTION_MARK, PromptText, prompt_text

SHIPPED = Path(__file__).parent / "question_texts"
"""Lists that come with the package."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
MOST_TEXTS = 1_000


def shipped_lists() -> list[str]:
    """Returns the names of the lists that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def read_texts(word: str) -> dict[str, PromptText]:
    """Returns the prompts of a list, by their names, in the file's order.

    Args:
        word: A YAML file, or the name of a list that comes with the package. A value is a text with ``{question}``,
            or a mapping with ``question`` and ``system``.

    Raises:
        BadInputError: If there is no such list, it has fewer than two texts, one that is no prompt, or one twice.
    """
    if not is_yaml(word) and word not in shipped_lists():
        raise BadInputError(
            f"there is no list {word!r:.60}",
            where="command line: --texts",
            expected=f"a YAML file of names and texts, or one of {', '.join(shipped_lists())}",
        )
    path = Path(word) if is_yaml(word) else SHIPPED / f"{word}.yaml"
    texts: dict[str, PromptText] = {}
    for name, value in plain(read_mapping(path)).items():
        if not NAME.fullmatch(name):
            raise BadInputError(
                f"{name!r:.60} is no name for a text",
                where=str(path),
                expected="up to 40 letters, digits and signs out of _.-, as it is part of files' names",
            )
        content = value if isinstance(value, dict) else {QUESTION: value}
        try:
            text = prompt_text(content, path)
        except BadInputError as error:
            raise BadInputError(error.what, where=f"{path}: {name}", expected=error.expected) from None
        same = next((other for other, known in texts.items() if known == text), None)
        if same is not None:
            raise BadInputError(f"the same text as {same}", where=f"{path}: {name}", expected="every text once")
        texts[name] = text
    if not 2 <= len(texts) <= MOST_TEXTS:
        raise BadInputError(
            f"{len(texts)} texts to compare",
            where=str(path),
            expected=f"2 to {MOST_TEXTS:,}, such as brief: '{QUESTION_MARK} Answer with one word.'",
        )
    return texts
