"""SIGKILL at random moments, then the same command again: the same files as if nothing had happened."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from callbacks.loggers import METRICS_FILE
from tests.callbacks.test_step_checkpoint import assert_same, final_state

ROOT = Path(__file__).parents[2]
KILLS = 6
LONGEST_WAIT = 4.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.runs.killable_training", str(folder)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for_training(folder: Path, process: subprocess.Popen[bytes]) -> None:
    before = (folder / METRICS_FILE).stat().st_mtime_ns if (folder / METRICS_FILE).exists() else 0
    while process.poll() is None:
        if (folder / METRICS_FILE).exists() and (folder / METRICS_FILE).stat().st_mtime_ns > before:
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_a_training_killed_again_and_again_ends_with_the_same_files(tmp_path: Path) -> None:
    assert start(tmp_path / "whole").wait() == 0
    chance, killed = random.Random(0), 0
    for _ in range(KILLS):
        process = start(tmp_path / "cut")
        wait_for_training(tmp_path / "cut", process)
        try:
            process.wait(chance.random() * LONGEST_WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
            assert process.wait() == -signal.SIGKILL
    assert killed > 0
    assert start(tmp_path / "cut").wait() == 0
    assert_same(final_state(tmp_path / "cut"), final_state(tmp_path / "whole"))
    assert (tmp_path / "cut" / METRICS_FILE).read_text() == (tmp_path / "whole" / METRICS_FILE).read_text()
