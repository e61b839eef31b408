"""Planned batches of whole pictures, as a loader reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from lightning_m2pt.answering.asked_pictures import AskedPicture, read_batch
from lightning_m2pt.errors import M2PTError
from lightning_m2pt.inputs.picture_batch import PictureBatch
from lightning_m2pt.inputs.processing import Processor


@dataclass(frozen=True)
class PictureDataset(Dataset[PictureBatch]):
    """Planned batches, whose pictures are read when asked for: each once."""

    batches: Sequence[Sequence[AskedPicture]]
    processor: Processor

    def __len__(self) -> int:
        """Returns the number of batches."""
        return len(self.batches)

    def __getitem__(self, position: int) -> PictureBatch:
        """Returns one batch.

        Raises:
            BadInputError: If a picture cannot be read.
        """
        return read_batch(self.batches[position], self.processor)

    def __getitems__(self, positions: Sequence[int]) -> PictureBatch | M2PTError:
        """Returns the one batch asked for, or the first error met, which the loader then raises."""
        (position,) = positions
        try:
            return self[position]
        except M2PTError as error:
            return error


def as_it_is(batch: Any) -> Any:
    """Stands where loaders put samples together: a planned batch is one already."""
    return batch
