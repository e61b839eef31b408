"""A Trainer that somebody made for themselves tunes as ``m2pt fit`` does, or says what it would do otherwise."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, callbacks, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.tuner import Tuner
from torch import Tensor

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.adapter_folder import declared_tensors
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.own_trainer import refuse_double_on_apple, refuse_part_of_a_step
from tests.support.python_objects import QUIET, small_data, small_module
from tests.support.small_experiment import fitted, small_words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own_trainer")


def tuned(model: TuningModule) -> dict[str, Tensor]:
    """Returns the trained tensors."""
    return declared_tensors(model.method)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Tells whether two sets of tensors are equal to the last bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def by_trainer(folder: Path, trainer: Trainer, seed: int = 0, resume: Path | None = None, **data: Any) -> TuningModule:
    """Seeds and tunes as any Lightning script does."""
    seed_everything(seed, verbose=False)
    model = small_module()
    trainer.fit(model, small_data(folder, **data), ckpt_path=resume)
    return model


@pytest.mark.parametrize("micro_batch_size", [None, 4])
def test_the_adapter_is_that_of_the_command(folder: Path, micro_batch_size: int | None) -> None:
    """With the Trainer's defaults: its checkpoint, its validation before the first step, its logger."""
    words = ["--data.validation_fraction", "0.5", "--data.micro_batch_size", str(micro_batch_size or "null")]
    experiment, _ = fitted([*small_words(folder, steps=3), *words], folder / f"of {micro_batch_size}")
    data = {"validation_fraction": 0.5, "micro_batch_size": micro_batch_size}
    model = by_trainer(folder, Trainer(**QUIET, default_root_dir=folder / "default"), **data)
    assert model.trainer.callback_metrics["val/loss"] > 0
    assert same(tuned(model), tuned(experiment.model))


def test_the_seed_is_that_of_the_run_each_time(folder: Path) -> None:
    """Also with the same data object: the order follows each run's seed, and one run leaves nothing to the next."""
    data, runs = small_data(folder), []
    for seed in (3, 4, 3):
        seed_everything(seed, verbose=False)
        model = small_module()
        Trainer(**{**QUIET, "max_steps": 2}, enable_checkpointing=False).fit(model, data)
        assert data.seed() == seed
        runs.append(tuned(model))
    assert same(runs[0], runs[2])
    assert not same(runs[0], runs[1])


def test_what_an_interruption_left_is_in_no_later_number(folder: Path) -> None:
    data = {"validation_fraction": 0.5, "batch_size": 4, "micro_batch_size": 2}
    settings = {**QUIET, "max_steps": 1, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    model = by_trainer(folder, Trainer(**settings), **data)
    measured = Trainer(**settings).validate(model, small_data(folder, **data), verbose=False)

    class Interrupt(Callback):
        def on_validation_batch_end(self, *_: Any) -> None:
            raise ValueError("interrupted")

    with pytest.raises(ValueError, match="interrupted"):
        Trainer(**settings, callbacks=[Interrupt()]).validate(model, small_data(folder, **data))
    assert Trainer(**settings).validate(model, small_data(folder, **data), verbose=False) == measured
    model._step_loss = 7.0  # as after an error between two micro-batches
    trainer = Trainer(**settings)
    trainer.fit(model, small_data(folder, **data))
    logged = float(trainer.callback_metrics["train/loss"])
    model = by_trainer(folder, Trainer(**settings), **data)
    trainer = Trainer(**settings)
    trainer.fit(model, small_data(folder, **data))
    assert logged == float(trainer.callback_metrics["train/loss"])


def resumed(folder: Path, name: str, **changed: Any) -> TuningModule:
    """Goes on from one of the checkpoints of ``whole``."""
    trainer = Trainer(**{**QUIET, "max_steps": 4}, enable_checkpointing=False)
    return by_trainer(folder, trainer, resume=folder / name, **changed)


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Tensor]:
    """A run of four steps, two an epoch, that saves after every step and at the end of every epoch."""
    kept = [
        ModelCheckpoint(folder / "steps", "{step}", every_n_train_steps=1, save_top_k=-1),
        ModelCheckpoint(folder / "epochs", "{epoch}", every_n_epochs=1, save_top_k=-1),
    ]
    return tuned(by_trainer(folder, Trainer(**{**QUIET, "max_steps": 4}, callbacks=kept)))


def test_a_run_that_is_resumed_ends_where_it_would_have(folder: Path, whole: dict[str, Tensor]) -> None:
    """From inside an epoch and from its end, without a pickle; in other micro-batches to rounding."""
    assert not [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".ckpt", ".pt")]
    assert len(list(folder.glob("*/*/state.json"))) == 4 + 2
    for name in ("steps/step=1.ckpt", "epochs/epoch=0.ckpt"):
        assert same(tuned(resumed(folder, name)), whole), name
    split = resumed(folder, "steps/step=3.ckpt", micro_batch_size=4)
    assert split.trainer.global_step == 4
    assert all(torch.allclose(tensor, whole[name], atol=1e-2) for name, tensor in tuned(split).items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["steps/step=2.ckpt", "steps/step=3.ckpt", "steps/step=4.ckpt", "epochs/epoch=1.ckpt"])
