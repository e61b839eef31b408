"""``m2pt score`` on answers of LLaVA's scripts: the scores of our own predictions, or what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.metrics.peer_formats.formats import export_files
from lightning_m2pt.metrics.peer_formats.llava_answers import the_row
from lightning_m2pt.metrics.predictions import PredictionFile
from tests.support.answers.prediction_files import mme_predictions, pope_predictions, vsr_predictions, written

INSTRUCTION = "\nAnswer the question using a single word or phrase."
MESSY = ("Yes", "no", "No.", "Yes, it is", "nothing")


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def scored(capsys: pytest.CaptureFixture, *words: object) -> list[dict[str, Any]]:
    assert main(["score", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture, *words: object) -> str:
    assert main(["score", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().split("\n")) <= 3
    return captured.err


def unanswered(folder: Path, content: PredictionFile) -> Path:
    """Writes the same questions with answers that score nothing."""
    empty = PredictionFile(content.header, [{**row, "answer": ""} for row in content.predictions])
    return written(empty, folder / "predictions.jsonl")


def llavas(content: PredictionFile, names: list[object], **others: str) -> list[dict[str, Any]]:
    return [
        {"question_id": name, "prompt": f"{row['question'].upper()}{INSTRUCTION}", "text": row["answer"], **others}
        for name, row in zip(names, content.predictions, strict=True)
    ]


def test_mmes_answers_are_found_by_picture_and_prompt(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = mme_predictions(MESSY)
    own = scored(capsys, written(content, tmp_path / "predictions.jsonl"))
    answers = llavas(content, [f"{row['subtask']}/{row['image_id']}" for row in content.predictions], model_id="m")
    path = lines(tmp_path / "answers.jsonl", answers[::-1])
    against = unanswered(tmp_path / "other", content)
    assert scored(capsys, path, "--against", against) == own
    assert scored(capsys, path, "--against", against, "--rule", "mme_lmms")[0]["rule"] == "mme_lmms"


def test_popes_answers_need_llavas_question_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = pope_predictions(MESSY)
    own = scored(capsys, written(content, tmp_path / "predictions.jsonl"))
    path = lines(tmp_path / "answers.jsonl", llavas(content, list(range(len(content.predictions)))))
    questions = [
        {
            "question_id": number,
            "image": row["image_id"],
            "text": row["question"] + INSTRUCTION,
            "category": row["subtask"],
        }
        for number, row in enumerate(content.predictions)
    ]
    asked = lines(tmp_path / "llava_pope_test.jsonl", questions)
    against = unanswered(tmp_path / "other", content)
    assert scored(capsys, path, "--against", against, "--questions", asked) == own
    message = refused(capsys, path, "--against", against)
    assert "answers.jsonl:1: no question that is not answered yet fits the question id '0'" in message
    assert "--questions llava_pope_test.jsonl" in message
    lines(asked, questions[1:])
    assert "the question '0' is not in the question file" in refused(
        capsys, path, "--against", against, "--questions", asked
    )
    message = refused(capsys, against, "--questions", asked)
    assert "a question file goes with answers of LLaVA's scripts" in message


def test_what_we_export_for_llava_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = pope_predictions(("Yes", "no", "No."))
    own = scored(capsys, written(content, tmp_path / "predictions.jsonl"))
    path = tmp_path / "answers.jsonl"
    path.write_bytes(export_files(content, "llava").files["answers.jsonl"])
    assert scored(capsys, path, "--against", unanswered(tmp_path / "other", content)) == own


def test_answers_to_any_set_go_out_and_come_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = vsr_predictions(("yes", "half a character \ud800", "two\nlines"))
    own = scored(capsys, written(content, tmp_path / "predictions.jsonl"))
    files = export_files(content, "llava_answers").files
    (tmp_path / "answers.jsonl").write_bytes(files["answers.jsonl"])
    (tmp_path / "questions.jsonl").write_bytes(files["questions.jsonl"])
    first = json.loads(files["questions.jsonl"].split(b"\n")[0])
    row = content.predictions[0]
    assert first == {
        "question_id": row["id"],
        "image": row["image_id"],
        "text": row["question"],
        "category": "default",
        "answer": row["target"],
    }
    against = unanswered(tmp_path / "other", content)
    assert scored(capsys, tmp_path / "answers.jsonl", "--against", against) == own
    both = scored(capsys, tmp_path / "answers.jsonl", "--against", against, "--questions", tmp_path / "questions.jsonl")
    assert both == own


def test_an_id_of_another_question_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = vsr_predictions(("yes", "no", "no"))
    different = [{**row, "question": f"Is it {number}?"} for number, row in enumerate(content.predictions)]
    content = PredictionFile(content.header, different)
    names: list[object] = [row["id"] for row in content.predictions]
    against = unanswered(tmp_path / "other", content)
    own = scored(capsys, written(content, tmp_path / "predictions.jsonl"))
    path = lines(tmp_path / "answers.jsonl", llavas(content, names))
    assert scored(capsys, path, "--against", against) == own
    shifted = llavas(content, [*names[1:], names[0]])
    message = refused(capsys, lines(path, shifted), "--against", against)
    assert "answers.jsonl:1: prompt: the prompt is 'is it 0?'" in message
    unsaid = [{key: value for key, value in line.items() if key != "prompt"} for line in shifted]
    assert scored(capsys, lines(path, unsaid), "--against", against) != []


def test_without_the_questions_it_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = mme_predictions(MESSY)
    names: list[object] = [f"{row['subtask']}/{row['image_id']}" for row in content.predictions]
    answers = llavas(content, names)
    path = lines(tmp_path / "answers.jsonl", answers)
    message = refused(capsys, path)
    assert "these are answers of LLaVA's scripts" in message
    assert "--against PREDICTIONS, a prediction file of the same set" in message
    against = unanswered(tmp_path / "other", content)
    lines(path, answers[1:])
    assert "the file has no answer to 'existence/0.jpg/1' (1 missing" in refused(capsys, path, "--against", against)
    lines(path, [*answers, answers[0]])
    assert f"answers.jsonl:{len(answers) + 1}: no question that is not" in refused(capsys, path, "--against", against)
    lines(path, [answers[0] | {"text": None}])
    assert "answers.jsonl:1: text: the value is None" in refused(capsys, path, "--against", against)
    lines(path, [answers[0] | {"question_id": 1.5}])
    assert "answers.jsonl:1: question_id: the value is 1.5" in refused(capsys, path, "--against", against)


def test_one_question_of_several_subtasks_is_not_guessed() -> None:
    first, second, other = ({"id": name, "subtask": subtask} for name, subtask in (("1", "a"), ("2", "a"), ("3", "b")))
    assert the_row([first, second], "here", "x") is first
    with pytest.raises(BadInputError, match="questions of several subtasks fit the question id 'x'"):
        the_row([first, other], "here", "x")
