"""Worked examples: from the training split alone, each with its picture, the same whatever else is asked."""

import re
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from data_modules.cifar10 import CIFAR10, write_cifar10
from data_modules.few_shot import add_examples, training_questions, with_examples
from data_modules.mme import MME
from data_modules.mnist import MNIST, write_mnist
from data_modules.reading.files import fake_image
from data_modules.text_vqa import TextVQA, TextVQAItem, write_text_vqa
from data_modules.vsr import CAPTION_MARK, VSR, VSRItem, write_vsr
from data_modules.vsr import QUESTION_TEMPLATE as VSR_QUESTION
from experiments.configuration.cli import parse_experiment
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Span
from lightning_m2pt.main import main as m2pt
from tests.runs.test_evaluation import rows_of, set_words
from tests.support.small_experiment import fitted, small_words


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


def test_class_names_are_answered_with_spaces_and_other_answers_as_they_are(tmp_path):
    images = numpy.stack([fake_image(number) for number in range(4)])
    for split in ("test", "train"):
        write_cifar10(tmp_path, images, [0, 1, 0, 1], ["fire_truck", "cat"], split=split)
    benchmark = CIFAR10(str(tmp_path), "plain")
    pool = training_questions(benchmark)
    assert [question.target for question in pool] == ["fire truck", "cat"] * 2
    sample = with_examples(benchmark.questions()[0], pool, 4)
    assert sorted(turn.answer for turn in sample.turns[:-1]) == ["cat", "cat", "fire truck", "fire truck"]
    TextVQA.write_fake(tmp_path / "text_vqa")
    item = TextVQAItem(1, "t", fake_image(9), "What is the address?", ("me_2@x.org",) * 10)
    write_text_vqa(tmp_path / "text_vqa", [item], "train")
    assert training_questions(TextVQA(str(tmp_path / "text_vqa"), "plain"))[0].target == "me_2@x.org"


def test_examples_of_digits_are_written_as_the_candidates_are(tmp_path):
    MNIST.write_fake(tmp_path)
    write_mnist(tmp_path, numpy.stack([fake_image(9, side=28)[:, :, 0]]), [5], split="train")
    for candidates, expected in (("numerals", "5"), ("words", "five")):
        pool = training_questions(MNIST(str(tmp_path), "plain", candidates=candidates))
        assert [question.target for question in pool] == [expected]


def test_a_test_question_that_a_limit_leaves_out_is_no_example(tmp_path):
    whole = vsr_with_training(tmp_path)
    first = whole.questions()[0]
    for limit in range(1, len(whole.questions())):
        pool = training_questions(VSR(str(tmp_path), "plain", limit=limit))
        assert (first.image_id, first.text) not in {(question.image_id, question.text) for question in pool}
        assert pool == training_questions(whole)


def test_the_header_names_the_pictures_of_the_examples(tmp_path):
    def revision(shift: int) -> dict[str, int | str]:
        images = numpy.stack([fake_image(number + shift, side=28)[:, :, 0] for number in range(4)])
        write_mnist(tmp_path, images, [1, 1, 1, 1], split="train")
        benchmark = MNIST(str(tmp_path), "plain")
        add_examples(benchmark, 2)
        return benchmark.examples()

    MNIST.write_fake(tmp_path)
    assert revision(shift=0) == revision(shift=0)
    assert revision(shift=0) != revision(shift=1)  # the same words about other pictures


def test_every_example_is_read_with_its_own_picture_and_answer(tmp_path):
    benchmark = vsr_with_training(tmp_path, statements=12)
    processor = parse_experiment(["--config", "experiments/frozen.yaml"]).model.backbone.processor()
    benchmark.connect(processor)
    add_examples(benchmark, 2)
    samples = {sample.id: sample for sample in benchmark.asked_samples()}
    for batch in benchmark.predict_dataloader():
        pictures = batch.pixel_values.unflatten(0, (len(batch), 3))
        for row, name in enumerate(batch.sample_ids):
            *examples, question = samples[name].turns
            assert torch.equal(pictures[row], torch.stack([processor.image(one) for one in samples[name].images]))
            ids = batch.input_ids[row, batch.spans[row] != Span.PADDING].tolist()
            parts = [[]]
            for token in ids:
                parts.append([]) if token == IMAGE_TOKEN_ID else parts[-1].append(token)
            texts = [f"Question: {turn.question} Answer: {turn.answer}</s>" for turn in examples]
            texts.append(f"Question: {question.question} Answer:")
            assert parts[1:] == [processor.tokenizer(text, add_special_tokens=False).input_ids for text in texts]


def test_an_example_never_shows_the_picture_of_the_question(tmp_path):
    benchmark = vsr_with_training(tmp_path)
    question, pool = benchmark.questions()[0], training_questions(benchmark)
    same_picture = replace(pool[0], image_id=question.image_id)
    with pytest.raises(BadInputError, match="examples of 1 other pictures"):
        with_examples(question, [same_picture, pool[1]], 2)


class CountedPool(list):
    """Counts how many of its questions were looked at."""

    looks = 0

    def __getitem__(self, position):
        self.looks += 1
        return super().__getitem__(position)


def test_choosing_examples_looks_at_few_of_a_large_split(tmp_path):
    benchmark = vsr_with_training(tmp_path, statements=300)
    pool = CountedPool(training_questions(benchmark))
    with_examples(benchmark.questions()[0], pool, 3)
    assert pool.looks == 3


def test_a_question_that_is_too_long_is_refused_before_weights_load(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(OpenClipLlama, "load", lambda self: pytest.fail("weights were loaded"))
    sets = set_words(tmp_path)
    words = ["evaluate", "--config", "experiments/frozen.yaml", "--output_root", str(tmp_path / "outputs")]
    too_many = sets[1].replace('"max_new_tokens": 6', '"max_new_tokens": 450')
    assert m2pt([*words, "--benchmarks", too_many]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert re.search(r"question .* of mme has \d+ rows$", lines[0])
    assert lines[1] == "  expected: at most 62: the language model knows no later position"
    assert "max_new_tokens" in lines[2]
