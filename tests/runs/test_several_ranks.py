"""What one of several processes finds alone ends all of them, in seconds, with its words and its code."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

from callbacks.gradient_check import GradientCheck
from callbacks.same_start import refuse_other_starts
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode
from lightning_m2pt.parallel import common_end
from lightning_m2pt.tuning.module import TuningModule
from tests.support.commands_on_ranks import Ended, command_on_ranks
from tests.support.small_experiment import small_words

DDP = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.enable_progress_bar", "false"]


def fit_words(folder: Path, *words: str, steps: int = 3) -> list[str]:
    return ["fit", *small_words(folder, steps=steps), *DDP, *words]


def at_a_step(rank: int, step: int, act: Callable[[], object]) -> Callable[[int], None]:
    """Lets one rank do something once a training has made some steps."""

    def spoil(this: int) -> None:
        def hook(_self: Callback, trainer: Trainer, *_: Any, **__: Any) -> None:
            if trainer.global_step == step:
                act()

        if this == rank:
            GradientCheck.on_train_batch_end = hook  # type: ignore[method-assign]  # this process ends soon

    return spoil


def raising(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def lines_of(ended: Ended) -> list[str]:
    return [line for line in ended.said.splitlines() if line.startswith(("error:", "  expected:", "  hint:"))]


@pytest.mark.parametrize("failing", [0, 1])
def test_what_one_rank_finds_alone_ends_both_with_its_words_and_its_code(tmp_path: Path, failing: int) -> None:
    """Rank 1's sample cannot be read, or rank 0's disk is full: the other one waits in a gathering."""
    error = BadInputError("no picture", where="record 7", expected="a picture", hint="look at it")
    if failing == 0:
        error = EnvironmentFailure("disk full", where="checkpoints", expected="room", hint="free some")  # type: ignore[assignment]
    words = fit_words(tmp_path)
    ended = command_on_ranks(2, lambda _: words, tmp_path / "said", at_a_step(failing, 1, raising(error)))
    assert [each.code for each in ended] == [error.exit_code, error.exit_code]
    own, others = ended[failing], ended[1 - failing]
    assert lines_of(own) == error.message().splitlines()
    first = re.sub(rf"rank {failing} on \S+: ", "", lines_of(others)[0])
    assert [first, *lines_of(others)[1:]] == lines_of(own)
    assert f"rank {failing} on " in lines_of(others)[0]
    assert "Traceback" not in own.said + others.said


@pytest.mark.slow
def test_a_killed_rank_ends_the_other_with_a_message(tmp_path: Path) -> None:
    words = fit_words(tmp_path)
    kill = at_a_step(1, 1, lambda: os.kill(os.getpid(), signal.SIGKILL))
    ended = command_on_ranks(2, lambda _: words, tmp_path / "said", kill)
    assert [each.code for each in ended] == [ExitCode.ENVIRONMENT, -signal.SIGKILL]
    assert "another process of this run is gone" in lines_of(ended[0])[0]
    assert len(lines_of(ended[0])) == 3
    assert "Traceback" not in ended[0].said


@pytest.mark.slow
def test_a_rank_that_hears_nothing_is_ended_where_it_waits(tmp_path: Path) -> None:
    """As on a GPU, where a gathering does not notice that somebody has left it."""

    def spoil(rank: int) -> None:
        at_a_step(1, 1, raising(BadInputError("bad", where="here")))(rank)
        at_a_step(0, 1, lambda: threading.Lock().acquire() and threading.Event().wait())(rank)

    words = fit_words(tmp_path)
    ended = command_on_ranks(2, lambda _: words, tmp_path / "said", spoil, timeout=60)
    assert [each.code for each in ended] == [2, 2]
    assert lines_of(ended[0])[0].endswith("here: bad")


@pytest.mark.slow
def test_a_rank_that_hears_nothing_is_ended_when_the_first_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common_end, "GONE_SECONDS", 2.0)

    def spoil(rank: int) -> None:
        at_a_step(0, 1, lambda: os.kill(os.getpid(), signal.SIGKILL))(rank)
        at_a_step(1, 1, lambda: threading.Event().wait())(rank)

    words = fit_words(tmp_path)
    ended = command_on_ranks(2, lambda _: words, tmp_path / "said", spoil, timeout=60)
    assert [each.code for each in ended] == [-signal.SIGKILL, ExitCode.ENVIRONMENT]
    assert "another process of this run is gone" in lines_of(ended[1])[0]


def test_ranks_of_another_configuration_are_refused_before_weights_load(tmp_path: Path) -> None:
    def spoil(_rank: int) -> None:
        def configure_model(_self: TuningModule) -> None:
            raise AssertionError("weights were loaded")

        TuningModule.configure_model = configure_model  # type: ignore[method-assign]  # this process ends soon

    seeds = ("1", "2")
    ended = command_on_ranks(
        2,
        lambda rank: fit_words(tmp_path, "--seed_everything", seeds[rank]),
        tmp_path / "said",
        spoil,
    )
    assert [each.code for each in ended] == [2, 2]
    for each in ended:
        assert re.search(r"settings.seed_everything is 1 on rank 0 \(\S+\) and 2 on rank 1 \(\S+\)", lines_of(each)[0])
        assert len(lines_of(each)) == 3


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"version": {"torch": "2.0"}}, 'version.torch is "2.13" on rank 0 (a) and "2.0" on rank 1 (b)'),
        ({"code": {"callbacks": "f"}}, 'code.callbacks is "e" on rank 0'),
        ({"run": {"data_fingerprint": "y"}}, "run.data_fingerprint"),
        ({"resumed_step": 0}, "resumed_step is 50 on rank 0 (a) and 0 on rank 1 (b)"),
        ({"more": None}, "more is null"),
    ],
)
def test_the_first_difference_is_named_with_ranks_and_hosts(other: dict[str, Any], named: str) -> None:
    start = {
        "version": {"torch": "2.13"},
        "code": {"callbacks": "e"},
        "run": {"data_fingerprint": "x"},
        "resumed_step": 50,
    }
    refuse_other_starts([("a", start), ("b", dict(start))])
    with pytest.raises(BadInputError) as refused:
        refuse_other_starts([("a", start), ("b", {**start, **other})])
    assert named in str(refused.value)
    assert len(str(refused.value).splitlines()) == 3


SPOILT = """
import os, sys
from callbacks.gradient_check import GradientCheck
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main

def hook(self, trainer, *_, **__):
    if trainer.global_step == 1:
        raise BadInputError("no picture", where="record 7")

if os.environ.get("LOCAL_RANK", "0") == {failing!r}:
    GradientCheck.on_train_batch_end = hook
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["0", "1"])
def test_lightnings_own_launcher_lets_the_first_process_end_with_the_code_and_leaves_no_other(
    tmp_path: Path, failing: str
) -> None:
    """Lightning kills the first process when a child has failed, and leaves children behind when it fails itself."""
    script = tmp_path / "spoilt.py"
    script.write_text(SPOILT.format(failing=failing))
    command = [sys.executable, str(script), *fit_words(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment, check=False)
    assert ended.returncode == 2, ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert all(line.endswith("record 7: no picture") for line in errors)
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(script).encode() in read_or_nothing(path)]


def read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
