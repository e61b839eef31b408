"""A few hundred mutations of every kind of file; `python -m tests.support.fuzz_files` makes as many as you like."""

import signal
from pathlib import Path

import pytest

from tests.support.fuzz_files import Fuzzer
from tests.support.fuzz_targets import Target

MUTATIONS = 600


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGALRM)
    try:
        fuzzer = Fuzzer(tmp_path, seed=0)
        problems = [problem for number in range(MUTATIONS) if (problem := fuzzer.run(number))]
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert problems == []
    assert not fuzzer.audited
    assert fuzzer.outcomes.total() == MUTATIONS
    assert {name for name, outcome in fuzzer.outcomes if outcome == "refused"} >= {
        *("vsr", "mme", "cifar10", "vision_flan", "mme_hub", "picture_png", "resealed_checkpoint", "adapter"),
        *("run_record", "predictions", "partial", "metrics", "source", "backbone_json"),
    }


def test_the_fuzzer_sees_crashes_hangs_and_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import time

    monkeypatch.setattr("tests.support.fuzz_files.HANG_SECONDS", 0.2)
    monkeypatch.setattr("tests.support.fuzz_files.targets", lambda folder: [])
    handler = signal.getsignal(signal.SIGALRM)
    try:
        fuzzer = Fuzzer(tmp_path, seed=0)
        actions = [lambda: 1 / 0, lambda: time.sleep(5), lambda: os.system("true")]
        problems = []
        for number, action in enumerate(actions):
            target = Target(f"target {number}", tmp_path, lambda: None)
            target.read = action
            problems.append(fuzzer.read(target, target.name))
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert "ZeroDivisionError" in problems[0]
    assert problems[1:] == ["target 1: HANG", ""]
    assert fuzzer.audited == {"os.system": 1}
