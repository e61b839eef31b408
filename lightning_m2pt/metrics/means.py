"""One number for several sets: the plain mean of their percent values, under a name that says of which sets.

Source: ``print_latex`` of https://github.com/William-wAng618/M2PT: MMAvg is the plain mean of seven numbers in percent,
of which pope is the mean of its three splits (that is what ``pope_official`` gives). MME is not among them, TextVQA is.
The published code finds its members by position, so that a missing file silently changes the mean; here MMAvg is only
what has all seven.
"""

from collections.abc import Mapping

from lightning_m2pt.errors import BadInputError

MMAVG = "MMAvg"
MMAVG_MEMBERS = ("text_vqa", "vsr", "snli_ve", "cifar10", "cifar100", "mnist", "pope")
NEVER_A_MEMBER = "mme"


def benchmark_mean(values: Mapping[str, float]) -> tuple[str, float]:
    """Returns the name and the value of the plain mean over sets; MME is left out.

    Args:
        values: Percent of the maximum by the set's name.

    Returns:
        ``MMAvg`` and the mean of its seven members if all are there, whatever else is; otherwise a name such as
        ``mean of vsr, pope, mnist``, in the order given, and the mean of these.

    Raises:
        BadInputError: If no set but MME is there.
    """
    if all(name in values for name in MMAVG_MEMBERS):
        return MMAVG, sum(values[name] for name in MMAVG_MEMBERS) / len(MMAVG_MEMBERS)
    members = [name for name in values if name != NEVER_A_MEMBER]
    if not members:
        raise BadInputError("there is nothing to average", where="scores", expected="at least one set other than MME")
    return f"mean of {', '.join(members)}", sum(values[name] for name in members) / len(members)
