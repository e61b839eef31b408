"""Which commands a sweep's transfers are, by value, from the runs that are there."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.prompt_transfer.planned import SEVERAL_BASES, SEVERAL_SEEDS, carried_prompts, trained_runs
from experiments.sweep.file import read_sweep
from experiments.sweep.jobs import Job, SweepSettings
from experiments.sweep.record import State

ROOT = Path(__file__).parents[2]
PARTS, BACKBONES = f"{ROOT}/experiments/parts", f"{ROOT}/experiments/backbones"
TEXT = f"""
seeds: [0, 1]
transfer:
  answer: likelihood_sum
  bases: {{A: {BACKBONES}/testbed.yaml, B: {BACKBONES}/testbed_patch12.yaml}}
  sets: {{cifar10: {PARTS}/prompting_cifar10.yaml, mnist: {PARTS}/prompting_mnist.yaml}}
  random_like: one
  rows:
    - label: one
      config: evp_base
      arguments: {{trainer.max_steps: 6, model.method.clip: unit, model.gradient_norm.grey_levels: 0.5}}
    - {{label: two, config: evp_base, sets: [mnist], seeds: [5]}}
  means: [{{row: one, set: cifar10}}]
"""
RUNS = {("one cifar10 A", 0): Path("a0"), ("one cifar10 A", 1): Path("a1"), ("one cifar10 B", 0): Path("b0")}


@pytest.fixture(autouse=True)
def from_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_every_prompt_is_used_on_every_base_with_the_words_of_its_row_and_its_set(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TEXT)
    setting = SweepSettings(output_root=Path("out"), opened=("own_package",))
    found = carried_prompts(read_sweep(tmp_path / "mine.yaml"), setting, RUNS)
    seeds, bases = f"one, {SEVERAL_SEEDS}", f"one, {SEVERAL_BASES}"
    planned = [(each.row, each.set, each.source, each.target, each.seed) for each in found]
    both = [("A", "A"), ("A", "B"), ("B", "A"), ("B", "B")]
    assert planned == [
        *(("one", name, *pair, seed) for seed in (0, 1) for name in ("cifar10", "mnist") for pair in both),
        *(("two", "mnist", *pair, 5) for pair in both),
        *((seeds, "cifar10", *pair, None) for pair in both),
        *((bases, "cifar10", "A+B", target, seed) for seed in (0, 1) for target in ("A", "B")),
    ]
    prompts = {
        what: [word for before, word in pairwise(each.job.commands[0]) if before == "--prompt"]
        for what, each in zip(planned, found, strict=True)
        if each.job is not None
    }
    assert prompts == {
        **{("one", "cifar10", "A", target, seed): [f"a{seed}"] for target in "AB" for seed in (0, 1)},
        **{("one", "cifar10", "B", target, 0): ["b0"] for target in "AB"},
        **{(seeds, "cifar10", "A", target, None): ["a0", "a1"] for target in "AB"},
        **{(bases, "cifar10", "A+B", target, 0): ["a0", "b0"] for target in "AB"},
    }
    words = {what: each.job.commands[0] for what, each in zip(planned, found, strict=True) if each.job is not None}
    one = words["one", "cifar10", "A", "B", 1]
    assert one[:3] == ("transfer", "--prompt", "a1")
    assert [Path(word).stem for word in one[3:9]] == [
        *("--to", "evp_base"),
        *("--config", "prompting_cifar10"),
        *("--config", "testbed_patch12"),
    ]
    assert one[9:-2] == (
        *("--trainer.max_steps=6", "--allow-import=own_package"),
        *("--answer", "likelihood_sum"),
        *("--random", "1"),
        "--output_root=out",
    )
    assert one[-2] == "--output"
    assert Path(one[-1]).parent == Path("out/transfers/mine")
    assert len({each[-1] for each in words.values()}) == len(words)
    assert not any("--random" in words[what] for what in words if what[0] != "one")


def test_a_prompt_is_there_when_its_training_is_complete() -> None:
    jobs = [Job("one cifar10 A", f"seed {seed}", "", (), (), Path()) for seed in range(4)]
    states = [State.DONE, State.RUNNING, State.FAILED, State.DONE]
    record: Any = SimpleNamespace(
        read=lambda job: None if job is jobs[3] else SimpleNamespace(run=f"run-{job.name[-1]}"),
        state=lambda job: states[jobs.index(job)],
    )
    assert trained_runs(jobs, record) == {("one cifar10 A", 0): Path("run-0")}
