"""What several processes cannot do is refused by each of them, in three lines, before anything is read or loaded."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import deepspeed

from experiments.configuration.cli import parse_experiment
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.system.tensor_hashes import hash_tensors
from tests.bad_inputs.refusal import BAD_INPUT, ENVIRONMENT, assert_refused
from tests.support.ranks import on_ranks, torchrun_variables
from tests.support.small_experiment import small_words

STRATEGIES = "experiments/strategies"
FSDP = ("--config", f"{STRATEGIES}/fsdp.yaml")
ZERO = ("--config", f"{STRATEGIES}/deepspeed_stage_2.yaml")
DDP = ("--trainer.strategy", "ddp")
CASES: dict[str, tuple[int, Sequence[str], Sequence[str], int]] = {
    # Processes, words, what is named, the exit code.
    "a step of 8 by 3": (3, DDP, ("data.batch_size", "3 devices", "one of [1, 2, 4, 8] devices", "multiple of 3"), 2),
    "a step of 8 by 3, shared out": (3, FSDP, ("data.batch_size", "one of [1, 2, 4, 8] devices"), BAD_INPUT),
    "no GPU": (2, (*DDP, "--trainer.accelerator", "gpu"), ("trainer.accelerator", "no gpu is found"), ENVIRONMENT),
    "float16 on a CPU": (2, (*DDP, "--trainer.precision", "16-mixed"), ("trainer.precision", "bf16-mixed"), BAD_INPUT),
    "converted tensors": (2, (*DDP, "--trainer.precision", "bf16-true"), ("trainer.precision",), BAD_INPUT),
    "Lightning's FSDP": (2, ("--trainer.strategy", "fsdp"), ("trainer.strategy", "fsdp.yaml"), BAD_INPUT),
    "Lightning's DeepSpeed": (2, ("--trainer.strategy", "deepspeed"), ("deepspeed_stage_2.yaml",), BAD_INPUT),
    "another number": (4, (*DDP, "--trainer.devices", "2"), ("torchrun started 4", "says 2"), BAD_INPUT),
    "nodes": (2, (*DDP, "--trainer.num_nodes", "2"), ("torchrun started 2", "says 4"), BAD_INPUT),
    "a plan of accelerate's": (2, DDP, ("ACCELERATE_USE_FSDP", "experiments/strategies"), BAD_INPUT),
}
VARIABLES = {"a plan of accelerate's": {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    small_words(folder)
    return folder


def started_by_torchrun(monkeypatch: pytest.MonkeyPatch, number: int, rank: int) -> None:
    for name, value in {**torchrun_variables(number), "RANK": str(rank), "LOCAL_RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("is_last", [False, True], ids=["first rank", "last rank"])
@pytest.mark.parametrize("case", CASES)
def test_every_rank_refuses_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, case: str, is_last: bool
) -> None:
    number, words, named, code = CASES[case]
    started_by_torchrun(monkeypatch, number, number - 1 if is_last else 0)
    for name, value in VARIABLES.get(case, {}).items():
        monkeypatch.setenv(name, value)
    given = ["fit", *small_words(folder), "--trainer.devices", str(number), *words]
    given += ["--trainer.devices", str(number)] if "--trainer.devices" not in words else []
    assert_refused(capfd, given, named, folder, code=code)


@pytest.mark.parametrize("words", [FSDP, ZERO, DDP], ids=["fsdp", "zero", "ddp"])
def test_check_says_what_the_devices_cannot_share(
    capfd: pytest.CaptureFixture[str], folder: Path, words: Sequence[str]
) -> None:
    given = ["check", *small_words(folder), *words, "--trainer.devices", "3"]
    assert_refused(capfd, given, ("data.batch_size", "one of [1, 2, 4, 8] devices"), folder)


def test_a_strategy_whose_package_is_missing_is_named_with_the_way_to_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(deepspeed, "_DEEPSPEED_AVAILABLE", False)
    for rank in (0, 1):
        started_by_torchrun(monkeypatch, 2, rank)
        given = ["fit", *small_words(folder), *ZERO, "--trainer.devices", "2"]
        assert_refused(capfd, given, ("deepspeed", ".[deepspeed]"), folder, code=ENVIRONMENT)


def test_what_accelerate_tells_transformers_changes_no_weight_of_any_rank(folder: Path) -> None:
    """transformers' own loading would leave the weights of all ranks but the first empty."""
    words = small_words(folder)

    def loaded() -> str:
        torch.distributed.init_process_group("gloo")
        backbone = parse_experiment(words).model.backbone
        assert isinstance(backbone, OpenClipLlama)
        backbone.load()
        return hash_tensors(backbone.state_dict())

    told = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true", "ACCELERATE_USE_DEEPSPEED": "true"}
    first, second = on_ranks(2, loaded, environment=told)
    assert first == second == on_ranks(1, loaded)[0]
