"""Calibrated answers by the command: folders, names, files, processes, and what is refused before weights load."""

import json
import re
from pathlib import Path

import pytest

from experiments.commands.evaluate import main as evaluate
from experiments.runs.evaluation import AnsweringOptions, evaluate_frozen, frozen_folder
from lightning_m2pt.answering.content_free import ContentFree
from lightning_m2pt.answering.domain_premise import DomainPremise
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main as m2pt
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.metrics.score import score
from tests.runs.test_evaluation import frozen_experiment, rows_of, set_words
from tests.runs.test_evaluation_ranks import answered, files
from tests.support.ranks import on_ranks
from tests.support.small_experiment import fitted, small_words

WORDS = "what is it?"
CALIBRATED = ("--answer", "contextual_calibration", "--calibration-text", WORDS)


def small_run(folder: Path) -> Path:
    return fitted([*small_words(folder, steps=2), *set_words(folder)])[1]


def test_each_calibration_is_an_evaluation_of_its_own(tmp_path, capsys):
    run = small_run(tmp_path)
    once = ["--run", str(run), "--benchmarks", "vsr"]
    assert evaluate([*once, *CALIBRATED]) == 0
    assert "vsr[contextual_calibration]" in re.sub(r"\s*│?\n│ *", "", capsys.readouterr().out)
    (first,) = (run / "evaluations").iterdir()
    assert re.fullmatch(r"contextual_calibration-[0-9a-f]+", first.name)
    header = read_predictions(first / "predictions/vsr.jsonl").header
    assert header["decoding"]["method"] == "contextual_calibration"
    assert header["decoding"]["content_free"] == {"texts": [WORDS], "picture": "mean"}
    rows = rows_of(first, "vsr")
    (premise,) = {json.dumps(row["premise_log_probabilities"]) for row in rows}
    without = json.loads(premise)
    for row in rows:
        compared = {text: value - without[text] for text, value in row["log_probabilities"].items()}
        assert row["answer"] == max(compared, key=lambda text: compared[text])
    assert evaluate([*once, *CALIBRATED]) == 0
    assert "already answered" in capsys.readouterr().out
    for more in (
        [*CALIBRATED, "--calibration-picture", "own"],
        [*CALIBRATED, "the image"],
        ["--answer", "likelihood_pmi"],
        ["--answer", "likelihood_pmi", "--premise", "the answer is"],
        ["--answer", "likelihood_sum"],
    ):
        assert evaluate([*once, *more]) == 0
    names = [folder.name.split("-")[0] for folder in (run / "evaluations").iterdir()]
    assert sorted(names) == ["contextual_calibration"] * 3 + ["likelihood_pmi"] * 2 + ["likelihood_sum"]
    assert not (run / "predictions").exists()


@pytest.mark.parametrize(
    ("method", "premise"),
    [
        ("contextual_calibration", ContentFree((WORDS, "the image"), "own")),
        pytest.param("contextual_calibration", ContentFree((WORDS,)), marks=pytest.mark.slow),
        pytest.param("likelihood_pmi", None, marks=pytest.mark.slow),
    ],
    ids=["own", "mean", "pmi"],
)
def test_two_processes_leave_the_files_of_one(tmp_path, method, premise):
    options = AnsweringOptions(method, premise=premise)
    answered(tmp_path, "one", options)
    on_ranks(2, answered, tmp_path, "two", options)
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert b"premise_log_probabilities" in next(
        content for name, content in files(tmp_path / "one").items() if name == "vsr.jsonl"
    )


def test_answers_under_another_premise_are_refused_and_not_mixed(tmp_path):
    experiment = frozen_experiment(tmp_path)
    asked = [
        AnsweringOptions("contextual_calibration", premise=ContentFree((WORDS,))),
        AnsweringOptions("contextual_calibration", premise=ContentFree((WORDS,), "none")),
        AnsweringOptions("likelihood_pmi", premise=DomainPremise("the answer is")),
        AnsweringOptions("likelihood_pmi"),
        AnsweringOptions("likelihood_sum"),
    ]
    folders = [frozen_folder(experiment, options) for options in asked]
    assert len(set(folders)) == len(asked)
    for options in asked[2:4]:
        evaluate_frozen(experiment, options)
    (folders[2] / "predictions/vsr.jsonl").write_bytes((folders[3] / "predictions/vsr.jsonl").read_bytes())
    with pytest.raises(BadInputError, match=r'decoding is .*"premise": {"text": "ASSISTANT:"'):
        evaluate_frozen(experiment, asked[2])


