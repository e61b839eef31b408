"""One training step of every peer, side by side on the CPU: process time, bytes held, operations.

    python -m benchmarks.training.speed               # all cells, then the tables of docs/speed.md
    python -m benchmarks.training.speed --rounds 9 --cells 0 2
    python -m benchmarks.training.speed --gates       # only the numbers test_speed_gates.py compares with

Peers take turns, round by round, each beginning one place further, so that a busy moment of a shared machine hits all
of them; times are process time of one thread, which other programs slow down but do not add to. Nothing is timed
before the losses agree. A cell's numbers are stored as soon as it is done, in the place of what was there.
"""

import lightning_m2pt.torchvision_guard  # noqa: F401  (before the first import of Lightning)

# isort: split
import argparse
import gc
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.report.machine import machine
from benchmarks.report.speed import ROUNDS, write_report
from benchmarks.training.flop_formula import ideal_step, published_step
from benchmarks.training.own_step import RUNGS
from benchmarks.training.peer import Peer
from benchmarks.training.peers import Cell, cell_of
from benchmarks.training.sizes import CPU_CELLS, GATE, TrainingSize
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say

RESULTS = Path("benchmarks/results/training_speed.json")
GATES = Path("benchmarks/results/training_gates.json")


def timed_step(peer: Peer) -> float:
    """Returns the process seconds of one whole step."""
    started = time.process_time()
    peer.step()
    seconds = time.process_time() - started
    peer.forget_gradients()
    return seconds


def interleaved_seconds(peers: list[Peer], rounds: int) -> Iterator[dict[str, list[float]]]:
    """Yields each peer's seconds so far after every round."""
    seconds: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for number in range(rounds):
        first = number % len(peers)
        for peer in peers[first:] + peers[:first]:
            seconds[peer.name].append(timed_step(peer))
        yield seconds


def formulas_of(size: TrainingSize) -> dict[str, float]:
    """Returns the operations of a step by formula."""
    return {
        "published": published_step(size, recompute=True, fused=False),
        "ideal": ideal_step(size, trained_head=True),
        "ideal, head frozen": ideal_step(size, trained_head=False),
    }


def counted_rows(cell: Cell) -> dict[str, dict[str, Any]]:
    """Returns every peer's counts."""
    counts = cell.checked_counts()
    return {peer.name: {"trained": peer.trained_numbers, **asdict(counts[peer.name])} for peer in cell.peers}


def measured(cell: Cell, rounds: int, label: str) -> Iterator[dict[str, Any]]:
    """Yields everything about one cell after every round."""
    rows = counted_rows(cell)
    say(f"{label}: losses agree")
    for number, seconds in enumerate(interleaved_seconds(cell.peers, rounds), start=1):
        say(f"{label}: round {number} of {rounds}")
        yield {
            "size": asdict(cell.size),
            "made_with": machine(),
            "frozen_losses": cell.frozen_losses,
            "formula_flops": formulas_of(cell.size),
            "same_loss": [peer.name for peer in cell.same_loss],
            "peers": {
                name: {**row, "median_seconds": statistics.median(seconds[name]), "seconds": seconds[name]}
                for name, row in rows.items()
            },
        }


def store(path: Path, content: dict[str, Any]) -> None:
    """Writes results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def store_cell(size: TrainingSize, content: dict[str, Any]) -> None:
    """Puts one cell's numbers in the place of what is stored of it; the others stay."""
    stored = {**(json.loads(RESULTS.read_text()) if RESULTS.exists() else {}), size.cell: content}
    store(RESULTS, {each.cell: stored[each.cell] for each in CPU_CELLS if each.cell in stored})


def measure_cells(numbers: list[int], rounds: int) -> None:
    """Measures cells of ``CPU_CELLS`` by number and stores each after every round."""
    for number in numbers:
        size = CPU_CELLS[number]
        prompts_alone_differ = any(size.vocabulary == other.vocabulary for other in CPU_CELLS[:number])
        cell = cell_of(size, with_lora=not prompts_alone_differ)
        for content in measured(cell, rounds, size.cell):
            store_cell(size, content)
        del cell
        gc.collect()


def measure_gates() -> None:
    """Stores the counts of our rungs at the small size."""
    rows = counted_rows(cell_of(GATE))
    rungs = {rung.name: rows[rung.name] for rung in RUNGS}
    store(GATES, {"size": asdict(GATE), "made_with": machine(), "rungs": rungs})


def main() -> None:
    """Measures what was asked for and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--cells", type=int, nargs="+", default=list(range(len(CPU_CELLS))), help="numbers from 0")
    parser.add_argument("--gates", action="store_true", help="only the numbers of the tests")
    parser.add_argument("--report", action="store_true", help="only tables and chart, from what is stored")
    own = parser.parse_args()
    torch.set_num_threads(1)
    if not own.report:
        measure_gates()
    if not own.report and not own.gates:
        measure_cells(own.cells, own.rounds)
    if not own.gates:
        write_report()


if __name__ == "__main__":
    main()
