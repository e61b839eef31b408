"""What each of several devices takes: by strategy, by value, and against what two processes took."""

import sys
from pathlib import Path

import pytest
import torch

from experiments.configuration.cli import parse_experiment
from experiments.runs import memory
from experiments.runs.memory import decide_recomputation, plan_of, upper_bound
from lightning_m2pt.main import main
from lightning_m2pt.parallel.costs import Devices
from lightning_m2pt.tuning.memory_estimate import container_memory, device_memory
from lightning_m2pt.tuning.module import build_on_meta
from lightning_m2pt.tuning.module_memory import ALONE, Plan, estimate_of
from tests.support.small_experiment import small_words

FSDP = "experiments/strategies/fsdp.yaml"


@pytest.mark.parametrize(
    ("strategy", "engine", "sharing"),
    [
        ("auto", "ddp", 1),
        ("ddp", "ddp", 1),
        ({"class_path": "lightning.pytorch.strategies.DDPStrategy"}, "ddp", 1),
        ({"class_path": "lightning_m2pt.parallel.fully_sharded.FullyShardedStrategy"}, "fsdp2", 4),
        ({"class_path": "lightning_m2pt.parallel.zero.ZeroStrategy", "init_args": {"stage": 2}}, "zero2", 1),
        ({"class_path": "lightning_m2pt.parallel.zero.ZeroStrategy", "init_args": {"stage": 3}}, "zero3", 4),
    ],
)
def test_settings_say_what_is_shared(strategy: object, engine: str, sharing: int) -> None:
    plan = plan_of({"strategy": strategy}, 4)
    assert (plan.devices.engine, plan.devices.number, plan.devices.sharing, plan.reshards) == (engine, 4, sharing, True)


def test_settings_say_whether_layers_are_given_up_in_between() -> None:
    name = "lightning_m2pt.parallel.fully_sharded.FullyShardedStrategy"
    for kept in (True, False):
        plan = plan_of({"strategy": {"class_path": name, "init_args": {"reshard_after_forward": kept}}}, 4)
        assert plan == Plan(Devices("fsdp2", 4, 4), reshards=kept)


def test_what_is_shared_out_is_a_part_of_the_whole(tmp_path: Path) -> None:
    experiment = parse_experiment(small_words(tmp_path))
    model, size = experiment.model, upper_bound(experiment.data)
    build_on_meta(model)
    alone = estimate_of(model, size)
    units = [sum(each.numel() for each in unit.parameters()) * 4 for unit in model.backbone.sharding_units()]
    for number in (2, 4):
        shared = estimate_of(model, size, Plan(Devices("fsdp2", number, number)))
        assert shared.weights == alone.weights - sum(units) + -(-sum(units) // number)
        assert shared.gathered == sum(sorted(units)[-2:]) + max(units)
        assert shared.trained == alone.trained
        assert shared.total(recomputes=False) - alone.total(recomputes=False) == (
            shared.weights + shared.gathered - alone.weights
        )
    kept = estimate_of(model, size, Plan(Devices("fsdp2", 4, 4), reshards=False))
    assert kept.gathered == sum(units) + max(units)
    pieces = estimate_of(model, size, Plan(Devices("zero2", 4)))
    numbers = alone.trained // 16
    assert (pieces.weights, pieces.gathered, pieces.trained) == (alone.weights, 0, 8 * numbers + 3 * numbers)
    assert estimate_of(model, size, Plan(Devices("ddp", 4))) == alone == estimate_of(model, size, ALONE)


def test_a_device_takes_its_part_of_a_step(tmp_path: Path) -> None:
    data = parse_experiment([*small_words(tmp_path), "--data.batch_size", "12"]).data
    assert [upper_bound(data, number).samples for number in (1, 2, 5, 12)] == [12, 6, 3, 1]
    data.micro_batch_size = 4
    assert [upper_bound(data, number).samples for number in (1, 2, 5, 12)] == [4, 3, 3, 1]


def test_the_command_says_what_each_device_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = small_words(tmp_path)
    assert main(["params", *words, "--config", FSDP, "--trainer.devices", "2", "--trainer.num_nodes", "2"]) == 0
    said = capsys.readouterr().out
    assert "on each of 4 devices, FSDP2 (weights " in said
    assert ", gathered " in said
    assert main(["params", *words]) == 0
    said = capsys.readouterr().out
    assert "at most a device (weights " in said
    assert "gathered" not in said


def test_processes_of_one_machine_decide_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, quarter = (device_memory(torch.device("cpu"), processes) for processes in (2, 8))
    assert whole // 4 == quarter
    (tmp_path / "memory.max").write_text("max\n")
    assert container_memory(tmp_path / "memory.max") == sys.maxsize
    asked: list[int] = []
    monkeypatch.setattr(memory, "device_memory", lambda _device, processes: asked.append(processes) or 10**12)
    experiment = parse_experiment(small_words(tmp_path))
    decide_recomputation(experiment, torch.device("cpu"), upper_bound(experiment.data), ALONE, 3)
    assert asked == [3]
