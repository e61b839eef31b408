"""An interrupted and resumed run equals an uninterrupted one, bit for bit."""

import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.utils.data import Dataset

from callbacks.step_checkpoint import StepCheckpoint
from lightning_m2pt.errors import BadInputError, DivergedError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.storage.checkpoint import latest_checkpoint, read_checkpoint
from lightning_m2pt.storage.checkpoint_io import VerifiedCheckpointIO
from lightning_m2pt.tuning.boundary_state import RNG_KEY
from lightning_m2pt.tuning.sample_order import OrderedSampler, ResumableLoader

SAMPLES, BATCH_SIZE, WIDTH = 22, 4, 5
STEPS_PER_EPOCH = SAMPLES // BATCH_SIZE
STEPS = 2 * STEPS_PER_EPOCH + 3
INTERVAL = 3


class Rows(Dataset[tuple[str, Tensor]]):
    """Rows that all differ, so that another order gives other numbers."""

    def __init__(self) -> None:
        self.rows = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, position: int) -> tuple[str, Tensor]:
        return f"sample-{position}", self.rows[position]


def collate(rows: list[tuple[str, Tensor]]) -> Batch:
    empty = torch.zeros(len(rows), 1, dtype=torch.int64)
    ids = [name for name, _ in rows]
    return Batch(torch.stack([row for _, row in rows]), empty, empty, empty, ids, ["task"] * len(ids))


def loader(micro_batches: int, workers: int = 0) -> ResumableLoader:
    sampler = OrderedSampler(SAMPLES, 0, BATCH_SIZE, BATCH_SIZE // micro_batches)
    return ResumableLoader(Rows(), sampler, lambda _epoch, _step: 1, collate, num_workers=workers)


class Toy(LightningModule):
    """Small, with dropout, so that it notices a wrong random state."""

    strict_loading = False

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator))
        self.dropout = nn.Dropout(0.5)
        self.seen: list[tuple[int, tuple[str, ...]]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append((self.trainer.global_step, tuple(batch.sample_ids)))
        return self.dropout(batch.pixel_values @ self.weight).square().mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW([self.weight], lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class At(Callback):
    """Does something after an optimizer step, or inside the window that follows it."""

    def __init__(self, step: int, action: Any, inside_window: bool = False) -> None:
        self.step, self.action, self.inside_window = step, action, inside_window

    def on_exception(self, _trainer: Trainer, pl_module: LightningModule, _exception: BaseException) -> None:
        self.seen = pl_module.seen

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if not self.inside_window and trainer.global_step == self.step:
            self.step = -1
            self.action()

    def on_after_backward(self, trainer: Trainer, *_: Any) -> None:
        if self.inside_window and trainer.global_step == self.step:
            self.step = -1
            self.action()


def train(
    folder: Path,
    micro_batches: int = 1,
    steps: int = STEPS,
    epochs: int = -1,
    extra: Callback | None = None,
    workers: int = 0,
) -> Toy:
    torch.manual_seed(3)
    toy = Toy()
    checkpoints = folder / "checkpoints"
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=epochs,
        accumulate_grad_batches=micro_batches,
        callbacks=[StepCheckpoint(checkpoints, INTERVAL), *([extra] if extra else [])],
        plugins=[VerifiedCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(toy, loader(micro_batches, workers), ckpt_path=latest_checkpoint(checkpoints), weights_only=True)
    return toy


def final_state(folder: Path) -> dict[str, Any]:
    newest = latest_checkpoint(folder / "checkpoints")
    assert newest is not None
    return read_checkpoint(newest)


def assert_same(left: Any, right: Any, path: str = "state") -> None:
    assert type(left) is type(right), path
    if isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_same(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{path}.{number}")
    elif isinstance(left, Tensor):
        assert torch.equal(left, right), path
    else:
        assert left == right, path


def raise_(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


@pytest.fixture(scope="module", params=[1, 4], ids=["whole steps", "four micro-batches"])
def uninterrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("uninterrupted")
    toy = train(folder, request.param)
    return request.param, toy.seen, final_state(folder)


@pytest.mark.parametrize("cut", [1, 2, INTERVAL, *range(STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH + 2), 10, 11, STEPS - 1])
def test_stopping_and_resuming_changes_no_bit(uninterrupted: Any, tmp_path: Path, cut: int) -> None:
    micro_batches, seen, state = uninterrupted
    first = train(tmp_path, micro_batches, steps=cut)
    second = train(tmp_path, micro_batches)
    assert first.seen + second.seen == seen
    assert_same(final_state(tmp_path), state)


@pytest.mark.parametrize("limit", [{"steps": STEPS}, {"steps": -1, "epochs": 3}], ids=["steps", "epochs"])
def test_stopping_again_and_again_changes_no_bit(tmp_path: Path, limit: dict[str, int]) -> None:
    whole = train(tmp_path / "whole", **limit)
    seen = []
    for cut in (2, 5, 7, 10, 12):
        with pytest.raises(OSError, match="again"):
            train(tmp_path / "cut", extra=(stop := At(cut, raise_(OSError("again")))), **limit)
        seen += stop.seen
    seen += train(tmp_path / "cut", **limit).seen
    assert seen == whole.seen
    assert_same(final_state(tmp_path / "cut"), final_state(tmp_path / "whole"))


@pytest.mark.parametrize("inside_window", [False, True], ids=["between steps", "inside a step"])
@pytest.mark.parametrize("cut", [1, 4, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 1])
def test_an_exception_loses_nothing_but_the_step_it_was_in(
    uninterrupted: Any, tmp_path: Path, cut: int, inside_window: bool
) -> None:
    micro_batches, seen, state = uninterrupted
    with pytest.raises(OSError, match="loader died"):
        train(tmp_path, micro_batches, extra=At(cut, raise_(OSError("loader died")), inside_window))
    assert final_state(tmp_path)["global_step"] == cut
    resumed = train(tmp_path, micro_batches)
    assert resumed.seen == [entry for entry in seen if entry[0] >= cut]
    assert_same(final_state(tmp_path), state)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)],
    ids=lambda value: str(value),
)
def test_a_signal_finishes_the_step_saves_and_exits(uninterrupted: Any, tmp_path: Path, number: int, code: int) -> None:
    micro_batches, seen, state = uninterrupted
    before = {stop: signal.getsignal(stop) for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, micro_batches, extra=At(4, lambda: signal.raise_signal(number), inside_window=True))
    assert stopped.value.code == code
    assert {stop: signal.getsignal(stop) for stop in before} == before
    assert final_state(tmp_path)["global_step"] == 5
    resumed = train(tmp_path, micro_batches)
    assert resumed.seen == [entry for entry in seen if entry[0] >= 5]
    assert_same(final_state(tmp_path), state)


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, 4, extra=At(4, twice, inside_window=True))
    assert stopped.value.code == 130
    assert final_state(tmp_path)["global_step"] == 4


def test_divergence_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        train(tmp_path, extra=At(4, raise_(DivergedError("the loss is nan"))))
    assert final_state(tmp_path)["global_step"] == INTERVAL


def test_nothing_is_saved_inside_the_first_window(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="early"):
        train(tmp_path, 4, extra=(stop := At(1, raise_(OSError("early")), inside_window=False)))
    assert len(stop.seen) == 4
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step=000001"]
    with pytest.raises(OSError, match="at once"):
        train(tmp_path / "other", 4, extra=At(0, raise_(OSError("at once")), inside_window=True))
    assert not (tmp_path / "other").exists()


class BreakingAdamW(torch.optim.AdamW):
    """Changes the weights of one step and dies before the step is over."""

    breaks_at = 5

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        self.breaks_at -= 1
        if not self.breaks_at:
            raise OSError("out of memory")
        return loss


def test_a_half_made_update_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "AdamW", BreakingAdamW)
    with pytest.raises(OSError, match="out of memory"):
        train(tmp_path)
    assert final_state(tmp_path)["global_step"] == INTERVAL


