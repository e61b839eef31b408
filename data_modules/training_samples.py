"""From what was read to what is trained on: unique names, conversations of several questions, prepared samples."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch.utils.data import Dataset

from data_modules.base import image_key
from lightning_m2pt.errors import BadInputError, M2PTError
from lightning_m2pt.inputs.collate import EncodedSample, encoded_sample
from lightning_m2pt.inputs.encoded_text import EncodedText
from lightning_m2pt.inputs.mistakes import refuse
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample


@dataclass(frozen=True)
class SampleDataset(Dataset[EncodedSample]):
    """Samples whose text is encoded and whose picture is read when asked for."""

    samples: Sequence[Sample]
    texts: Sequence[EncodedText]
    processor: Processor

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.samples)

    def __getitem__(self, position: int) -> EncodedSample:
        """Returns one sample with its pictures.

        Raises:
            BadInputError: If a picture cannot be read.
        """
        sample = self.samples[position]
        return encoded_sample(sample, self.texts[position], self.processor, f"{sample.source}: sample {sample.id}")

    def __getitems__(self, positions: Sequence[int]) -> list[EncodedSample] | M2PTError:
        """Returns the samples of one batch, or the first error among them, which the loader then raises."""
        try:
            return [self[position] for position in positions]
        except M2PTError as error:
            return error


def uniquely_named(
    training: Iterable[Sample], validation: Iterable[Sample]
) -> tuple[Iterator[Sample], Iterator[Sample]]:
    """Passes samples on one by one, and refuses two of the same name when all of both parts have been taken.

    Returns:
        The samples of both parts; the training part has to be taken first.

    Raises:
        BadInputError: At the end, naming both places.
    """
    first: dict[str, str] = {}
    mistakes: list[BadInputError] = []

    def passed(samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            if sample.id in first:
                mistake = f"{sample.id!r:.160} is there twice, first at {first[sample.id]}"
                mistakes.append(BadInputError(mistake, where=sample.source, expected="unique records"))
            first.setdefault(sample.id, sample.source)
            yield sample

    def last() -> Iterator[Sample]:
        yield from passed(validation)
        refuse(mistakes)

    return passed(training), last()


def join_conversations(samples: Sequence[Sample], questions_per_sample: int) -> list[Sample]:
    """Joins samples of one picture, in file order, to conversations of at most so many questions."""
    if questions_per_sample == 1:
        return list(samples)
    groups: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        # Texts without a picture have nothing in common; where later turns show some, their order would be lost.
        several = image_key(sample) if sample.further_images else ""
        alone = not sample.images or sample.shown_in_turns
        key = ("", sample.id, "") if alone else (sample.image_id, several, sample.system)
        groups.setdefault(key, []).append(sample)
    conversations = []
    for group in groups.values():
        for start in range(0, len(group), questions_per_sample):
            some = group[start : start + questions_per_sample]
            conversations.append(
                replace(
                    some[0],
                    id="+".join(sample.id for sample in some),
                    turns=tuple(turn for sample in some for turn in sample.turns),
                    tasks=tuple(task for sample in some for task in sample.tasks),
                )
            )
    return conversations
