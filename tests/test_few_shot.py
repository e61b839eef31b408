"""Worked examples: from the training split alone, each with its picture, the same whatever else is asked."""

from pathlib import Path

import numpy
import pytest

from data_modules.few_shot import training_questions, with_examples
from data_modules.files import fake_image
from data_modules.mme import MME
from data_modules.mnist import MNIST, write_mnist
from data_modules.vsr import CAPTION_MARK, VSR, VSRItem, write_vsr
from data_modules.vsr import QUESTION_TEMPLATE as VSR_QUESTION
from experiments.main import main as m2pt
from lightning_m2pt.errors import BadInputError
from tests.small_experiment import fitted, small_words
from tests.test_evaluation import rows_of, set_words


def vsr_with_training(root: Path, statements: int = 6) -> VSR:
    """Returns VSR's invented test split beside a training split, whose first record is one of the test split."""
    VSR.write_fake(root)
    first = VSR(str(root), "plain").questions()[0]
    words = ("left of", "cat", "dog")
    items = [
        VSRItem(f"train_{number}.png", fake_image(number + 20), f"Cat {number} is left of the dog.", number % 2, *words)
        for number in range(statements)
    ]
    caption = first.text.removesuffix(VSR_QUESTION.removeprefix(CAPTION_MARK))
    again = VSRItem(first.image_id, fake_image(0), caption, int(first.target == "yes"), *words)
    write_vsr(root, [again, *items], split="train")
    return VSR(str(root), "plain")


def test_examples_are_training_questions_with_other_pictures(tmp_path):
    benchmark = vsr_with_training(tmp_path)
    pool = training_questions(benchmark)
    assert len(pool) == 6  # the record of the test split is not among them
    tests = {question.image_id for question in benchmark.questions()}
    assert not tests & {question.image_id for question in pool}
    answers = {question.text: question.target for question in pool}
    for question in benchmark.questions():
        sample = with_examples(question, pool, 3)
        assert sample.turns[-1].question == question.text
        assert not sample.turns[-1].answer
        assert [turn.answer for turn in sample.turns[:-1]] == [answers[turn.question] for turn in sample.turns[:-1]]
        assert len(set(map(str, sample.images))) == 4
        assert with_examples(question, pool, 3) == sample
    chosen = {with_examples(question, pool, 3).turns[:-1] for question in benchmark.questions()}
    assert len(chosen) > 1


def test_more_examples_than_pictures_are_refused(tmp_path):
    benchmark = vsr_with_training(tmp_path)
    with pytest.raises(BadInputError, match="examples of 6 other pictures"):
        with_examples(benchmark.questions()[0], training_questions(benchmark), 7)


def test_sets_without_a_training_split_are_refused(tmp_path):
    MME.write_fake(tmp_path)
    with pytest.raises(BadInputError, match="mme has no training split"):
        training_questions(MME(str(tmp_path), "plain"))
    with pytest.raises(BadInputError, match="itself is asked"):
        training_questions(VSR(str(tmp_path), "plain", split="train"))


def test_the_command_asks_with_examples(tmp_path, capsys):
    _, run = fitted([*small_words(tmp_path, steps=2), *set_words(tmp_path)])
    vsr_with_training(tmp_path / "vsr", statements=12)
    evaluate = ["evaluate", "--run", str(run), "--benchmarks", "vsr"]
    assert m2pt([*evaluate, "--shots", "1"]) == 0
    (folder,) = (run / "evaluations").glob("1-shot-*")
    header = (folder / "predictions" / "vsr.jsonl").read_text().splitlines()[0]
    assert '"examples": {"shots": 1, "sha256"' in header
    assert len(rows_of(folder, "vsr")) > 0
    capsys.readouterr()
    assert m2pt([*evaluate, "--shots", "11"]) == 2
    assert "the language model knows no later position" in capsys.readouterr().err
    assert m2pt(["evaluate", "--run", str(run), "--benchmarks", "mme", "--shots", "1"]) == 2
    assert m2pt([*evaluate, "--shots", "-1"]) == 2


def test_class_names_are_answered_with_spaces(tmp_path):
    MNIST.write_fake(tmp_path)
    images = [fake_image(number, side=28)[:, :, 0] for number in range(4)]
    write_mnist(tmp_path, numpy.stack(images), [1, 2, 3, 4], split="train")
    benchmark = MNIST(str(tmp_path), "plain")
    sample = with_examples(benchmark.questions()[0], training_questions(benchmark), 2)
    assert {turn.answer for turn in sample.turns[:-1]} <= {"1", "2", "3", "4"}
