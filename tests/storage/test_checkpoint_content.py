"""A checkpoint with right checksums and wrong content is refused before training goes on from it."""

import copy
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.storage.adapter_folder import declared_tensors
from lightning_m2pt.storage.checkpoint import latest_checkpoint, read_checkpoint, write_checkpoint
from lightning_m2pt.storage.checkpoint_content import check_content
from lightning_m2pt.tuning.rng import restore_rng, rng_state
from tests.methods.test_methods_resume import attached_module, train
from tests.tuning.test_training import StopAtStep

METHOD = "m2pt"
Spoil = Callable[[dict[str, Any]], object]


def first(state: dict[str, Any]) -> str:
    return next(iter(state["state_dict"]))


def put_tensor(change: Callable[[torch.Tensor], object]) -> Spoil:
    return lambda state: state["state_dict"].update({first(state): change(state["state_dict"][first(state)])})


def put_moment(change: Callable[[torch.Tensor], object]) -> Spoil:
    def spoil(state: dict[str, Any]) -> None:
        kept = state["optimizer_states"][0]["state"][0]
        kept["exp_avg"] = change(kept["exp_avg"])

    return spoil


SPOILED: list[tuple[Spoil, str]] = [
    (put_tensor(lambda tensor: tensor[:, :1]), "tensor .* is .* of float32"),
    (put_tensor(lambda tensor: tensor.double()), "of float64"),
    (put_tensor(lambda tensor: tensor.half()), "of float16"),
    (put_tensor(lambda tensor: tensor * float("nan")), "not finite"),
    (put_tensor(lambda tensor: tensor.tolist()), "is a list"),
    (lambda state: state["state_dict"].pop(first(state)), "is missing"),
    (lambda state: state["state_dict"].update(a=torch.zeros(1)), "tensor a is not trained here"),
    (put_moment(lambda tensor: tensor.flatten()), "the optimizer keeps"),
    (put_moment(lambda tensor: tensor.double()), "the optimizer's exp_avg of tensor 0 is .* of float64"),
    (put_moment(lambda tensor: tensor / 0), "not finite"),
    (lambda state: state.update(optimizer_states=[3]), "an optimizer's state is of another form"),
    (lambda state: state["optimizer_states"][0]["state"].update({0: 1}), "the optimizer keeps a int"),
    (lambda state: state.update(global_step="3"), "global_step is '3'"),
    (lambda state: state.update(global_step=-3), "global_step is -3"),
    (lambda state: state.update(global_step=0), "global_step is 0"),
    (lambda state: state["loops"]["fit_loop"].pop("epoch_loop.state_dict"), "epoch_loop.state_dict is no table"),
    (lambda state: state.update(epoch=True), "epoch is True"),
    (lambda state: state.pop("loops"), "loops is None"),
    (lambda state: state.update(lr_schedulers={}), "lr_schedulers is {}"),
    (lambda state: state["loops"].update(fit_loop=[]), "loops: fit_loop.epoch_loop.batch_progress"),
    (lambda state: state["loops"]["fit_loop"]["epoch_progress"].update(current={}), "epoch_progress: current is {}"),
]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(SystemExit):
        train(folder, METHOD, StopAtStep(3, signal.SIGTERM))
    return folder


def test_every_spoiled_checkpoint_is_refused(stopped: Path) -> None:
    state = read_checkpoint(latest_checkpoint(stopped / "checkpoints"))
    trained = trained_parameters(attached_module(stopped, METHOD))
    check_content(state, trained)
    for spoil, expected in SPOILED:
        spoiled = copy.deepcopy(state)
        spoil(spoiled)
        with pytest.raises(BadInputError, match=expected) as caught:
            check_content(spoiled, trained)
        assert len(caught.value.message().split("\n")) == 3


def test_training_goes_on_from_no_spoiled_checkpoint(stopped: Path) -> None:
    """Through the Trainer: resealed, so that every checksum is right."""
    folder = latest_checkpoint(stopped / "checkpoints")
    state = read_checkpoint(folder)
    without_generators: tuple[Spoil, str] = (lambda state: state.pop("rng_of_each_rank"), "rng_of_each_rank is None")
    for spoil, expected in (SPOILED[0], SPOILED[2], SPOILED[7], SPOILED[-1], without_generators):
        spoiled = copy.deepcopy(state)
        spoil(spoiled)
        write_checkpoint(folder.parent, 3, spoiled)
        with pytest.raises(BadInputError, match=expected):
            train(stopped, METHOD)
    write_checkpoint(folder.parent, 3, state)
    assert declared_tensors(train(stopped, METHOD).method)


@pytest.mark.parametrize("state", [{}, {"python": 3}, {"numpy": {}}, {"numpy": 5}, {"torch": "zz"}, {"torch": "00"}])
def test_states_of_generators_of_another_form_are_refused(state: dict[str, Any]) -> None:
    own = rng_state()
    with pytest.raises(BadInputError, match="the random generators' states are of another form") as caught:
        restore_rng(own | state if state else state)
    assert len(caught.value.message().split("\n")) == 3
    restore_rng(own)
