"""Draws of examples: the same for all questions, a folder each, and what their scores come to."""

import json
import re
from dataclasses import replace

import pytest

from data_modules.few_shot import add_examples, training_questions, with_examples
from experiments.commands.evaluate import main as evaluate
from experiments.runs.shot_draws import draws_table
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.main import main as m2pt
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.metrics.score import Score
from tests.data_modules.test_few_shot import vsr_with_training
from tests.runs.test_evaluation import set_words
from tests.support.small_experiment import fitted, small_words


def test_a_draw_is_the_same_for_all_questions_and_another_than_the_next(tmp_path):
    benchmark = vsr_with_training(tmp_path, statements=12)
    pool, questions = training_questions(benchmark), benchmark.questions()
    draws = [{with_examples(question, pool, 3, draw).turns[:-1] for question in questions} for draw in range(4)]
    assert all(len(draw) == 1 for draw in draws)
    assert len(set.union(*draws)) == 4
    assert {with_examples(question, pool, 3, 0).turns[:-1] for question in questions} == draws[0]
    sample = with_examples(questions[0], pool, 3, 1)
    assert len({str(image) for image in sample.images}) == 4
    # Without a draw each question has its own, as ever.
    assert len({with_examples(question, pool, 3).turns[:-1] for question in questions}) > 1


def test_an_example_never_shows_the_question_s_own_picture(tmp_path):
    benchmark = vsr_with_training(tmp_path, statements=12)
    pool = training_questions(benchmark)
    shown = with_examples(benchmark.questions()[0], pool, 2, 0)
    first = next(question for question in pool if question.text == shown.turns[0].question)
    own = replace(benchmark.questions()[0], image=first.image, image_id=first.image_id)
    sample = with_examples(own, pool, 2, 0)
    assert first.text not in [turn.question for turn in sample.turns[:-1]]
    assert sample.turns[0] == shown.turns[1]


def test_headers_tell_draws_apart(tmp_path):
    benchmark = vsr_with_training(tmp_path, statements=12)
    add_examples(benchmark, 2)
    assert benchmark.examples().keys() == {"shots", "sha256"}
    add_examples(benchmark, 2, 3)
    third = benchmark.examples()
    assert (third["shots"], third["draw"]) == (2, 3)
    add_examples(benchmark, 2, 4)
    assert benchmark.examples()["sha256"] != third["sha256"]


def scored(value: float) -> Score:
    return Score("vsr", "yes_no_words", "accuracy", value, value / 100, 1.0, 50.0, 8, 0, None, [], {})


def test_the_figures_of_a_set_over_draws():
    table = draws_table(4, [{"vsr": scored(value)} for value in (50.0, 62.5, 75.0, 56.5)])
    (record,) = table.records
    assert record["values"] == [50.0, 62.5, 75.0, 56.5]
    assert (record["mean"], record["best"], record["worst"], record["draws"]) == (61.0, 75.0, 50.0, 4)
    assert record["deviation"] == pytest.approx((339.5 / 3) ** 0.5)
    assert table.rows[0][:5] == ["vsr (accuracy)", "61.0", "10.64", "75.0", "50.0"]
    assert "best draw is none" in table.notes[1]
    (record,) = draws_table(1, [{"vsr": scored(50.0)}]).records
    assert (record["mean"], record["deviation"], record["best"]) == (50.0, None, 50.0)


def test_the_command_asks_every_draw_once_and_goes_on(tmp_path, capsys, monkeypatch):
    _, run = fitted([*small_words(tmp_path, steps=2), *set_words(tmp_path)])
    vsr_with_training(tmp_path / "vsr", statements=12)
    words = ["--run", str(run), "--benchmarks", "vsr", "--answer", "likelihood_sum", "--shots", "1"]
    assert evaluate([*words, "--shot-draws", "1"]) == 0
    (first,) = (run / "evaluations").iterdir()
    assert re.fullmatch(r"likelihood_sum-1-shot-draw-0-[0-9a-f]+", first.name)
    before = (first / "predictions/vsr.jsonl").read_bytes()
    (first / "predictions/vsr.jsonl").touch()
    capsys.readouterr()
    assert evaluate([*words, "--shot-draws", "3", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.count("already answered") == 1
    (table,) = json.loads(said.out)["tables"]
    (record,) = table["records"]
    folders = sorted((run / "evaluations").iterdir(), key=lambda folder: folder.name.split("draw-")[1])
    assert [re.findall(r"draw-(\d)-", folder.name)[0] for folder in folders] == ["0", "1", "2"]
    headers = [read_predictions(folder / "predictions/vsr.jsonl").header for folder in folders]
    assert [header["examples"]["draw"] for header in headers] == [0, 1, 2]
    values = [json.loads((folder / "scores/vsr.json").read_text())["value"] for folder in folders]
    assert record["values"] == values
    assert (record["shots"], record["draws"], record["set"]) == (1, 3, "vsr")
    assert (first / "predictions/vsr.jsonl").read_bytes() == before
    monkeypatch.setattr(OpenClipLlama, "load", lambda self: pytest.fail("weights were loaded"))
    assert m2pt(["evaluate", *words, "--shot-draws", "2", "--shots", "99"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "other pictures" in lines[0]
    assert "at least 99 (--shots)" in lines[1]


def test_the_untouched_model_is_asked_in_draws_too(tmp_path, capsys):
    key, sets = set_words(tmp_path)
    words = ["--config", "experiments/frozen.yaml", key, json.dumps(json.loads(sets)[1:])]
    vsr_with_training(tmp_path / "vsr", statements=12)
    shots = ["--shots", "1", "--shot-draws", "2", "--output_root", str(tmp_path / "out")]
    assert evaluate([*words, *shots]) == 0
    said = capsys.readouterr().out
    assert len(list((tmp_path / "out/frozen").iterdir())) == 2
    assert "deviation" in said
    assert "2 draws of 1 example" in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--shot-draws", "2"), ("--shot-draws", "--shots")),
        (("--shot-draws", "0", "--shots", "1"), ("--shot-draws: '0' is no number of at least 1",)),
        (("--shot-draws=-1", "--shots", "1"), ("--shot-draws: '-1' is no number of at least 1",)),
        (("--shots=-1",), ("--shots: '-1' is no number of at least 0",)),
        (("--shot-draws", "x", "--shots", "1"), ("shot-draws",)),
        (("--shot-draws", "1001", "--shots", "1"), ("shot-draws", "'1001' is more than 1,000")),
        (("--json",), ("--json", "--shot-draws")),
        (("--json", "--shots", "1"), ("--json", "--shot-draws")),
        (("--shots", "1", "--shot-draws", "2"), ("mme has no training split",)),
    ],
    ids=str,
)
def test_draws_that_say_nothing_are_refused(tmp_path, capsys, monkeypatch, words, named):
    monkeypatch.setattr(OpenClipLlama, "load", lambda self: pytest.fail("weights were loaded"))
    asked = ["--config", "experiments/frozen.yaml", *set_words(tmp_path), "--output_root", str(tmp_path / "out")]
    assert m2pt(["evaluate", *asked, *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) <= 3
    for name in named:
        assert name in "\n".join(lines)
