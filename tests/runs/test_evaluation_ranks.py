"""Several processes share out a set's questions; the files are those of one process, byte for byte."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import distributed

from experiments.configuration.cli import parse_experiment
from experiments.runs.evaluation import AnsweringOptions, evaluate_frozen, finished
from experiments.runs.prepare import check_experiment
from lightning_m2pt.answering.decoding import GreedyAnswering, LikelihoodAnswering
from lightning_m2pt.answering.partial_predictions import PartialPredictions
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.metrics.predictions import FIELDS
from lightning_m2pt.system.rank_group import ranks_of_job
from tests.runs.test_evaluation import FROZEN, set_words
from tests.support.ranks import RanksFailedError, on_ranks

OnBatch = Callable[[int], None]


def answered(folder: Path, output: str, options: AnsweringOptions, on_batch: OnBatch | None = None) -> list[str] | int:
    """Is one process: answers its share and returns its questions' names, or the code with which a signal ended it.

    Args:
        folder: Where the sets are.
        output: Folder below it for the answers.
        options: How the evaluation is made.
        on_batch: Told the number of every batch before it is answered.
    """
    devices = os.environ.get("WORLD_SIZE", "1")
    words = ["--config", FROZEN, *set_words(folder, 3), "--output_root", str(folder / output)]
    experiment = parse_experiment([*words, "--trainer.accelerator", "cpu", "--trainer.devices", devices])
    check_experiment(experiment)
    names: list[str] = []
    batches = 0
    with pytest.MonkeyPatch.context() as patch:
        for kind in (GreedyAnswering, LikelihoodAnswering):
            whole = kind.answer

            def answer(self, backbone, batch, whole=whole):
                nonlocal batches
                if on_batch is not None:
                    on_batch(batches)
                batches += 1
                names.extend(batch.sample_ids)
                return whole(self, backbone, batch)

            patch.setattr(kind, "answer", answer)
        try:
            evaluate_frozen(experiment, options)
        except SystemExit as ended:
            return int(ended.code)  # type: ignore[arg-type]
    return names


def files(folder: Path) -> dict[str, bytes]:
    """Returns what an evaluation has left."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shared_prefix", [True, False], ids=["shared prefix", "one by one"])
def test_two_processes_share_out_whole_batches_and_leave_the_files_of_one(tmp_path, shared_prefix):
    options = AnsweringOptions(shared_prefix=shared_prefix)
    alone = answered(tmp_path, "one", options)
    shares = on_ranks(2, answered, tmp_path, "two", options)
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert set(shares[0]) | set(shares[1]) == set(alone)
    assert all(len(share) < len(alone) for share in shares)
    assert len(shares[0]) + len(shares[1]) - len(alone) <= 2 * 3  # of each set at most one batch is asked twice


def test_a_signal_to_one_process_stops_all_and_one_goes_on(tmp_path):
    options = AnsweringOptions(shared_prefix=False)

    def signalled(batch: int) -> None:
        if os.environ["RANK"] == "1" and batch == 0:
            signal.raise_signal(signal.SIGUSR1)
        until = time.monotonic() + 30
        while os.environ["RANK"] == "0" and not ranks_of_job().stop_code() and time.monotonic() < until:
            time.sleep(0.01)

    whole = answered(tmp_path, "one", options)
    assert on_ranks(2, answered, tmp_path, "cut", options, signalled) == [138, 138]
    assert "mme.jsonl" not in files(tmp_path / "cut")
    kept = sum(content.count(b"\n") - 1 for name, content in files(tmp_path / "cut").items() if "partial" in name)
    assert kept == 2 * 3  # one batch of each
    rest = answered(tmp_path, "cut", options)
    assert len(rest) == len(whole) - kept
    assert files(tmp_path / "cut") == files(tmp_path / "one")


def agree(folder: Path) -> None:
    """Is one of two processes: writes what it saw of what all agree on; the second one ends without a word."""
    distributed.init_process_group("gloo")
    ranks, said = ranks_of_job(), []

    def fail() -> None:
        raise BadInputError("wrong", where="here", expected="right")

    def work() -> None:
        if ranks.rank == 1:
            fail()
        while not ranks.stop_code():
            pass
        raise SystemExit(ranks.stop_code())

    def attempt(step: Callable[[], object]) -> None:
        try:
            said.append(str(step()))
        except (BadInputError, EnvironmentFailure) as error:
            said.append(error.what)

    attempt(lambda: ranks.of_first(fail))
    attempt(lambda: ranks.together(work))
    attempt(lambda: ranks.together(lambda: said.append(f"stop {ranks.stop_code()}")))  # another pass goes on
    attempt(lambda: ranks.refuse_unless_same("a", "here", "it"))
    attempt(lambda: ranks.refuse_unless_same(ranks.rank, "here", "it"))
    attempt(lambda: ranks.of_first(lambda: ranks.rank))
    if ranks.rank == 1:
        (folder / "1").write_text("\n".join(said))
        os._exit(7)
    attempt(lambda: ranks.of_first(lambda: None))
    (folder / "0").write_text("\n".join(said))


def test_what_one_meets_all_raise_and_who_is_gone_is_missed(tmp_path):
    with pytest.raises(RanksFailedError) as caught:
        on_ranks(2, agree, tmp_path, timeout=30)
    assert set(caught.value.reasons) == {1}
    first, second = ((tmp_path / str(rank)).read_text().splitlines() for rank in range(2))
    assert second == [
        "wrong",
        "wrong",
        "stop 0",
        "None",
        "None",
        "it of process 1, counted from 0, is not that of process 0",
        "0",
    ]
    assert first == [*second, "another process of this job has ended"]


def test_answers_that_another_node_has_on_a_disk_of_its_own_are_missed(tmp_path, monkeypatch):
    partial = PartialPredictions(tmp_path / "mme.jsonl", {"benchmark": "mme"})
    partial.append([{**dict.fromkeys(FIELDS, "1"), "set": "mme"}], rank=0)
    monkeypatch.setattr("experiments.runs.evaluation.SEEN_WITHIN", -1.0)
    with pytest.raises(EnvironmentFailure, match="1 of 2 answers, written by other processes") as caught:
        finished(partial, ["1", "2"], lambda: None)
    assert caught.value.expected == "one file system for all nodes"
    assert partial.file_of(0).exists()


def killed(on_rank: str, at: int) -> OnBatch:
    """Kills one process before so many of its batches are answered."""

    def kill(batch: int) -> None:
        if os.environ.get("RANK", "0") == on_rank and batch == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [AnsweringOptions(), AnsweringOptions("likelihood_sum", shared_prefix=False)],
    ids=["greedy, shared", "likelihood"],
)
def test_one_process_becomes_three_and_two_through_kills(tmp_path, options):
    answered(tmp_path, "one", options)
    whole = files(tmp_path / "one")
    for ranks, on_rank, at in ((1, "0", 1), (3, "2", 0), (2, "1", 0)):
        with pytest.raises(RanksFailedError) as caught:
            on_ranks(ranks, answered, tmp_path, "cut", options, killed(on_rank, at))
        assert "exit code -9" in caught.value.reasons[int(on_rank)]
        others = {reason for rank, reason in caught.value.reasons.items() if rank != int(on_rank)}
        assert all("another process of this job has ended" in reason for reason in others), others
        left = files(tmp_path / "cut")
        assert any("partial" in name for name in left)
        before = sum(content.count(b"\n") for content in left.values())
    assert before
    on_ranks(3, answered, tmp_path, "cut", options)
    assert files(tmp_path / "cut") == whole