def test_every_checkpoint_goes_on(folder: Path, whole: dict[str, Tensor], name: str) -> None:
    assert same(tuned(resumed(folder, name)), whole)


def test_a_resume_in_another_order_is_refused(folder: Path, whole: dict[str, Tensor]) -> None:
    changes = (({"seed": 1}, "order_seed was 0"), ({"batch_size": 4}, "batch_size was 8"))
    for change, said in (*changes, ({"group_by_length": 2}, "group_by_length was 0")):
        with pytest.raises(BadInputError, match=said):
            by_trainer(
                folder, Trainer(**QUIET, enable_checkpointing=False), resume=folder / "steps/step=1.ckpt", **change
            )
    pickle = folder / "foreign.ckpt"
    torch.save({"global_step": 1}, pickle)
    with pytest.raises(BadInputError, match="could only be unpickled"):
        by_trainer(folder, Trainer(**QUIET, enable_checkpointing=False), resume=pickle)


class KeepsAnything(Callback):
    """Keeps in checkpoints what none can hold."""

    def state_dict(self) -> dict[str, object]:
        return {"seen": {1, 2}}


@pytest.mark.parametrize(
    ("settings", "data", "said"),
    [
        ({"accumulate_grad_batches": 4}, {}, "adds up 4 batches, a step of this data has 1"),
        ({"limit_train_batches": 3}, {"micro_batch_size": 4}, "ends inside a step of 2"),
        ({"fast_dev_run": True}, {"micro_batch_size": 4}, "ends inside a step of 2"),
        ({"overfit_batches": 1}, {}, "every epoch would have other samples"),
        ({"precision": "64-true"}, {}, "would convert the trained tensors"),
        ({"precision": "bf16-true"}, {}, "would convert the trained tensors"),
        ({"reload_dataloaders_every_n_epochs": 1}, {}, "forget where the epoch is"),
        ({"max_steps": -1, "max_epochs": -1}, {}, "nothing says when the run ends"),
        ({"plugins": [AsyncCheckpointIO()]}, {}, "AsyncCheckpointIO writes pickles"),
        ({"callbacks": [callbacks.GradientAccumulationScheduler({0: 1})]}, {}, "would add up whole optimizer steps"),
        ({"callbacks": [callbacks.StochasticWeightAveraging(1e-2)]}, {}, "its average is of the whole model"),
        ({"callbacks": [callbacks.LearningRateFinder()]}, {}, "LearningRateFinder: it trains before the run"),
        ({"callbacks": [callbacks.BatchSizeFinder()]}, {}, "BatchSizeFinder: it changes the samples"),
        ({"callbacks": [KeepsAnything()]}, {}, "a checkpoint cannot hold builtins.set"),
    ],
)
def test_what_would_be_another_number_is_refused(
    folder: Path, tmp_path: Path, settings: dict[str, Any], data: dict[str, Any], said: str
) -> None:
    trainer = Trainer(**{**QUIET, "max_steps": 1, **settings}, default_root_dir=tmp_path)
    with pytest.raises(BadInputError, match=said) as caught:
        by_trainer(folder, trainer, **data)
    assert len(caught.value.message().splitlines()) <= 3


@pytest.mark.parametrize("finder", ["lr_find", "scale_batch_size"])
def test_lightnings_finders_are_refused_by_name(folder: Path, tmp_path: Path, finder: str) -> None:
    tuner = Tuner(Trainer(**QUIET, default_root_dir=tmp_path))
    with pytest.raises(BadInputError, match="Finder: it"):
        getattr(tuner, finder)(small_module(), datamodule=small_data(folder))


def test_apples_gpus_have_no_float64() -> None:
    for device, dtype in (("mps", "float32"), ("mps", "bfloat16"), ("cpu", "float64"), ("cuda", "float64")):
        refuse_double_on_apple(torch.device(device), dtype)
    with pytest.raises(BadInputError, match="Apple's GPUs have no float64"):
        refuse_double_on_apple(torch.device("mps"), "float64")


def test_a_module_is_not_made_from_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="which Lightning would unpickle"):
        TuningModule.load_from_checkpoint(tmp_path / "last.ckpt", map_location="cpu")


@pytest.mark.parametrize(
    ("batches", "of_a_step", "refusal"),
    [
        (6, 3, None),
        (7, 1, None),
        (float("inf"), 1, None),
        (7, 3, "an epoch of 7 batches ends inside a step of 3"),
        (float("inf"), 3, "an epoch of unknown length may end inside a step of 3"),
    ],
)
def test_an_epoch_ends_with_a_whole_step_or_is_refused(batches: float, of_a_step: int, refusal: str | None) -> None:
    trainer: Any = SimpleNamespace(num_training_batches=batches, accumulate_grad_batches=of_a_step)
    with nullcontext() if refusal is None else pytest.raises(BadInputError, match=refusal):
        refuse_part_of_a_step(trainer)
