"""Several instruction sets as one, with weights or sizes.

An epoch takes so many samples of each set: all of them, a number (``sizes``), or a share of as many samples as there
are (``weights``). A set's samples come in passes, each a permutation of its own, and an epoch goes on where the one
before it stopped, so that all of them come equally often. The order is a function of seed and epoch alone
(``lightning_m2pt/tuning/sample_order.py``).

Every sample keeps its set's id, picture and task; ``train/loss_of_set/NAME`` is the loss of each set.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from typing_extensions import override

from data_modules.base import DataModule, image_key
from data_modules.index.identity import code_digest
from data_modules.index.indexed_set import IndexedSet
from data_modules.instruction import InstructionDataModule, TemplateName
from data_modules.vision_flan import VisionFlan
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import are_collecting
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import SET_MARK, Sample
from lightning_m2pt.tuning.sample_order import Shares

OF_THE_WHOLE = ("template", "batch_size")
"""What every set has to say like the mixture."""
OF_THE_MIXTURE = (
    "micro_batch_size",
    "max_text_length",
    "num_workers",
    "order_seed",
    "group_by_length",
    "index",
    "index_folder",
)
"""What the mixture alone decides: a set leaves it at its default, or says the same."""

LARGEST = 10**9
"""Of weights and sizes: an order of more samples would not fit into memory."""


class Mixture(InstructionDataModule):
    """Several instruction sets as one, with weights or sizes.

    Args:
        sets: The sets; ``template`` and ``batch_size`` are those of the mixture, and the other settings of an optimizer
            step are the mixture's alone.
        template: Name of the conversation template.
        batch_size: Samples of one whole optimizer step, over all devices and micro-batches.
        weights: Share of every set in an epoch, as numbers of any size; an epoch has as many samples as all sets.
        sizes: How many samples of every set an epoch takes; more than a set has take some of them again.
        names: What the sets are called where losses are logged; None takes the names that they have.
        micro_batch_size: At most so many samples per forward and device; None takes a device's whole share of a step.
        max_text_length: Limit on a sample's tokens, its picture counted as one. Nothing is ever cut off.
        num_workers: Processes that read pictures.
        order_seed: Decides the order of the samples; None takes the run's seed.
        group_by_length: How many optimizer steps' samples are sorted by length together, so that less is padded; 0
            leaves the order alone, 1 evens the micro-batches of each step and leaves it its samples.
        index: Whether what was read and encoded of a large mixture is kept for the next start.
        index_folder: Where it is kept, whatever the set's size; None: a large set's in the user's cache folder.

    Raises:
        BadInputError: If there is no set, two have one name, a set says something else than the mixture, or weights and
            sizes are not one number of each set.
    """

    def __init__(
        self,
        sets: list[InstructionDataModule],
        template: TemplateName,
        batch_size: int,
        weights: list[float] | None = None,
        sizes: list[int] | None = None,
        names: list[str] | None = None,
        micro_batch_size: int | None = None,
        max_text_length: int = 1024,
        num_workers: int = 0,
        order_seed: int | None = None,
        group_by_length: int = 0,
        index: bool = True,
        index_folder: FilePath | None = None,
    ) -> None:
        if not sets:
            raise BadInputError("the mixture has no set", where="data.sets", expected="a list of instruction sets")
        super().__init__(
            str(sets[0].root),
            template,
            batch_size,
            micro_batch_size,
            1,
            max_text_length,
            num_workers,
            order_seed,
            group_by_length,
            index,
            index_folder,
        )
        self.sets = sets
        self.weights = weights
        self.sizes = sizes
        self.names = names if names is not None else [each.set_name for each in sets]
        self.counts: tuple[int, ...] = ()
        check_numbers(len(sets), weights, sizes)
        check_names(self.names, len(sets))
        for name, each in zip(self.names, sets, strict=True):
            refuse_other_settings(self, each, name)
            each.max_text_length, each.index, each.index_folder = max_text_length, index, index_folder

    @override
    def connect(self, processor: Processor, backbone: Backbone | None = None) -> None:
        super().connect(processor, backbone)
        for each in self.sets:
            each.connect(processor, backbone)

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes Vision-Flan's invented records twice, in the folders ``one`` and ``two``."""
        for name in ("one", "two"):
            VisionFlan.write_fake(root / name)

    @override
    def files_read(self) -> Sequence[Path] | None:
        files: list[Path] = []
        for each in self.sets:
            of_set = each.files_read()
            if of_set is None:
                return None
            files += of_set
        return files

    @override
    def identity(self) -> dict[str, Any] | None:
        code, parts = code_digest(type(self)), [each.identity() for each in self.sets]
        return None if code is None or None in parts else {"mixture": self.names, "sets": parts, "code": code}

    @override
    def found_or_read(self) -> IndexedSet:
        indexed = super().found_or_read()
        table = indexed.table
        self.counts = samples_of_sets(table.texts["ids"], table.training, self.names)
        if all(self.counts):
            taken = self.shares().taken
            if not all(taken):
                raise BadInputError(
                    f"an epoch takes no sample of {self.names[taken.index(0)]}",
                    where="data.weights",
                    expected="weights that give every set a sample",
                )
            shares = zip(self.names, taken, self.counts, strict=True)
            told = (f"{name} {share:,} of {count:,}" for name, share, count in shares)
            self.notes += (f"an epoch takes {', '.join(told)} samples",)
        return indexed

    def read(self) -> tuple[Iterable[Sample], Iterable[Sample]]:
        """Returns the training samples of all sets, set by set, and the validation samples.

        A set that has an index of its own is taken from there.

        Raises:
            BadInputError: If an annotation is wrong, a set has no training sample, or one set validates on what another
                trains on; the last while the validation samples are taken, which has to be after the others.
        """
        trained: set[int] = set()
        training: list[Iterator[Sample]] = []
        validation: list[Iterator[Sample]] = []
        notes: list[str] = []
        for name, each in zip(self.names, self.sets, strict=True):
            table = each.found_or_read().table
            if not table.training and not are_collecting():
                raise BadInputError("the set has no training sample", where=f"data.sets: {name}", expected="some")
            training.append(remembered(named(table.part(validation=False), name), trained))
            validation.append(not_among(named(table.part(validation=True), name), trained))
            notes += [f"{name}: {note}" for note in each.notes]
        self.notes = tuple(notes)
        return chain.from_iterable(training), chain.from_iterable(validation)

    @override
    def read_joined(self) -> tuple[Iterable[Sample], Iterable[Sample], Sequence[str]]:
        return *self.read(), self.notes  # joined already, and unique: sets differ in names, a set's samples in ids

    @property
    @override
    def epoch_size(self) -> Shares:
        self.read_once()
        return self.shares()

    def shares(self) -> Shares:
        """Returns what an epoch takes of the sets as they were read."""
        if self.sizes is not None:
            return Shares(self.counts, tuple(self.sizes))
        taken = self.counts if self.weights is None else shared_out(sum(self.counts), self.weights)
        return Shares(self.counts, taken)

    @override
    def state_dict(self) -> dict[str, int]:
        taken = dict(zip(self.names, self.epoch_size.taken, strict=True))
        return {**super().state_dict(), **{f"samples of {name} an epoch": count for name, count in taken.items()}}

    @override
    def training_tasks(self) -> list[str]:
        return sorted({task.partition(SET_MARK)[2] for task in super().training_tasks()})


