"""Answers under way: cut at any byte they are gone on with, and two processes do not answer one set at once."""

import contextlib
import json
import threading
from pathlib import Path

import pytest

from callbacks.predictions import prediction_file
from experiments.runs import evaluation
from experiments.runs.evaluation import AnsweringOptions, evaluate_frozen
from lightning_m2pt.answering.partial_predictions import PartialPredictions, refuse_other_header
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.system.file_lock import HeldLock, locked
from tests.runs.test_evaluation import Killed, changed_header, frozen_experiment, kill_after, rows_of
from tests.support.answers.prediction_files import row_of

HEADER = {
    "format": 1,
    "benchmark": "vsr",
    "template": "plain",
    "data_revision": "abc",
    "default_rule": "exact",
    "questions": 3,
}
ANSWERS = ("ja", 'n"ein\u2028', "ä\n\\")
LINES = [row_of("vsr", f"q/{number}", "", "Was?", answer, "ja", "a.jpg") for number, answer in enumerate(ANSWERS)]


def write_cut(folder: Path, length: int | None) -> PartialPredictions:
    """Returns three answers of which a kill left so many bytes."""
    partial = PartialPredictions(folder / "vsr.jsonl", HEADER)
    partial.append(LINES, rank=0)
    file = partial.file_of(0)
    file.write_bytes(file.read_bytes()[:length])
    return PartialPredictions(partial.path, HEADER)


def test_answers_cut_at_any_byte_are_gone_on_with(tmp_path):
    whole = write_cut(tmp_path, None).file_of(0).read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        partial = write_cut(tmp_path, length)
        answered = partial.answered()
        assert len(answered) == max(sum(end <= length for end in ends) - 1, 0)
        partial.append([line for line in LINES if line["id"] not in answered], rank=0)
        partial.finish([line["id"] for line in reversed(LINES)])
        assert list(read_predictions(partial.path).predictions) == LINES[::-1]
        assert [path.name for path in tmp_path.iterdir()] == ["vsr.jsonl"]


@pytest.mark.parametrize("line", ["nonsense", "{}", "[]", '[["id", "q/1"]]', '{"id": 1}', '{"id": "q/1"}', "[" * 5000])
def test_a_line_without_an_answer_is_refused_by_its_number(tmp_path, line):
    partial = write_cut(tmp_path, None)
    with partial.file_of(0).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BadInputError, match="no line of a prediction file") as caught:
        partial.answered()
    assert caught.value.where.endswith("vsr.jsonl.partial-0:5")


def test_a_lock_keeps_others_waiting_and_leaves_nothing(tmp_path):
    path, events, waits = tmp_path / "new" / "mme.jsonl", [], threading.Event()

    def other():
        with locked(path, on_wait=waits.set):
            events.append("other")

    with locked(path, on_wait=lambda: events.append("waited")):
        thread = threading.Thread(target=other)
        thread.start()
        assert waits.wait(timeout=60)
        events.append("first")
    thread.join(timeout=60)
    assert events == ["first", "other"]
    assert list(path.parent.iterdir()) == []
    path.with_name(".mme.jsonl.lock").touch()  # what a kill leaves
    with locked(path, on_wait=lambda: events.append("waited")):
        pass
    assert events == ["first", "other"]


def test_what_another_process_has_answered_meanwhile_is_not_answered_again(tmp_path, monkeypatch, capsys):
    other, scores = evaluate_frozen(frozen_experiment(tmp_path, output="other"))

    @contextlib.contextmanager
    def waited_for_the_other(path, on_wait):
        on_wait()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((other / "predictions" / path.name).read_bytes())
        yield HeldLock(path, -1)

    monkeypatch.setattr(evaluation, "locked", waited_for_the_other)
    sizes = kill_after(monkeypatch, batches=1000)
    capsys.readouterr()
    assert evaluate_frozen(frozen_experiment(tmp_path))[1] == scores
    assert sizes == []
    assert "another process answers vsr: waiting for it" in capsys.readouterr().out


def test_force_answers_all_over_again_and_keeps_the_old_answers_until_then(tmp_path, monkeypatch):
    folder, scores = evaluate_frozen(frozen_experiment(tmp_path))
    before = prediction_file(folder, "vsr").read_bytes()
    changed_header(prediction_file(folder, "mme"), adapter="another")
    for _ in range(2):  # a forced evaluation that is killed starts anew, too
        with monkeypatch.context() as patch:
            kill_after(patch, batches=1)
            with pytest.raises(Killed):
                evaluate_frozen(frozen_experiment(tmp_path), AnsweringOptions(force=True))
    assert prediction_file(folder, "vsr").read_bytes() == before
    sizes = kill_after(monkeypatch, batches=1000)
    assert evaluate_frozen(frozen_experiment(tmp_path), AnsweringOptions(force=True))[1] == scores
    assert sum(sizes) == sum(score.n for score in scores.values())
    assert read_predictions(prediction_file(folder, "mme")).header["adapter"] is None


def test_replacing_stale_answers_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    folder, _ = evaluate_frozen(frozen_experiment(tmp_path))
    path = prediction_file(folder, "vsr")
    changed_header(path, adapter="another")
    replace = AnsweringOptions(on_other="replace")
    with monkeypatch.context() as patch:
        before = kill_after(patch, batches=1)
        with pytest.raises(Killed):
            evaluate_frozen(frozen_experiment(tmp_path), replace)
    assert json.loads(path.read_text().splitlines()[0])["adapter"] == "another"
    sizes = kill_after(monkeypatch, batches=1000)
    evaluate_frozen(frozen_experiment(tmp_path), replace)
    assert sum(sizes) == len(rows_of(folder, "vsr")) - before[0]


def test_of_two_ways_of_decoding_a_refusal_shows_what_differs(tmp_path):
    there, now = ({"decoding": {"end_token_ids": [*range(40)], "template_sha256": each}} for each in ("aa", "bb"))
    with pytest.raises(BadInputError) as caught:
        refuse_other_header(tmp_path, there, now)
    assert caught.value.what == ('decoding is {"template_sha256": "aa"} there and {"template_sha256": "bb"} now')
