"""Instruction tuning sets: conversations to train on."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from data_modules.base import DataModule, OnPicture, look_at, nobody_asks, unique_ids
from data_modules.index.encoded_texts import NO_TEXTS, TextsInARow
from data_modules.index.identity import reading_identity
from data_modules.index.indexed_set import IndexedSet, read_or_found
from data_modules.index.kept import LARGE_BYTES, LARGE_SAMPLES, bytes_of_files, index_folder_of
from data_modules.index.picture_check import pictures_there
from data_modules.index.sample_layouts import SampleLayouts
from data_modules.index.sample_table import SamplePart
from data_modules.sample_rows import refuse_without_positions
from data_modules.trainer_run import add_up, place_of, refuse_other_order, seed_of_run
from data_modules.training_samples import SampleDataset, join_conversations, uniquely_named
from data_modules.validation_share import ShareLoader
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import TemplateName
from lightning_m2pt.inputs.picture_layout import SIZES_ALONE, RunRows
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.system.console import say
from lightning_m2pt.tuning.memory_estimate import MicroBatchSize
from lightning_m2pt.tuning.sample_order import (
    EpochLimit,
    LengthGroups,
    OrderedSampler,
    ResumableLoader,
    Shares,
    checked_micro_batch_size,
    largest_even_part,
    samples_of_epoch,
    samples_of_steps,
)


class InstructionDataModule(DataModule):
    """A set of conversations with a training and a validation part.

    Args:
        root: Folder of the data set.
        template: Name of the conversation template.
        batch_size: Samples of one whole optimizer step, over all devices and micro-batches.
        micro_batch_size: At most so many samples per forward and device; None takes a device's whole share of a step.
        questions_per_sample: How many records of one picture become one conversation; 1 as published.
        max_text_length: Limit on a sample's tokens, its picture counted as one. Nothing is ever cut off.
        num_workers: Processes that read pictures.
        order_seed: Decides the order of the samples; None takes the run's seed.
        group_by_length: How many optimizer steps' samples are sorted by length together, so that less is padded; 0
            leaves the order alone, 1 evens the micro-batches of each step and leaves it its samples.
        index: Whether what was read and encoded of a large set is kept for the next start.
        index_folder: Where it is kept, whatever the set's size; None: a large set's in the user's cache folder.

    Raises:
        BadInputError: If a number is out of range.
    """

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int,
        micro_batch_size: int | None = None,
        questions_per_sample: int = 1,
        max_text_length: int = 1024,
        num_workers: int = 0,
        order_seed: int | None = None,
        group_by_length: int = 0,
        index: bool = True,
        index_folder: FilePath | None = None,
    ) -> None:
        super().__init__(root, template)
        for key, value, least in (
            ("batch_size", batch_size, 1),
            ("micro_batch_size", 1 if micro_batch_size is None else micro_batch_size, 1),
            ("questions_per_sample", questions_per_sample, 1),
            ("max_text_length", max_text_length, 1),
            ("num_workers", num_workers, 0),
            ("group_by_length", group_by_length, 0),
        ):
            if value < least:
                raise BadInputError(f"{key} is {value}", where=f"data.{key}", expected=f"at least {least}")
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.questions_per_sample = questions_per_sample
        self.max_text_length = max_text_length
        self.num_workers = num_workers
        self.order_seed = order_seed
        self.run_seed: int | None = None
        self.trainer_seed: int | None = None
        self.group_by_length = group_by_length
        self.length_groups: LengthGroups | None = None
        self.epoch_limit: EpochLimit | None = None
        self.validation_limit: int | None = None
        self.index = index
        self.index_folder = index_folder
        self.notes: tuple[str, ...] = ()
        self._said: set[str] = set()
        self._indexed: IndexedSet | None = None
        self.train_texts: TextsInARow = NO_TEXTS
        self.validation_texts: TextsInARow = NO_TEXTS

    @abstractmethod
    def read(self) -> tuple[Iterable[Sample], Iterable[Sample]]:
        """Returns the training and the validation samples, read from disk, one question each.

        What is worth knowing of them is left in ``notes``, a line each.

        Raises:
            BadInputError: If an annotation is wrong, naming file and record.
        """

    @property
    def set_name(self) -> str:
        """What the set is called among others, and the task of samples that name none."""
        return type(self).__name__

    @property
    def epoch_size(self) -> int | Shares:
        """How many samples an epoch takes, those that fill no whole step included; of a mixture those of each part."""
        return len(self.read_once()[0])

    def set_order_seed(self, seed: int | None) -> None:
        """Takes the run's seed, which counts where there is no ``order_seed``; None leaves it to the Trainer's run."""
        self.run_seed = seed

    def leave_run(self) -> None:
        """Drops what a run has decided, its seed and its limits: the next one decides its own."""
        self.run_seed = self.epoch_limit = self.validation_limit = None

    def files_read(self) -> Sequence[Path] | None:
        """Returns all files that ``read`` reads, pictures left out; None keeps no index of what was read.

        A class that names them keeps what its constructor is given under the arguments' names: these, the files and
        the code of the class decide what is read, and nothing else may.
        """
        return None

    def identity(self) -> dict[str, Any] | None:
        """Returns all that decides which samples there are, as plain values; None where that is not known."""
        files = self.files_read()
        return None if files is None else reading_identity(self, files)

    def indexed(self) -> IndexedSet:
        """Returns the set as it was read, or found in its index, once; says what is worth knowing of it.

        Raises:
            BadInputError: If an annotation is wrong.
            EnvironmentFailure: If the index cannot be written.
        """
        if self._indexed is None:
            self._indexed = self.found_or_read()
            for note in self.notes:
                if note not in self._said:  # read again, a set says only what is new
                    say(f"note: {note}")
            self._said.update(self.notes)
        return self._indexed

    def found_or_read(self) -> IndexedSet:
        """Returns the set from its index, or read, and leaves in ``notes`` what is worth knowing of it.

        Raises:
            BadInputError: If an annotation is wrong.
            EnvironmentFailure: If the index cannot be written.
        """
        folder = index_folder_of(self.index, self.index_folder, bytes_of_files(self.files_read()), LARGE_BYTES)
        identity = None if folder is None else self.identity()
        table, digest, self.notes = read_or_found(self.read_joined, identity, folder)
        if folder is None:
            folder = index_folder_of(self.index, self.index_folder, len(table), LARGE_SAMPLES)
        return IndexedSet(table, digest, folder)

    def read_joined(self) -> tuple[Iterable[Sample], Iterable[Sample], Sequence[str]]:
        """Returns the samples of both parts, joined to conversations and of unique names, and what ``notes`` says."""
        train, validation = self.read()
        if self.questions_per_sample > 1:
            train, validation = list(train), list(validation)
            unique_ids([*train, *validation], key=lambda item: item.id)
            return join_conversations(train, self.questions_per_sample), validation, self.notes
        return *uniquely_named(train, validation), self.notes

    def read_once(self) -> tuple[SamplePart, SamplePart]:
        """Returns the training and the validation samples, joined to conversations."""
        table = self.indexed().table
        return table.part(validation=False), table.part(validation=True)

    def items(self) -> Sequence[Sample]:
        """Returns the training samples, then the validation samples."""
        return self.indexed().table

    def training_tasks(self) -> list[str]:
        """Returns the tasks of the training samples, in the order of the alphabet."""
        return self.indexed().table.tasks_of(self.read_once()[0])

    @override
    def fingerprint(self) -> str:
        return self.indexed().fingerprint

    @override
    def examine(self, decode: bool, on_picture: OnPicture) -> None:
        indexed = self.indexed()
        there = pictures_there(indexed.table, indexed.states)
        processor = self.connected_processor
        look = partial(look_at, there, processor, decode, on_picture)
        indexed.look_at_pictures(processor, look, again=decode)
        on_picture(len(there), len(there))
        self.encode_texts()

    @override
    def check(self, decode: bool = False, on_picture: OnPicture = nobody_asks) -> None:
        super().check(decode, on_picture)
        self.sampler(rank=0, world_size=1)  # can the step be split?

    @override
    def forget(self) -> None:
        self._indexed = None
        self.train_texts = self.validation_texts = NO_TEXTS

    def setup(self, stage: str | None = None) -> None:
        """Reads the annotations, looks for every picture and encodes all texts.

        Raises:
            BadInputError: If a record, a picture or a text's length is wrong, or the Trainer's step is another one.
        """
        self.connect_to_module()
        if not self.train_texts:
            pictures_there(self.indexed().table, self.indexed().states)
            self.encode_texts()
        if stage == "fit" and self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.trainer_seed = seed_of_run(self.trainer)
            add_up(self.trainer, self.micro_batches_per_step(self.trainer.world_size))

    def state_dict(self) -> dict[str, int]:
        """Returns what decides the order of the samples, for a Trainer's checkpoint."""
        decided = {"order_seed": self.seed(), "samples": len(self.read_once()[0]), "batch_size": self.batch_size}
        return {**decided, "group_by_length": self.group_by_length}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Compares the order of a checkpoint's run with this one.

        Raises:
            BadInputError: If it is another one.
        """
        refuse_other_order(state_dict, self.state_dict())

    def encode_texts(self) -> None:
        """Encodes all texts, once.

        Raises:
            BadInputError: If a text is too long.
        """
        indexed = self.indexed()
        texts = indexed.texts(self.processor, self.template, self.max_text_length)
        training = indexed.table.training
        self.train_texts, self.validation_texts = texts.part(0, training), texts.part(training, len(texts))
        if self.group_by_length:
            lengths = self._layouts(0).rows(self.train_texts, SIZES_ALONE)
            self.length_groups = LengthGroups(lengths, self.group_by_length)

    def _layouts(self, part: int) -> SampleLayouts:
        """Returns the layouts of the pictures of the training (0) or the validation part (1).

        Raises:
            BadInputError: If a picture's size has to be known and cannot be read.
        """
        return self.indexed().layouts(self.processor).part(self.read_once()[part])

    def check_lengths(self, run_rows: RunRows, maximum_rows: int) -> None:
        """Looks whether every sample with its pictures fits into the language model.

        Args:
            run_rows: What a picture's rows are in the language model.
            maximum_rows: The longest sequence that the language model knows, without prompts.

        Raises:
            BadInputError: If samples are longer: the longest, and how many there are.
        """
        self.setup("fit")
        texts = (self.train_texts, self.validation_texts)
        rows = numpy.concatenate([self._layouts(part).rows(each, run_rows) for part, each in enumerate(texts)])
        refuse_without_positions(self.items(), rows, maximum_rows)

    def seed(self) -> int:
        """Returns the seed of the sample order.

        Raises:
            BadInputError: If neither the configuration nor the run gave one.
        """
        given = (self.order_seed, self.run_seed, self.trainer_seed)
        seed = next((each for each in given if each is not None), None)
        if seed is None:
            raise BadInputError(
                "the sample order has no seed", where="data.order_seed", expected="a number, or seed_everything"
            )
        return seed

    def sampler(self, rank: int, world_size: int) -> OrderedSampler:
        """Returns one rank's order of the training samples.

        Raises:
            BadInputError: If the devices cannot share an optimizer step evenly.
        """
        self.setup("fit")
        decides = (self.epoch_size, self.seed(), self.batch_size, self.micro_batch_size)
        return OrderedSampler(*decides, rank, world_size, self.length_groups, self.epoch_limit)

    def micro_batches_per_step(self, world_size: int) -> int:
        """Returns how many micro-batches a device accumulates for one optimizer step.

        Raises:
            BadInputError: If the devices cannot share an optimizer step evenly.
        """
        size = samples_of_epoch(self.epoch_size)
        micro = checked_micro_batch_size(self.batch_size, self.micro_batch_size, world_size, size)
        return self.batch_size // (micro * world_size)

    def largest_micro_batch(self, world_size: int, run_rows: RunRows) -> MicroBatchSize:
        """Returns the longest sample, the most labels and the most tiles that a micro-batch of the first epoch has.

        Args:
            world_size: Number of devices.
            run_rows: What a picture's rows are in the language model.

        Raises:
            BadInputError: If the devices cannot share an optimizer step evenly, or a picture's size cannot be read.
        """
        sampler = self.sampler(0, world_size)
        steps = samples_of_steps(self.seed(), 0, self.epoch_size, self.batch_size, self.length_groups)
        micro_batches = steps.reshape(-1, sampler.micro_batch_size)
        layouts = self._layouts(0)
        rows = layouts.rows(self.train_texts, run_rows)
        known = numpy.arange(len(rows)) if isinstance(self.epoch_size, Shares) else micro_batches.reshape(-1)
        longest = int(known[rows[known].argmax()])  # another epoch of a mixture may take longer ones than the first
        text_rows = int(self.train_texts.lengths[longest] - layouts.pictures[longest])
        supervised = self.train_texts.supervised_tokens
        return MicroBatchSize(
            samples=sampler.micro_batch_size,
            text_rows=text_rows,
            supervised_rows=int(supervised[micro_batches].sum(axis=1).max()),
            tiles=-(-int(layouts.tiles[micro_batches].sum(axis=1).max()) // sampler.micro_batch_size),
            picture_rows=max(0, int(rows[longest]) - text_rows - run_rows.beside),
        )

    def steps_in_set(self) -> int:
        """Returns the number of optimizer steps that the training samples make; what is left over is dropped."""
        return samples_of_epoch(self.epoch_size) // self.batch_size

    def steps_per_epoch(self) -> int:
        """Returns the number of optimizer steps of an epoch, which may be limited."""
        steps = self.steps_in_set()
        return steps if self.epoch_limit is None else min(steps, self.epoch_limit.steps)

    def limit_epochs(self, steps: int, *, always_the_same: bool) -> None:
        """Cuts every epoch after so many optimizer steps, and may take those of the first one again and again."""
        self.epoch_limit = EpochLimit(steps, always_the_same)

    def tokens_of_step(self, epoch: int, step_in_epoch: int) -> int:
        """Returns the supervised tokens of one optimizer step of one epoch."""
        return self._sum_of_step(self.train_texts.supervised_tokens, epoch, step_in_epoch)

    def pictures_of_step(self, epoch: int, step_in_epoch: int) -> int:
        """Returns the pictures of one optimizer step of one epoch."""
        return self._sum_of_step(self.indexed().table.picture_counts, epoch, step_in_epoch)  # training stands first

    def _sum_of_step(self, of_each: numpy.ndarray, epoch: int, step_in_epoch: int) -> int:
        epoch = epoch if self.epoch_limit is None else self.epoch_limit.order_epoch(epoch)
        steps = samples_of_steps(self.seed(), epoch, self.epoch_size, self.batch_size, self.length_groups)
        return int(of_each[steps[step_in_epoch]].sum())

    def train_dataloader(self) -> ResumableLoader:
        """Returns this rank's training loader.

        Raises:
            BadInputError: If the devices cannot share an optimizer step evenly.
        """
        self.setup("fit")
        dataset = SampleDataset(self.read_once()[0], self.train_texts, self.processor)
        order, workers = self.sampler(*place_of(self.trainer)), (self.num_workers, torch.cuda.is_available())
        return ResumableLoader(dataset, order, self.tokens_of_step, self.collator, *workers, self.pictures_of_step)

    def val_dataloader(self) -> list[ShareLoader]:
        """Returns this rank's validation loader in a list, which is empty when there is no validation part."""
        self.setup("validate")
        validation = self.read_once()[1]
        if not validation:
            return []
        dataset = SampleDataset(validation, self.validation_texts, self.processor)
        batches = (largest_even_part(self.batch_size, self.micro_batch_size), self.collator)
        return [ShareLoader(dataset, *batches, *place_of(self.trainer), self.validation_limit, self.num_workers)]
