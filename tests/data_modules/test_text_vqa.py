"""TextVQA: ten references a question, from the annotation to the prediction file and the score."""

import json
from pathlib import Path

import pytest

from data_modules.text_vqa import TextVQA, TextVQAItem, write_text_vqa
from data_modules.vsr import VSR
from lightning_m2pt.answering.decoding import Answer
from lightning_m2pt.answering.partial_predictions import json_lines
from lightning_m2pt.answering.prediction_line import prediction_line
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.runs.scoring import score_file, write_score
from tests.support.data_fixtures import fake_pictures

ANSWERS = ("", "", "", "nokia", "Samsung", "samsung", "Samsung", "nokia", "unanswerable", "lg")


def written(root: Path, answers: tuple[str, ...] = ANSWERS) -> TextVQA:
    write_text_vqa(root, [TextVQAItem(34602, "0054c91397f2fe05", fake_pictures(1, 8)[0], "what brand? ", answers)])
    return TextVQA(str(root), "plain")


def test_the_first_of_the_most_frequent_answers_is_the_target(tmp_path: Path) -> None:
    (question,) = written(tmp_path).questions()
    assert (question.id, question.text, question.target) == ("val/34602", "what brand?", "nokia")
    assert question.references == ANSWERS
    assert question.image_id == "0054c91397f2fe05"
    (asked,) = TextVQA(str(tmp_path), "plain", question_template="{question} One word.").questions()
    assert asked.text == "what brand? One word."
    with pytest.raises(BadInputError, match=r"text_vqa\.question_template"):
        TextVQA(str(tmp_path), "plain", question_template="What?")


def test_the_file_has_the_official_keys(tmp_path: Path) -> None:
    written(tmp_path)
    content = json.loads((tmp_path / "TextVQA_0.5.1_val.json").read_text())
    assert set(content) == {"dataset_type", "dataset_name", "dataset_version", "data"}
    assert set(content["data"][0]) == {
        *("question", "question_id", "image_id", "image_classes", "flickr_original_url", "flickr_300k_url"),
        *("image_width", "image_height", "answers", "question_tokens", "set_name"),
    }


def test_the_fingerprint_follows_every_reference(tmp_path: Path) -> None:
    first = written(tmp_path).data_revision
    assert written(tmp_path, (*ANSWERS[:-1], "LG")).data_revision != first
    assert written(tmp_path).data_revision == first


def test_references_go_through_prediction_files_to_scores(tmp_path: Path) -> None:
    module = written(tmp_path / "data", ("stop",) * 4 + ("halt",) * 6)
    header = {"format": 1, "benchmark": "text_vqa", "template": "plain", "data_revision": "0", "toggles": {}}
    header |= {"default_rule": module.rules[0], "classes": module.classes}
    path = tmp_path / "predictions" / "text_vqa.jsonl"
    path.parent.mkdir()
    for answer, value in (("Stop.", 100), ("\ud800", 0)):
        line = prediction_line("text_vqa", module.questions()[0], Answer(answer, margin=1.0))
        path.write_text(json.dumps(header) + "\n" + json.dumps(line) + "\n")
        assert read_predictions(path).predictions[0]["references"] == ["stop"] * 4 + ["halt"] * 6
        read_header, scored = score_file(path)
        assert (scored.value, scored.rule, scored.chance) == (value, "vqa_accuracy", 100)
        assert write_score(tmp_path, read_header, scored).exists()


def test_lines_of_other_sets_have_no_references(tmp_path: Path) -> None:
    VSR.write_fake(tmp_path)
    question = VSR(str(tmp_path), "plain").questions()[0]
    text = json_lines([{"benchmark": "vsr"}, prediction_line("vsr", question, Answer("Yes", margin=1.0))])
    expected = {"id": question.id, "set": "vsr", "subtask": "", "question": question.text, "answer": "Yes"}
    expected |= {"target": question.target, "image_id": question.image_id}
    assert text == json.dumps({"benchmark": "vsr"}) + "\n" + json.dumps(expected) + "\n"
