"""The order of samples: one function of seed and epoch, whatever the split, the workers and the interruptions."""

from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer

from data_modules.vision_flan import VisionFlan
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.testing.small_processor import small_processor
from lightning_m2pt.tuning.sample_order import (
    LengthGroups,
    OrderedSampler,
    ResumableLoader,
    epoch_order,
    samples_of_steps,
)


@given(seed=st.integers(0, 2**64), epoch=st.integers(0, 1000), size=st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_only(seed: int, epoch: int, size: int) -> None:
    order = epoch_order(seed, epoch, size)
    assert sorted(order.tolist()) == list(range(size))
    assert (order == epoch_order(seed, epoch, size)).all()


def test_the_order_is_the_same_on_every_machine() -> None:
    assert epoch_order(7, 0, 8).tolist() == [7, 1, 3, 2, 6, 5, 0, 4]
    assert epoch_order(7, 1, 8).tolist() == [1, 7, 4, 0, 3, 2, 6, 5]


def test_the_grouped_order_is_the_same_on_every_machine() -> None:
    lengths = numpy.array([3, 9, 4, 4, 8, 1, 7, 2])
    assert samples_of_steps(7, 0, 8, 2, LengthGroups(lengths, 1)).tolist() == [[1, 7], [3, 2], [6, 5], [4, 0]]
    assert samples_of_steps(7, 0, 8, 2, LengthGroups(lengths, 2)).tolist() == [[4, 6], [2, 7], [0, 5], [1, 3]]
    assert samples_of_steps(7, 1, 8, 2, LengthGroups(lengths, 9)).tolist() == [[7, 5], [1, 4], [2, 0], [6, 3]]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_grouping_by_length_keeps_every_sample_and_falls_within_a_step(data: st.DataObject) -> None:
    batch_size, together = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    size = batch_size * data.draw(st.integers(1, 9)) + data.draw(st.integers(0, batch_size - 1))
    lengths = numpy.array(data.draw(st.lists(st.integers(1, 9), min_size=size, max_size=size)))
    seed, epoch = data.draw(st.integers(0, 99)), data.draw(st.integers(0, 9))
    plain = samples_of_steps(seed, epoch, size, batch_size)
    grouped = samples_of_steps(seed, epoch, size, batch_size, LengthGroups(lengths, together))
    assert plain.reshape(-1).tolist() == epoch_order(seed, epoch, size)[: plain.size].tolist()
    assert sorted(grouped.reshape(-1)) == sorted(plain.reshape(-1))
    assert (numpy.diff(lengths[grouped]) <= 0).all()
    if together == 1:
        assert [set(step) for step in grouped.tolist()] == [set(step) for step in plain.tolist()]


def padded_share(lengths: numpy.ndarray, micro_batch_size: int, groups: LengthGroups | None) -> float:
    rows = lengths[samples_of_steps(0, 0, len(lengths), 8, groups)].reshape(-1, micro_batch_size)
    return 1 - float(rows.sum() / (rows.max(axis=1) * micro_batch_size).sum())


def test_larger_groups_pad_less() -> None:
    lengths = numpy.random.default_rng(0).integers(20, 400, 800)
    shares = [padded_share(lengths, 4, groups) for groups in (None, *(LengthGroups(lengths, k) for k in (1, 4, 16)))]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.1 < 0.3 < shares[0]


GROUPED_LENGTHS = numpy.random.default_rng(1).integers(1, 50, 300)


def steps(
    size: int, batch_size: int, micro_batch_size: int | None, world_size: int, grouped: int = 0
) -> list[set[int]]:
    """Returns the samples of every optimizer step, gathered from all ranks."""
    groups = LengthGroups(GROUPED_LENGTHS, grouped) if grouped else None
    gathered: dict[int, set[int]] = {}
    for rank in range(world_size):
        sampler = OrderedSampler(size, 3, batch_size, micro_batch_size, rank, world_size, groups)
        sampler.set_epoch(2)
        positions = list(sampler)
        assert len(positions) == len(sampler)
        share = batch_size // world_size
        for step in range(sampler.steps_per_epoch):
            gathered.setdefault(step, set()).update(positions[step * share : (step + 1) * share])
    return list(gathered.values())


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_split_of_a_step_trains_on_the_same_samples(data: st.DataObject) -> None:
    world_size = data.draw(st.sampled_from([1, 2, 4]))
    micro = data.draw(st.sampled_from([1, 2, 3]))
    batch_size = world_size * micro * data.draw(st.integers(1, 4))
    size = batch_size * data.draw(st.integers(1, 5)) + data.draw(st.integers(0, batch_size - 1))
    grouped = data.draw(st.sampled_from([0, 1, 3]))
    expected = steps(size, batch_size, None, 1, grouped)
    assert len(expected) == size // batch_size
    assert all(len(step) == batch_size for step in expected)
    assert steps(size, batch_size, micro, world_size, grouped) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((10, 0, 8, None, 0, 3), r"one of \[1, 2, 4, 8\] devices, or a multiple of 3"),
        ((10, 0, 8, 2, 0, 16), r"one of \[1, 2, 4, 8\] devices, or a multiple of 16"),
        ((7, 0, 8), "at most 7"),
        ((7, 0, 0), "at least 1"),
    ],
)
def test_impossible_splits_name_the_possible_ones(arguments: tuple, expected: str) -> None:
    with pytest.raises(BadInputError, match=expected):
        OrderedSampler(*arguments)


