"""Which batches of a validation part a process runs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset
from typing_extensions import override

from lightning_m2pt.errors import M2PTError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.tuning.sample_order import SampleLoader


class ShareLoader(SampleLoader):
    """Yields a process's share of a set's batches, which are those of one process.

    Every process has as many: those with fewer begin with their first ones again, which then do not count. A forward
    pass may need all processes, where weights are shared out, and Lightning skips a validation without batches.

    Args:
        dataset: The samples; not empty.
        batch_size: Samples of one batch.
        collate: Makes a ``Batch`` of what the data set gives, and passes errors on.
        rank: Number of this process.
        ranks: Number of processes.
        limit: How many of the set's batches are taken; None takes all.
        num_workers: Processes that prepare samples.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        collate: Callable[[Any], Batch | M2PTError],
        rank: int = 0,
        ranks: int = 1,
        limit: int | None = None,
        num_workers: int = 0,
    ) -> None:
        size: int = len(dataset)  # type: ignore[arg-type]  # ours have a length
        batches = [range(begin, min(begin + batch_size, size)) for begin in range(0, size, batch_size)][:limit]
        self.counted = len(batches[rank::ranks])
        padded = [*batches, *(batches * ranks)[: -len(batches) % ranks]][rank::ranks]
        # The one batch that may be smaller is the last of its process, so the loader cuts these very batches.
        positions = [position for batch in padded for position in batch]
        super().__init__(dataset, batch_size, collate, positions, num_workers)

    @override
    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(super().__iter__()):
            yield batch if number < self.counted else replace(batch, counts=False)
