"""What the GPU script makes of seconds: rates by value, from clocks that a test sets."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.answering import shared_prefix
from benchmarks.report.gpu_tables import gpu_lines
from benchmarks.training import gpu_peers, timing, trainer_steps
from benchmarks.training.inputs import random_backbone
from benchmarks.training.lengths import ideal_flops, mixed_lengths
from benchmarks.training.sizes import GATE
from benchmarks.training.trainer_steps import Cell, CellClock
from tests.support.ranks import on_ranks

TINY = gpu.setting_of("tiny", "cpu")


def clock_of(*seconds: float) -> SimpleNamespace:
    """Returns what stands for the module ``time`` in calls that begin and end a piece of work of so many seconds."""
    moments: Iterator[float] = itertools.chain.from_iterable(
        (100.0 * at, 100.0 * at + s) for at, s in enumerate(seconds)
    )
    return SimpleNamespace(perf_counter=lambda: next(moments))


def test_the_floor_counts_two_operations_a_multiply_add(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "wall_seconds", lambda work, *_: (work(), 0.5)[1])
    rows: list[dict[str, Any]] = []
    gpu.measure_floor(TINY, rows.append)
    assert rows == [{"side": 32, "flops_per_second": 2 * 32 * 32 * 32 / 0.5}]


def test_seconds_of_work_are_the_median_without_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "time", clock_of(50, 40, 1, 6, 2))
    assert timing.wall_seconds(lambda: None, "cpu", 3) == pytest.approx(2)


def test_a_steps_rate_is_its_batch_by_the_median_of_the_timed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_steps, "time", clock_of(90, 1, 6, 2, 90, 3, 3, 5))
    cells = [Cell(replace(GATE, batch=2), "fixed"), Cell(replace(GATE, batch=3), "mixed")]
    rows: list[dict[str, Any]] = []
    clock = CellClock(cells, replace(TINY, warm_up=1, repeats=3), rows.append)
    trainer: Any = None
    for _ in range(8):
        clock.on_train_batch_start(trainer, trainer, None, 0)
        clock.on_train_batch_end(trainer, trainer, None, None, 0)
    assert [row["samples_per_second"] for row in rows] == pytest.approx([2 / 2, 3 / 3])
    assert [(row["batch"], row["lengths"]) for row in rows] == [(2, "fixed"), (3, "mixed")]
    lengths = mixed_lengths(cells[1].size)
    assert rows[1]["ideal_flops"] == pytest.approx(ideal_flops(cells[1].size, lengths, trained_head=False))
    assert clock.done == 2


def test_a_peers_rate_is_its_samples_by_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_peers, "wall_seconds", lambda *_: 0.25)
    peer: Any = SimpleNamespace(loss=lambda: torch.tensor(3.0), step=None)
    row = gpu_peers.measured(lambda: peer, "cpu", 4, 5)
    assert row == {"loss": 3.0, "samples_per_second": 16.0, "peak_bytes": None}


def evaluated() -> dict[str, Any]:
    """Returns the evaluation's row where one by one takes six seconds, and shared prefixes two."""
    seconds = iter((6.0, 2.0))
    shared_prefix.wall_seconds = lambda *_: next(seconds)  # in this process, which ends
    return shared_prefix.evaluation_speed(GATE, random_backbone(GATE), "cpu", 1, TINY.asked)


def test_questions_a_second_are_all_questions_by_the_seconds_of_each_way() -> None:
    [row] = on_ranks(1, evaluated)
    assert row["questions_per_second"] == {"naive": 3.0, "shared prefix": 9.0}
    assert (row["questions"], row["answers_unlike"]) == (18, 0)


def test_the_page_compares_shared_prefixes_with_the_loop() -> None:
    row = {"questions_per_second": {"naive": 3.0, "shared prefix": 9.0}, "asked": {"of_picture": 6}}
    row |= {"questions": 18, "answers_unlike": 1}
    lines = gpu_lines({"parts": {"evaluation": {"ended": gpu.DONE, "rows": [row]}}})
    text = " ".join(" ".join(lines).split())
    assert "6 questions a picture: 9.0 questions/s, 3.0 times a loop of single questions; 1 of 18" in text
