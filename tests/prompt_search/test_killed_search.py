"""A search that is killed at any time ends as one that was not."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_m2pt.errors import ExitCode
from tests.support.small_experiment import small_words

LIMIT = 240
"""Seconds after which a search is given up."""


def words(folder: Path) -> list[str]:
    small = small_words(folder, "experiments/frozen.yaml")
    data = small[2 : small.index("--data.questions_per_sample")]
    own = ["--proposer", "gcg", "--length", "3", "--width", "8", "--budget", "40000", "--device", "cpu"]
    return [
        *("search-prompt", "--config", "experiments/frozen.yaml", *data, "--data.validation_fraction", "0.5"),
        *own,
    ]


def begun(given: list[str], output: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "lightning_m2pt.main", *given, "--output", str(output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def record(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.slow
def test_kills_change_nothing(tmp_path):
    given = words(tmp_path)
    assert begun(given, tmp_path / "whole.yaml").wait(LIMIT) == ExitCode.DONE
    expected = record(tmp_path / "whole.json")
    draw, rounds = random.Random(0), []
    for _ in range(3):
        killed = begun(given, tmp_path / "killed.yaml")
        before = rounds[-1] if rounds else -1
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline and killed.poll() is None:
            time.sleep(draw.uniform(0.005, 0.05))
            path = tmp_path / "killed.json"
            if path.exists() and (reached := rounds_of(record(path))) > before + draw.randint(1, 4):
                rounds.append(reached)
                break
        killed.kill()
        killed.communicate(timeout=60)
    assert rounds == sorted(rounds)
    assert rounds, "nothing was killed"
    assert begun(given, tmp_path / "killed.yaml").wait(LIMIT) == ExitCode.DONE
    assert record(tmp_path / "killed.json") == expected
    assert (tmp_path / "killed.yaml").read_bytes() == (tmp_path / "whole.yaml").read_bytes()
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith((".tmp", ".lock"))]


def rounds_of(content: dict) -> int:
    return sum(state["round"] for state in content["states"].values())