@pytest.mark.parametrize(
    ("micro_batch_size", "devices", "taken"),
    [(16, 1, 16), (16, 2, 16), (16, 4, 8), (16, 8, 4), (16, 32, 1), (12, 1, 8), (5, 4, 4), (3, 8, 2), (99, 2, 16)],
)
def test_micro_batches_are_the_largest_even_part_within_the_bound(
    micro_batch_size: int, devices: int, taken: int
) -> None:
    sampler = OrderedSampler(96, 0, 32, micro_batch_size, 0, devices)
    assert sampler.micro_batch_size == taken
    assert sampler.micro_batches_per_step * taken * devices == 32
    assert steps(96, 32, micro_batch_size, devices) == steps(96, 32, None, 1)


@pytest.fixture(params=[0, 2], ids=["drawn", "grouped by length"])
def data(tmp_path: Path, request: pytest.FixtureRequest) -> VisionFlan:
    VisionFlan.write_fake(tmp_path)
    return make_data(tmp_path, group_by_length=request.param)


def make_data(root: Path, micro_batch_size: int = 2, num_workers: int = 0, group_by_length: int = 0) -> VisionFlan:
    module = VisionFlan(
        str(root),
        "plain",
        batch_size=4,
        micro_batch_size=micro_batch_size,
        num_workers=num_workers,
        order_seed=5,
        group_by_length=group_by_length,
    )
    module.connect(small_processor(8))
    return module


def epochs(loader: ResumableLoader, first: int, last: int) -> Iterator[Batch]:
    """Yields batches as Lightning asks for them."""
    for epoch in range(first, last):
        batches = iter(loader)
        loader.sampler.set_epoch(epoch)
        yield from batches