def test_a_calibrated_score_has_another_name_than_the_published():
    rows = [
        {"id": str(number), "set": "vsr", "subtask": "", "question": "q", "answer": "yes", "target": "yes",
         "image_id": "p"}
        for number in range(2)
    ]  # fmt: skip
    header = {"benchmark": "vsr", "classes": [], "decoding": {"method": "likelihood_pmi"}}
    assert score(header, rows, "yes_no_words").name == "vsr[likelihood_pmi]"
    assert score({**header, "of_questions": 5}, rows, "yes_no_words").name == "vsr[likelihood_pmi, 2 of 5 questions]"
    for method in ("greedy", "likelihood_sum", "likelihood_mean"):
        assert score({**header, "decoding": {"method": method}}, rows, "yes_no_words").name == "vsr"
    assert score({"benchmark": "vsr", "classes": []}, rows, "yes_no_words").name == "vsr"


def test_premises_that_are_no_numbers_are_no_prediction(tmp_path, capsys):
    path = tmp_path / "vsr.jsonl"
    header = {
        "format": 1,
        "benchmark": "vsr",
        "template": "plain",
        "data_revision": "x",
        "default_rule": "yes_no_words",
    }
    row = dict.fromkeys(("id", "subtask", "question", "answer", "target", "image_id"), "yes") | {"set": "vsr"}
    lines = [header, {**row, "premise_log_probabilities": {"yes": "-1"}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert m2pt(["score", str(path)]) == 2
    assert "premise_log_probabilities" in capsys.readouterr().err


LONG = "the image " * 400


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--answer", "contextual_calibration"), ("--calibration-text", "'N'")),
        ((*CALIBRATED[:3], ""), ("--calibration-text", "empty")),
        ((*CALIBRATED[:3], LONG), ("rows", "--calibration-text")),
        ((*CALIBRATED[:3], "</s>"), ("--calibration-text", "</s>")),
        ((*CALIBRATED, "--calibration-picture", "grey"), ("--calibration-picture",)),
        ((*CALIBRATED, "--premise", "x"), ("--premise", "likelihood_pmi")),
        (("--answer", "greedy", "--calibration-text", WORDS), ("--calibration-text", "contextual_calibration")),
        (("--calibration-picture", "own"), ("--calibration-picture", "greedy")),
        (("--answer", "likelihood_mean", "--calibration-text", WORDS), ("--calibration-text", "likelihood_mean")),
        (("--answer", "likelihood_pmi", "--calibration-text", WORDS), ("--calibration-text", "likelihood_pmi")),
        (("--answer", "likelihood_pmi", "--premise", ""), ("--premise", "empty")),
        (("--answer", "likelihood_pmi", "--premise", LONG), ("rows", "--premise")),
        (("--answer", "likelihood_pmi", "--premise", "zebra"), ("--premise", "zebra")),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_what_says_nothing_is_refused_in_three_lines_before_weights_load(tmp_path, capsys, monkeypatch, words, named):
    monkeypatch.setattr(OpenClipLlama, "load", lambda self: pytest.fail("weights were loaded"))
    asked = ["--config", "experiments/frozen.yaml", *set_words(tmp_path), "--output_root", str(tmp_path / "out")]
    assert m2pt(["evaluate", *asked, *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert 2 <= len(lines) <= 3
    for name in named:
        assert name in "\n".join(lines)
    assert not (tmp_path / "out").exists()


def test_transfer_takes_no_calibrated_answers(capsys):
    assert m2pt(["transfer", "--prompt", "x", "--to", "frozen", "--answer", "likelihood_pmi"]) == 2
    assert "likelihood_pmi" in capsys.readouterr().err
