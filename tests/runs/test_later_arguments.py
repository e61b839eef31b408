"""Arguments of a method that came later than runs and adapters there are: at their defaults as if not there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.commands.evaluate import evaluation_folder
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import deciding, refuse_other_settings
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import check_adapter, save_adapter
from lightning_m2pt.storage.run_record import DECIDING, update_run_record
from lightning_m2pt.testing.random_backbone import random_backbone
from tests.support.small_experiment import small_words

FINGERPRINT = "v2:" + "0" * 64
COMBINED = json.dumps(
    [
        {"class_path": "lightning_m2pt.methods.lora.Lora", "init_args": {"interaction": False}},
        {"class_path": "lightning_m2pt.methods.m2pt.M2PT", "init_args": {"visual_length": 2, "textual_length": 0}},
    ]
)
TOGETHER = [
    "--model.method",
    "lightning_m2pt.methods.combined.Combined",
    "--model.method.methods",
    COMBINED,
    "--model.optimizer.learning_rate=1e-3",
]


class MadeOfM2PT(M2PT):
    """Somebody's own class has the later arguments of the class it is made of."""


def arguments_of(component: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of M2PT, alone or inside ``Combined``."""
    arguments: dict[str, Any] = component["init_args"]
    return arguments["methods"][1]["init_args"] if "methods" in arguments else arguments


@pytest.fixture(autouse=True)
def dropout_came_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(M2PT, "later_arguments", {"dropout": 0.0})


@pytest.mark.parametrize("together", [False, True])
def test_a_name_a_record_and_an_evaluation_are_as_if_it_were_not_there(tmp_path: Path, together: bool) -> None:
    words = [*small_words(tmp_path), *(TOGETHER if together else [])]
    own = parse_experiment(words)
    former = json.loads(json.dumps(deciding(own)))
    assert "dropout" not in arguments_of(former["method"])
    assert "init_std" in arguments_of(former["method"])
    recorded = json.loads(json.dumps(own.config))
    assert arguments_of(recorded["model"]["method"]).pop("dropout") == 0.0
    (tmp_path / "config.yaml").write_text(json.dumps(recorded))
    update_run_record(tmp_path, DECIDING, former)
    refuse_other_settings(tmp_path, own)
    assert evaluation_folder(tmp_path, own, frozenset(), "greedy", 0) == tmp_path
    arguments_of(own.config["model"]["method"])["dropout"] = 0.25
    assert arguments_of(deciding(own)["method"])["dropout"] == 0.25
    with pytest.raises(BadInputError, match=r"was null in this run and is 0\.25 now|was \[.*now"):
        refuse_other_settings(tmp_path, own)
    assert evaluation_folder(tmp_path, own, frozenset(), "greedy", 0).parent == tmp_path / "evaluations"


def test_a_class_made_of_a_method_has_its_later_arguments(tmp_path: Path) -> None:
    own = parse_experiment(small_words(tmp_path))
    own.config["model"]["method"]["class_path"] = f"{__name__}.MadeOfM2PT"
    assert "dropout" not in arguments_of(deciding(own)["method"])
    own.config["model"]["method"]["class_path"] = f"{__name__}.Nothing"
    assert "dropout" in arguments_of(deciding(own)["method"])


def test_an_adapter_of_before_loads_and_another_value_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    method = M2PT(0, 2)
    method.build(random_backbone(tmp_path), torch.Generator())
    save_adapter(tmp_path / "adapter", method, AdapterBase("a base", FINGERPRINT), "")
    check_adapter(tmp_path / "adapter", M2PT(0, 2), FINGERPRINT)
    written = M2PT.adapter_config
    monkeypatch.setattr(M2PT, "adapter_config", lambda self: {**written(self), "dropout": 0.5})
    with pytest.raises(BadInputError, match=r"dropout is 0\.0 in the adapter and 0\.5 in the configuration"):
        check_adapter(tmp_path / "adapter", M2PT(0, 2), FINGERPRINT)
    save_adapter(tmp_path / "later", method, AdapterBase("a base", FINGERPRINT), "")
    monkeypatch.undo()
    monkeypatch.setattr(M2PT, "later_arguments", {"dropout": 0.0})
    with pytest.raises(BadInputError, match=r"dropout is 0\.5 in the adapter and 0\.0 in the configuration"):
        check_adapter(tmp_path / "later", M2PT(0, 2), FINGERPRINT)
