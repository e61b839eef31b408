"""Optimizer, schedule and clipping by value: each step is compared with formulas written out here, in float64."""

import math
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.tuning.optimizer import AdamW, Schedule
from tests.support.small_experiment import small_words
from tests.support.small_training import Gradients, adamw_by_hand


def factor(name: str, step: int, warmup: int, total: int) -> float:
    """Returns what a rate is multiplied by in a step, counted from 0."""
    if step < warmup:
        return step / warmup
    if name == "constant_with_warmup" or total == warmup:
        return 1.0
    done = (step - warmup) / (total - warmup)
    return 1 - done if name == "linear" else (1 + math.cos(math.pi * done)) / 2


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(
    "constants",
    [
        {"betas": (0.9, 0.999), "epsilon": 1e-8, "weight_decay": 0.0},
        {"betas": (0.5, 0.8), "epsilon": 0.3, "weight_decay": 0.4},
        {"betas": (0.8, 0.5), "epsilon": 1e-8, "weight_decay": 0.0},
        {"betas": (0.0, 0.9), "epsilon": 1.0, "weight_decay": 3.0},
    ],
    ids=str,
)
def test_each_part_takes_adamws_steps_at_its_own_rate(constants, steps):
    generator = torch.Generator().manual_seed(3)

    def numbers() -> Tensor:
        return torch.randn(4, dtype=torch.float64, generator=generator)

    starts = {"one": [numbers(), numbers()], "two": [numbers()]}
    rates = {"two": 0.02, "one": 0.1, "not trained": 9.0}
    parts = {part: [(str(n), nn.Parameter(each.clone())) for n, each in enumerate(of)] for part, of in starts.items()}
    optimizer = AdamW(learning_rate=rates, **constants).build(parts)
    gradients = {part: [[numbers() for _ in range(steps)] for _ in of] for part, of in starts.items()}
    for step in range(steps):
        for part, tensors in parts.items():
            for place, (_, parameter) in enumerate(tensors):
                parameter.grad = gradients[part][place][step].clone()
        optimizer.step()
    for part, tensors in parts.items():
        for place, (_, parameter) in enumerate(tensors):
            expected = adamw_by_hand(starts[part][place], gradients[part][place], [rates[part]] * steps, **constants)
            assert torch.allclose(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


def test_what_is_not_set_is_as_published():
    optimizer = AdamW().build({"one": [("a", nn.Parameter(torch.zeros(1)))]})
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (7e-4, (0.9, 0.999), 1e-8, 0.0)
    assert (Schedule().name, Schedule().warmup_ratio) == ("cosine", 0.03)


@pytest.mark.parametrize("name", ["cosine", "linear", "constant_with_warmup"])
@pytest.mark.parametrize(
    ("ratio", "total", "warmup"),
    [(0.0, 8, 0), (0.03, 300, 9), (0.03, 10, 1), (0.15, 10, 2), (0.25, 9, 3), (0.5, 8, 4), (1.0, 6, 6)],
)
def test_every_steps_rate_is_the_formulas(name, ratio, total, warmup):
    """A part of a step of warm-up is a whole one."""
    parts = {part: [(part, nn.Parameter(torch.zeros(1)))] for part in ("one", "two")}
    optimizer = AdamW(learning_rate={"one": 2.0, "two": 0.5}).build(parts)
    schedule = Schedule(name, ratio).build(optimizer, total)
    for step in range(total):
        expected = factor(name, step, warmup, total)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2 * expected, expected / 2])
        optimizer.step()
        schedule.step()


STEPS = 5
RATES = {"visual_prompts": 0.03, "textual_prompts": 0.004, "interaction": 5e-3}


@pytest.mark.parametrize(
    ("schedule", "warmup", "algorithm", "limit", "constants"),
    [
        ("cosine", 2, "norm", 0.02, {"betas": (0.7, 0.9), "epsilon": 1e-3, "weight_decay": 0.2}),
        ("linear", 1, "value", 0.004, {"betas": (0.5, 0.99), "epsilon": 1e-2, "weight_decay": 0.0}),
    ],
)
def test_a_fit_takes_these_steps_and_no_others(tmp_path, schedule, warmup, algorithm, limit, constants):
    """From the command's words to the adapter: rates by part, warm-up over steps and not micro-batches, clipping."""
    words = [*small_words(tmp_path, batch_size=4, steps=STEPS), "--data.micro_batch_size", "2"]
    words += ["--model.method.visual_length", "3", "--model.method.textual_length", "2"]
    words += ["--trainer.gradient_clip_val", str(limit), "--trainer.gradient_clip_algorithm", algorithm]
    words += ["--model.schedule.name", schedule, "--model.schedule.warmup_ratio", str((warmup - 0.5) / STEPS)]
    words += [f"--model.optimizer.learning_rate={RATES}".replace("'", '"')]
    words += ["--model.optimizer.betas", str(list(constants["betas"]))]
    words += ["--model.optimizer.epsilon", str(constants["epsilon"])]
    words += ["--model.optimizer.weight_decay", str(constants["weight_decay"])]
    experiment, gradients = parse_experiment(words), Gradients()
    experiment.trainer_config["callbacks"] = [gradients]
    run = fit(experiment, folder=tmp_path / "run")
    trained = load_file(run / "adapter" / "adapter_model.safetensors")

    clipped: list[dict[str, Tensor]] = []
    for step in gradients.steps:
        norm = math.sqrt(sum(float(each.square().sum()) for each in step.values()))
        assert norm > limit
        assert max(float(each.abs().max()) for each in step.values()) > limit or algorithm == "norm"
        scaled = {name: each * limit / norm for name, each in step.items()}
        cut = {name: each.clamp(-limit, limit) for name, each in step.items()}
        clipped.append(scaled if algorithm == "norm" else cut)
    assert len(clipped) == STEPS
    for name, start in gradients.start.items():
        rate = RATES[name.split(".")[1]]
        rates = [rate * factor(schedule, step, warmup, STEPS) for step in range(STEPS)]
        expected = adamw_by_hand(start, [step[name] for step in clipped], rates, **constants)
        moved = (expected - start).abs().max()
        found = trained[name.removeprefix("method.")].double()
        rounding = STEPS * 1.2e-7 * float(start.abs().max())  # of float32, in which the tensors are
        assert float((found - expected).abs().max()) < 1e-4 * float(moved) + rounding, name


def test_a_schedule_imports_nothing_that_fetches_code(tmp_path):
    """transformers' schedules import peft, which imports bitsandbytes, whose kernels come from the hub."""
    (tmp_path / "bitsandbytes.py").write_text("raise SystemExit('bitsandbytes was imported')\n")
    program = """
import torch
from lightning_m2pt.tuning.optimizer import Schedule
Schedule().build(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1), 10)
"""
    paths = os.pathsep.join([str(tmp_path), os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (child.returncode, child.stderr) == (0, "")