def test_loader_workers_may_change_on_resume(uninterrupted: Any, tmp_path: Path) -> None:
    micro_batches, seen, state = uninterrupted
    first = train(tmp_path, micro_batches, steps=7, workers=1)
    second = train(tmp_path, micro_batches)
    assert first.seen + second.seen == seen
    assert_same(final_state(tmp_path), state)


def test_a_finished_run_resumed_does_nothing(tmp_path: Path) -> None:
    train(tmp_path, steps=4)
    state = final_state(tmp_path)
    assert train(tmp_path, steps=4).seen == []
    assert_same(final_state(tmp_path), state)


def test_checkpoints_stand_at_the_interval_and_at_the_end(tmp_path: Path) -> None:
    train(tmp_path, steps=2 * INTERVAL + 1)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step=000006", "step=000007"]
    assert len(final_state(tmp_path)[RNG_KEY]) == 1


def test_an_interval_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="every_n_steps"):
        StepCheckpoint(tmp_path, 0)


def test_tensors_are_read_only_when_a_checkpoint_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    strategy = SingleDeviceStrategy
    for name in ("lightning_module_state_dict", "optimizer_state"):
        original = getattr(strategy, name)

        def counting(self: Any, *arguments: Any, original: Any = original) -> Any:
            reads.append(self.lightning_module.trainer.global_step)
            return original(self, *arguments)

        monkeypatch.setattr(strategy, name, counting)
    train(tmp_path, micro_batches=2, steps=10)
    assert sorted(set(reads)) == [INTERVAL, 2 * INTERVAL, 3 * INTERVAL, 10]
    assert len(reads) == 2 * 4


class Drifting(Callback):
    """Keeps a state and a learning rate that move on as soon as the next step begins."""

    begun = 0

    def state_dict(self) -> dict[str, Any]:
        return {"begun": self.begun}

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.begun += 1

    def on_after_backward(self, trainer: Trainer, *_: Any) -> None:
        trainer.optimizers[0].param_groups[0]["lr"] = 0.7
        if self.begun == 6:
            torch.rand(3)
            raise OSError("the sixth step")


def test_what_moves_on_within_a_step_is_saved_as_it_was_before(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="sixth"):
        train(tmp_path, extra=Drifting())
    state = final_state(tmp_path)
    assert state["global_step"] == 5
    assert state["callbacks"]["Drifting"] == {"begun": 5}
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.1 / 6)
    assert state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == 5