def sets_inside(data: DataModule) -> list[DataModule]:
    """Returns a set and those that it is made of."""
    return [data, *data.sets] if isinstance(data, Mixture) else [data]


def named(samples: Iterable[Sample], name: str) -> Iterator[Sample]:
    """Yields a set's samples with its name in front of their ids and tasks."""
    for sample in samples:
        yield replace(sample, id=f"{name}/{sample.id}", tasks=tuple(f"{name}{SET_MARK}{task}" for task in sample.tasks))


def marks_of(sample: Sample) -> list[int]:
    """Returns a number for every question of a sample, its pictures and its answer: the same one for the same."""
    pictures = image_key(sample)
    return [hash((pictures, turn.question, turn.answer)) for turn in sample.turns]


def remembered(samples: Iterable[Sample], marks: set[int]) -> Iterator[Sample]:
    """Yields samples, and puts their marks among others."""
    for sample in samples:
        marks.update(marks_of(sample))
        yield sample


def not_among(samples: Iterable[Sample], marks: set[int]) -> Iterator[Sample]:
    """Yields samples, none of which has a mark that is among others.

    Raises:
        BadInputError: If one has: its loss would be that of a record that was learned.
    """
    for sample in samples:
        if not marks.isdisjoint(marks_of(sample)):
            raise BadInputError(
                f"{sample.id} is validated on, and another set trains on it",
                where=sample.source,
                expected="records that all sets have in the same part",
                hint="take it out of one of the sets, or give both the same validation_fraction",
            )
        yield sample


