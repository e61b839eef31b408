"""Which samples every optimizer step sees: a pure function of seed, epoch and step.

The order of an epoch does not depend on devices, micro-batches, loader workers or interruptions. Optimizer step s of
an epoch covers positions s*B to (s+1)*B of its order, B samples over all devices; what is left over at the end of an
epoch is dropped. Within a step, micro-batch j of rank r is a contiguous chunk, so 1 device x 8, 4 micro-batches x 2
and 2 devices x 4 train on the same samples.

A set may be a mixture: then an epoch takes so many samples of each of its parts. A part's samples come in passes, one
permutation after the other, and an epoch goes on where the one before it stopped: all of them come equally often.

Steps may be grouped by length, so that little is padded: the samples of some steps in a row are sorted together and
cut into steps again, whose order is drawn anew. All of this is a function of seed, epoch and lengths alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_m2pt.errors import BadInputError, M2PTError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.system.stop_signals import leave_stopping_to_the_main_process, stop_signals_held_back


def epoch_order(seed: int, epoch: int, size: int) -> numpy.ndarray:
    """Returns the (size,) int64 permutation of one epoch.

    Philox is counter based and specified bit by bit, so the order is the same on every machine and numpy version
    that keeps ``Generator.permutation``; the test suite holds golden values.
    """
    return permutation_of(seed, epoch, size, 0)


def permutation_of(seed: int, number: int, size: int, stream: int) -> numpy.ndarray:
    """Returns a (size,) int64 permutation; those of different streams have no random number in common.

    Args:
        seed: Decides it, together with the two numbers.
        number: Which of a stream's permutations, below 2**64.
        size: How many positions.
        stream: Which stream; the order of epochs is stream 0.
    """
    key = numpy.array([seed % 2**64, number], dtype=numpy.uint64)
    counter = numpy.array([0, 0, 0, stream], dtype=numpy.uint64)
    generator = numpy.random.Generator(numpy.random.Philox(key=key, counter=counter))
    return generator.permutation(size)


@dataclass(frozen=True)
class Shares:
    """What an epoch takes of every part of a mixture, whose samples stand one part behind the other.

    Attributes:
        sizes: Samples of every part.
        taken: How many of them an epoch takes, more or fewer than there are.
    """

    sizes: tuple[int, ...]
    taken: tuple[int, ...]

    def positions(self, seed: int, epoch: int) -> numpy.ndarray:
        """Returns (sum of ``taken``,) int64: the samples of one epoch, part by part."""
        parts = []
        begin = 0
        for part, (size, taken) in enumerate(zip(self.sizes, self.taken, strict=True)):
            first, last = epoch * taken, (epoch + 1) * taken
            passes = range(first // size, -(-last // size))
            order = [permutation_of(seed, number, size, part + 1) for number in passes]
            if order:
                parts.append(begin + numpy.concatenate(order)[first - passes.start * size :][:taken])
            begin += size
        return numpy.concatenate(parts)


def samples_of_epoch(size: int | Shares) -> int:
    """Returns how many samples an epoch takes, those that fill no whole step included."""
    return size if isinstance(size, int) else sum(size.taken)


def order_of(seed: int, epoch: int, size: int | Shares) -> numpy.ndarray:
    """Returns the samples of one epoch in order, int64: all of them, or of a mixture what it takes of each part."""
    order = epoch_order(seed, epoch, samples_of_epoch(size))
    return order if isinstance(size, int) else size.positions(seed, epoch)[order]


@dataclass(frozen=True, eq=False)  # compared and hashed as the object it is: its array has no hash
class LengthGroups:
    """Which samples are sorted by length together.

    Attributes:
        lengths: (samples,) int64, the tokens of every training sample; what is the same for all, such as the rows of
            one picture, may be left out.
        steps: Optimizer steps whose samples are sorted together. With 1 every step has the samples that it has
            without groups, and only its micro-batches become even.
    """

    lengths: numpy.ndarray
    steps: int


@dataclass(frozen=True)
class EpochLimit:
    """How much of an epoch is trained on.

    Attributes:
        steps: Optimizer steps of an epoch; those after them are left out.
        always_the_same: Whether every epoch is the first one again.
    """

    steps: int
    always_the_same: bool = False

    def order_epoch(self, epoch: int) -> int:
        """Returns the number of the epoch whose order is taken."""
        return 0 if self.always_the_same else epoch


@lru_cache(maxsize=2)
def samples_of_steps(
    seed: int, epoch: int, size: int | Shares, batch_size: int, groups: LengthGroups | None = None
) -> numpy.ndarray:
    """Returns which samples every optimizer step of an epoch sees, (steps, batch size) int64; read it only.

    With groups the samples of a step are in falling order of length, equal ones in the epoch's order, so that every
    contiguous chunk of a step is even. The last group may have fewer steps.
    """
    steps = samples_of_epoch(size) // batch_size
    rows = order_of(seed, epoch, size)[: steps * batch_size].reshape(steps, batch_size)
    if groups is None:
        return rows
    parts = []
    for start in range(0, steps, groups.steps):
        together = rows[start : start + groups.steps].reshape(-1)
        parts.append(together[numpy.argsort(-groups.lengths[together], kind="stable")].reshape(-1, batch_size))
    grouped: numpy.ndarray = numpy.concatenate(parts)
    # Within a group the steps fall in length: without a new order of steps the lengths would saw through the epoch.
    return grouped if groups.steps == 1 else grouped[epoch_order(seed, epoch, steps)]


def checked_micro_batch_size(batch_size: int, micro_batch_size: int | None, world_size: int, size: int) -> int:
    """Returns the samples per forward and device that split an optimizer step evenly.

    Args:
        batch_size: Samples of one optimizer step over all devices.
        micro_batch_size: At most so many samples per forward and device; None takes a device's whole share of the step.
        world_size: Number of devices.
        size: Number of samples in the training set.

    Raises:
        BadInputError: If the devices cannot share a step evenly, or the set has fewer samples than one.
    """
    if batch_size < 1 or (micro_batch_size is not None and micro_batch_size < 1):
        raise BadInputError("a batch size is not positive", where="data.batch_size", expected="at least 1")
    if size < batch_size:
        raise BadInputError(
            f"the training set has {size} samples, fewer than one optimizer step of {batch_size}",
            where="data.batch_size",
            expected=f"at most {size}",
        )
    refuse_uneven_shares(batch_size, world_size)
    return largest_even_part(batch_size // world_size, micro_batch_size)


def refuse_uneven_shares(batch_size: int, world_size: int) -> None:
    """Refuses a step that devices cannot share evenly.

    Raises:
        BadInputError: With the numbers of devices that can, and the batch sizes that these devices can share.
    """
    if batch_size % world_size:
        counts = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
        raise BadInputError(
            f"{batch_size} samples a step cannot be shared evenly by {world_size} devices",
            where="data.batch_size",
            expected=f"one of {counts} devices, or a multiple of {world_size}",
        )


def largest_even_part(samples: int, at_most: int | None) -> int:
    """Returns the largest number that divides samples into even parts and is no larger than the bound.

    Args:
        samples: How many are divided.
        at_most: The bound; None takes all of them.
    """
    largest = samples if at_most is None else min(at_most, samples)
    return next(part for part in range(largest, 0, -1) if samples % part == 0)


class OrderedSampler(Sampler[int]):
    """Yields one rank's positions of one epoch, micro-batch after micro-batch.

    Args:
        size: Number of samples in the training set; of a mixture what an epoch takes of its parts.
        seed: Decides the order, together with the epoch.
        batch_size: Samples of one optimizer step over all devices.
        micro_batch_size: At most so many samples per forward and device; None takes a device's whole share of the step.
        rank: Number of this device.
        world_size: Number of devices.
        groups: Which samples are sorted by length together; None leaves the order alone.
        epochs: How many steps of an epoch are taken, and whether always the same ones; None takes all of them.

    Raises:
        BadInputError: If the devices cannot share a step evenly.
    """

    def __init__(
        self,
        size: int | Shares,
        seed: int,
        batch_size: int,
        micro_batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        groups: LengthGroups | None = None,
        epochs: EpochLimit | None = None,
    ) -> None:
        self.size = size
        self.seed = seed
        self.batch_size = batch_size
        count = samples_of_epoch(size)
        self.micro_batch_size = checked_micro_batch_size(batch_size, micro_batch_size, world_size, count)
        self.micro_batches_per_step = batch_size // (self.micro_batch_size * world_size)
        self.epochs = epochs or EpochLimit(count // batch_size)
        self.steps_per_epoch = min(self.epochs.steps, count // batch_size)
        self.rank = rank
        self.world_size = world_size
        self.groups = groups
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def set_start(self, micro_batch: int) -> None:
        """Sets how many of this rank's micro-batches the next pass over the epoch leaves out."""
        self.start = micro_batch

    def positions(self) -> numpy.ndarray:
        """Returns this rank's sample positions of the whole epoch, (micro-batches, micro-batch size) int64."""
        epoch = self.epochs.order_epoch(self.epoch)
        order = samples_of_steps(self.seed, epoch, self.size, self.batch_size, self.groups)[: self.steps_per_epoch]
        shape = (self.steps_per_epoch * self.micro_batches_per_step, self.world_size, self.micro_batch_size)
        return order.reshape(shape)[:, self.rank]

    def __iter__(self) -> Iterator[int]:
        """Yields positions from ``start`` on; a list of them all would take 50 bytes a sample."""
        return map(int, self.positions()[self.start :].reshape(-1))

    def __len__(self) -> int:
        """Returns this rank's number of samples in a whole epoch, whatever ``start`` is."""
        return self.steps_per_epoch * self.micro_batches_per_step * self.micro_batch_size


