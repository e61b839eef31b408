"""One number for several sets: the plain mean of their percent values, under a name that says of which sets.

Source: ``print_latex`` of https://github.com/William-wAng618/M2PT: MMAvg is the plain mean of seven numbers in percent,
of which pope is the mean of its three splits (that is what ``pope_official`` gives). MME is not among them, TextVQA is.
The published code finds its members by position, so that a missing file silently changes the mean; here MMAvg is only
what has all seven.
Where fewer questions of some were asked (a ``limit``), that is in the mean's name.
"""

from collections.abc import Iterable, Mapping, Sequence

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.coverage import limit_in, without_limit

MMAVG = "MMAvg"
MMAVG_OF_LIMITED = f"{MMAVG} of limited sets"
MMAVG_LABELS = (MMAVG, MMAVG_OF_LIMITED)
"""The means over the published seven."""
MMAVG_MEMBERS = ("text_vqa", "vsr", "snli_ve", "cifar10", "cifar100", "mnist", "pope")
NEVER_A_MEMBER = "mme"
MEAN_OF = "mean of "
LIMITED = "limited "


def benchmark_mean(values: Mapping[str, float]) -> tuple[str, float]:
    """Returns the name and the value of the plain mean over sets; MME is left out.

    Args:
        values: Percent of the maximum by the set's name, as ``set_name`` gives it.

    Returns:
        ``MMAvg`` and the mean of its seven members if all are there, whatever else is; otherwise a name such as
        ``mean of vsr, pope, mnist``, in the order given, and the mean of these. If fewer questions of a member were
        asked, and nothing else is special about it, the name is ``MMAvg of limited sets`` or ``mean of limited vsr,
        pope, mnist``; ``limited_notes`` has the numbers. Anything else that was not answered stays behind its set.

    Raises:
        BadInputError: If no set but MME is there, or one is there as a whole and with fewer questions.
    """
    named: dict[str, str] = {}
    for name in values:
        other = named.setdefault(without_limit(name), name)
        if other != name:
            raise BadInputError(
                f"{other} and {name} are one set", where="scores", expected="every set once in a mean over sets"
            )
    has_published = all(name in named for name in MMAVG_MEMBERS)
    members = MMAVG_MEMBERS if has_published else [name for name in named if name != NEVER_A_MEMBER]
    if not members:
        raise BadInputError("there is nothing to average", where="scores", expected="at least one set other than MME")
    are_limited = any(limit_in(named[name]) for name in members)
    label = MMAVG_OF_LIMITED if are_limited else MMAVG
    if not has_published:
        label = MEAN_OF + LIMITED * are_limited + ", ".join(members)
    return label, sum(values[named[name]] for name in members) / len(members)


def is_of_limited(label: str) -> bool:
    """Tells whether a mean's name says that fewer questions of a set were asked."""
    return label.startswith((MMAVG_OF_LIMITED, MEAN_OF + LIMITED))


def limited_notes(sets: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Returns how many questions limited sets were asked, and of how many; nothing if none is limited.

    Args:
        sets: For every row of a table what it is called, and the names of its sets. Rows are named where they differ.
    """
    rows: dict[str, list[str]] = {}
    for row, names in sets:
        limits = [f"{without_limit(name)} {limit}" for name in names if (limit := limit_in(name))]
        rows.setdefault(", ".join(limits), []).append(row)
    return [
        ("" if len(rows) == 1 else f"{', '.join(named)}: ") + f"limited sets (questions of all): {text}"
        for text, named in rows.items()
        if text
    ]
