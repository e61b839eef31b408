"""How often names occur, alone and together, in the tuning scenes: what POPE's harder negatives are taken from."""

from collections import Counter
from collections.abc import Iterable, Sequence

from experiments.testbed.scenes import Scene


class NameStatistics:
    """Counts of names and of pairs of names."""

    def __init__(self, scenes: Iterable[Scene]) -> None:
        self._names: Counter[str] = Counter()
        self._pairs: Counter[tuple[str, str]] = Counter()
        for scene in scenes:
            self._names.update(scene.names)
            self._pairs.update((first, second) for first in scene.names for second in scene.names if first != second)

    def popular(self, candidates: Sequence[str]) -> list[str]:
        """Returns the candidates, the most frequent first."""
        return sorted(candidates, key=lambda name: (-self._names[name], name))

    def adversarial(self, candidates: Sequence[str], present: Sequence[str]) -> list[str]:
        """Returns the candidates, those first that most often stand beside the present names."""
        return sorted(candidates, key=lambda name: (-sum(self._pairs[other, name] for other in present), name))
