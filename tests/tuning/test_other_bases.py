"""Processes that would train, or answer, on different frozen models."""

import os
from types import SimpleNamespace

import pytest
from torch import distributed

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.own_trainer import refuse_other_bases
from tests.support.ranks import on_ranks


class Named:
    """A backbone that is known by its fingerprint alone."""

    is_loaded = False

    def __init__(self, name: str) -> None:
        self.name = name

    def fingerprint(self) -> str:
        return self.name


def refused(names: list[str]) -> str:
    distributed.init_process_group("gloo")
    try:
        refuse_other_bases(Named(names[int(os.environ["RANK"])]))
    except BadInputError as error:
        return error.message()
    return ""


def test_another_frozen_model_on_one_rank_is_refused_on_all() -> None:
    """Weights are not sent: a rank would train on what it has read."""
    said = on_ranks(3, refused, ["v2:a", "v2:a", "v2:b"], timeout=60)
    assert len(set(said)) == 1
    assert "the frozen model of rank 2 is built from other files than that of rank 0" in said[0]
    assert "v2:b there, v2:a on rank 0" in said[0]
    assert on_ranks(2, refused, ["v2:a", "v2:a"], timeout=60) == ["", ""]


@pytest.mark.parametrize("stage", ["fit", "validate", "predict", "test"])
def test_every_use_of_a_trainer_compares_them(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class ComparedError(Exception):
        """Raised in place of the comparison."""

    def compared(_backbone: object) -> None:
        raise ComparedError

    monkeypatch.setattr("lightning_m2pt.tuning.module.refuse_other_bases", compared)
    for name in ("check_trainer", "shares_out_weights", "refuse_double_on_apple"):
        monkeypatch.setattr(f"lightning_m2pt.tuning.module.{name}", lambda *_: False)
    module = TuningModule.__new__(TuningModule)
    monkeypatch.setattr(TuningModule, "check", lambda _: None)
    monkeypatch.setattr(TuningModule, "trainer", SimpleNamespace(strategy=SimpleNamespace(root_device=None)))
    object.__setattr__(module, "_step_terms", SimpleNamespace(regularisers=()))
    object.__setattr__(module, "schedule_settings", SimpleNamespace(prompt_first_steps=0))
    object.__setattr__(module, "backbone", SimpleNamespace(dtype_name="float32"))
    with pytest.raises(ComparedError):
        TuningModule.setup(module, stage)