class SampleLoader:
    """Yields batches, leaves the global random generator alone, and raises a worker's error as it was.

    It holds a PyTorch loader and is none, so that Lightning never rebuilds it around a sampler of its own, which it
    does for several devices and for prediction. Every device reads the whole of a set that has no ``sampler``.

    Args:
        dataset: Samples by position; its ``__getitems__`` returns an error in place of a batch it cannot prepare.
        batch_size: Samples of one batch.
        collate: Makes a ``Batch`` of what the data set gives, and passes errors on.
        sampler: Order of the samples; None keeps the data set's.
        num_workers: Processes that prepare samples.
        pin_memory: Whether batches are put into page-locked memory.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        collate: Callable[[Any], Batch | M2PTError],
        sampler: OrderedSampler | Sequence[int] | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self.loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            worker_init_fn=leave_stopping_to_the_main_process,
            generator=torch.Generator(),  # without it every pass draws a number from the global generator
        )

    def __len__(self) -> int:
        """Returns the number of batches of a whole pass."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        """Yields batches.

        Raises:
            M2PTError: What a worker met. PyTorch itself would rebuild the error from its text, and fail at that.
        """
        with stop_signals_held_back():
            batches = iter(self.loader)
        for batch in batches:
            if isinstance(batch, M2PTError):
                raise batch
            yield batch


class ResumableLoader(SampleLoader):
    """A training loader that knows how far the trainer has come and goes on from there.

    Its state counts what was handed to the trainer, not what workers have fetched ahead, and is counted in samples
    over all devices, so it holds for any number of workers, devices and micro-batches.

    Args:
        dataset: Training samples by position.
        sampler: Their order.
        step_tokens: Supervised tokens of (epoch, step within the epoch), written into every batch of the step.
        collate: Makes a ``Batch`` of what the data set gives.
        num_workers: Processes that prepare samples.
        pin_memory: Whether batches are put into page-locked memory.
        step_pictures: Pictures of (epoch, step within the epoch), written likewise; None leaves 0 there.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: OrderedSampler,
        step_tokens: Callable[[int, int], int],
        collate: Callable[[Any], Batch | M2PTError],
        num_workers: int = 0,
        pin_memory: bool = False,
        step_pictures: Callable[[int, int], int] | None = None,
    ) -> None:
        super().__init__(dataset, sampler.micro_batch_size, collate, sampler, num_workers, pin_memory)
        self.sampler = sampler
        self.step_tokens = step_tokens
        self.step_pictures = step_pictures
        self.state_epoch = 0
        self.state_micro_batches = 0

    def __iter__(self) -> Iterator[Batch]:
        """Yields the rest of the epoch that the sampler is set to.

        A generator on purpose: Lightning asks for the iterator before it sets the epoch, and takes the first batch
        after it.
        """
        if self.state_epoch != self.sampler.epoch:
            self.state_epoch, self.state_micro_batches = self.sampler.epoch, 0
        self.sampler.set_start(self.state_micro_batches)
        if self.state_micro_batches == len(self):
            return
        for batch in super().__iter__():
            step = self.state_micro_batches // self.sampler.micro_batches_per_step
            self.state_micro_batches += 1
            tokens = self.step_tokens(self.state_epoch, step)
            pictures = self.step_pictures(self.state_epoch, step) if self.step_pictures is not None else 0
            yield replace(batch, step_supervised_tokens=tokens, step_pictures=pictures)

    def state_dict(self) -> dict[str, int]:
        """Returns the epoch and the samples of it that the trainer has had, over all devices."""
        samples_per_micro_batch = self.sampler.micro_batch_size * self.sampler.world_size
        return {"epoch": self.state_epoch, "samples": self.state_micro_batches * samples_per_micro_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where ``state_dict`` was taken, possibly with another split of the step.

        Raises:
            BadInputError: If that point lies inside one of this split's micro-batches.
        """
        samples_per_micro_batch = self.sampler.micro_batch_size * self.sampler.world_size
        micro_batches, rest = divmod(state["samples"], samples_per_micro_batch)
        if rest:
            raise BadInputError(
                f"the checkpoint was taken after {state['samples']} samples of the epoch",
                where="data.micro_batch_size",
                expected=f"a multiple of {samples_per_micro_batch} samples with this number of devices",
                hint="resume with the split the run began with",
            )
        self.state_epoch, self.state_micro_batches = state["epoch"], micro_batches
