"""What stands below a mean that has the published one's name, where its members have other sizes."""

from collections.abc import Sequence

from lightning_m2pt.metrics.known_sizes import published_size
from lightning_m2pt.metrics.means import MMAVG, MMAVG_MEMBERS
from lightning_m2pt.runs.evaluated import Group


def size_notes(groups: Sequence[Group]) -> list[str]:
    """Returns which members of MMAvg have another size than the published sets (the testbed's all have)."""
    sizes = {(name, score.n): None for group in groups for name in MMAVG_MEMBERS for score in group.scores(name)}
    others = [f"{name} {n:,} ({published_size(name):,})" for name, n in sizes if n != published_size(name)]
    return [f"{MMAVG}: not over as many questions as the published sets have: {', '.join(others)}"] if others else []