def test_resuming_anywhere_continues_the_same_samples(data: VisionFlan) -> None:
    loader = data.train_dataloader()
    whole = [batch.sample_ids for batch in epochs(loader, 0, 3)]
    assert len(whole) == 3 * len(loader) == 24
    assert whole[:8] != whole[8:16]
    for stop in range(1, 24):
        interrupted = data.train_dataloader()
        batches = epochs(interrupted, 0, 3)
        for _ in range(stop):
            next(batches)
        resumed = data.train_dataloader()
        resumed.load_state_dict(interrupted.state_dict())
        rest = [batch.sample_ids for batch in epochs(resumed, (stop - 1) // 8, 3)]
        assert rest == whole[stop:]


def test_the_state_counts_what_was_handed_over_with_any_number_of_workers(data: VisionFlan) -> None:
    ids = [batch.sample_ids for batch in epochs(data.train_dataloader(), 0, 1)]
    loader = make_data(data.root, num_workers=2, group_by_length=data.group_by_length).train_dataloader()
    batches = epochs(loader, 0, 1)
    assert [next(batches).sample_ids for _ in range(3)] == ids[:3]
    assert loader.state_dict() == {"epoch": 0, "samples": 6}
    batches.close()


def test_a_state_may_be_resumed_with_another_split_of_the_step(data: VisionFlan) -> None:
    loader = data.train_dataloader()
    batches = epochs(loader, 0, 1)
    for _ in range(2):
        next(batches)
    rest = [name for batch in batches for name in batch.sample_ids]
    other = make_data(data.root, micro_batch_size=4, group_by_length=data.group_by_length).train_dataloader()
    other.load_state_dict({"epoch": 0, "samples": 4})
    assert [name for batch in epochs(other, 0, 1) for name in batch.sample_ids] == rest
    with pytest.raises(BadInputError, match="a multiple of 4"):
        other.load_state_dict({"epoch": 0, "samples": 2})


def test_every_batch_knows_the_supervised_tokens_of_its_step(data: VisionFlan) -> None:
    loader = data.train_dataloader()
    batches = list(epochs(loader, 0, 2))
    for step in range(8):
        micro_batches = batches[2 * step : 2 * step + 2]
        counted = sum(int((batch.labels >= 0).sum()) for batch in micro_batches)
        assert data.tokens_of_step(*divmod(step, data.steps_per_epoch())) == counted
        assert [batch.step_supervised_tokens for batch in micro_batches] == [counted, counted]
        pictures = sum(len(batch.pixel_values) for batch in micro_batches)
        assert [batch.step_pictures for batch in micro_batches] == [pictures, pictures]


def test_every_batch_knows_the_pictures_and_answers_of_its_samples(data: VisionFlan) -> None:
    samples = {sample.id: sample for sample in data.read_once()[0]}
    for batch in epochs(data.train_dataloader(), 0, 1):
        of_batch = [samples[name] for name in batch.sample_ids]
        assert batch.picture_counts == [len(sample.images) for sample in of_batch]
        assert batch.answers == [tuple(turn.answer for turn in sample.turns) for sample in of_batch]
        assert all(answer for answers in batch.answers for answer in answers)


def test_loaders_leave_the_global_generator_alone(data: VisionFlan) -> None:
    before = torch.get_rng_state()
    list(epochs(data.train_dataloader(), 0, 1))
    for loader in data.val_dataloader():
        list(loader)
    assert (torch.get_rng_state() == before).all()


class Recorder(LightningModule):
    """Notes the samples of every step; trains one number."""

    def __init__(self) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[str]] = []

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        self.seen.append(batch.sample_ids)
        return self.number.square()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Callback):
    """Saves at the end of one optimizer step, where the real checkpoint callback does too, and stops there."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.step = step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step and batch_idx % 2:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def trainer(folder: Path, max_steps: int, callbacks: list[Callback]) -> Trainer:
    return Trainer(
        callbacks=callbacks,
        default_root_dir=folder,
        max_steps=max_steps,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("stop", range(1, 10))
def test_lightning_saves_and_restores_the_place(data: VisionFlan, tmp_path: Path, stop: int) -> None:
    whole = Recorder()
    trainer(tmp_path, 10, []).fit(whole, datamodule=data)
    first = Recorder()
    trainer(tmp_path, 10, [SaveAt(tmp_path / "last.ckpt", stop)]).fit(
        first, datamodule=make_data(data.root, group_by_length=data.group_by_length)
    )
    second, rest = Recorder(), make_data(data.root, group_by_length=data.group_by_length)
    trainer(tmp_path, 10, []).fit(second, datamodule=rest, ckpt_path=tmp_path / "last.ckpt")
    assert len(whole.seen) == 20
    assert len(first.seen) == 2 * stop
    assert first.seen + second.seen == whole.seen
    assert numpy.isclose(float(whole.number), float(second.number))