def samples_of_sets(ids: Sequence[str], training: int, names: Sequence[str]) -> tuple[int, ...]:
    """Returns how many training samples every set has.

    Args:
        ids: Of all samples, those of the training part first, set by set: ``NAME/ID``.
        training: How many the training part has.
        names: Of the sets, in order.
    """

    def set_of(place: int) -> int:
        return names.index(ids[place].partition("/")[0])

    begins = [bisect_left(range(training), number, key=set_of) for number in range(len(names) + 1)]
    return tuple(end - begin for begin, end in pairwise(begins))


def shared_out(count: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Shares out samples by weights, in whole numbers that add up.

    The largest remainders are rounded up, of equal ones the first.
    """
    exact = [count * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    order = sorted(range(len(weights)), key=lambda part: (shares[part] - exact[part], part))
    for part in order[: count - sum(shares)]:
        shares[part] += 1
    return tuple(shares)


def check_numbers(count: int, weights: Sequence[float] | None, sizes: Sequence[int] | None) -> None:
    """Looks at weights and sizes.

    Raises:
        BadInputError: If both are given, there are not as many as sets, or one is no such number.
    """
    if weights is not None and sizes is not None:
        raise BadInputError("both weights and sizes are set", where="data.sizes", expected="one of them")
    for key, numbers in (("weights", weights), ("sizes", sizes)):
        if numbers is None:
            continue
        if len(numbers) != count:
            raise BadInputError(
                f"there are {len(numbers)} {key} for {count} sets", where=f"data.{key}", expected="one for each set"
            )
        wrong = next((number for number in numbers if not 0 < number <= LARGEST), None)
        if wrong is not None:
            raise BadInputError(
                f"one of the {key} is {wrong}", where=f"data.{key}", expected=f"numbers above 0, up to {LARGEST:,}"
            )


def check_names(names: Sequence[str], count: int) -> None:
    """Looks at the names of sets.

    Raises:
        BadInputError: If there are not as many as sets, two are the same, or one cannot stand in a metric's name.
    """
    if len(names) != count:
        raise BadInputError(
            f"there are {len(names)} names for {count} sets", where="data.names", expected="one for each"
        )
    for name in names:
        if names.count(name) > 1:
            raise BadInputError(
                f"two sets are called {name!r:.60}",
                where="data.sets",
                expected="a name for each set",
                hint="data.names: [one, another], or `name` of a set that has it",
            )
        if not name.strip() or SET_MARK in name or "/" in name:
            raise BadInputError(
                f"a set is called {name!r:.60}", where="data.names", expected=f"a name without / and {SET_MARK}"
            )


def refuse_other_settings(whole: Mixture, part: InstructionDataModule, name: str) -> None:
    """Refuses a set whose settings would not count.

    Raises:
        BadInputError: If it says something else than the mixture.
    """
    if isinstance(part, Mixture):
        raise BadInputError("a mixture stands in a mixture", where=f"data.sets: {name}", expected="its sets themselves")
    parameters = signature(type(part).__init__).parameters
    for key in (*OF_THE_WHOLE, *OF_THE_MIXTURE):
        said, wanted = getattr(part, key), getattr(whole, key)
        default = parameters[key].default if key in parameters else Parameter.empty
        if said != wanted and (key in OF_THE_WHOLE or said != default):
            raise BadInputError(
                f"the set {name} has another {key} than the mixture",
                where=f"data.sets: {name}: {key}",
                expected="the mixture's" + ", or no such key" * (key in OF_THE_MIXTURE),
                hint=f"write {key} of the mixture, which decides it for all",
            )
