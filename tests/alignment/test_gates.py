"""Figures of captions by value: of invented logits, of written captions, and what they are held against."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch

from experiments.alignment import gates
from experiments.alignment.caption_sets import UNSEEN_ANNOTATION
from experiments.alignment.gates import (
    Figures,
    attributes_right,
    batches,
    decoded,
    figures_of,
    gates_of,
    most_tokens,
    share,
    things_in,
    token_figures,
)
from experiments.alignment.settings import AlignmentSettings
from experiments.testbed.scenes import SceneObject
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.templates import PLAIN
from lightning_m2pt.testing.small_processor import small_processor

TWO = "The image shows a small green zero at the middle right and a large yellow circle at the bottom right."


def test_a_captions_objects_are_read_back():
    assert things_in(TWO) == [
        SceneObject("zero", "green", "small", "middle", "right"),
        SceneObject("circle", "yellow", "large", "bottom", "right"),
    ]
    assert things_in("The image shows a small green zebra at the middle right.") == []
    assert things_in("a small green zero at the middle rightmost") == []
    assert things_in("") == []


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (TWO, (1, 1, 1, 1, 1)),
        ("", (0, 0, 0, 0, 0)),
        ("The image shows a small green zero at the middle right.", (0, 0.5, 0.5, 0.5, 0.5)),
        (TWO.replace("green", "red"), (1, 1, 1, 0.5, 1)),
        (TWO.replace("zero", "three").replace("large", "small"), (1, 1, 0.5, 1, 0.5)),
        (TWO.replace("middle right", "top left"), (1, 0.5, 0.5, 0.5, 0.5)),
        # Of two in one place the first counts; the second makes the number wrong.
        (TWO.replace(".", " and a small red bar at the middle right."), (0, 1, 1, 1, 1)),
        ("The image shows a small red bar at the middle right and " + TWO[16:], (0, 1, 1, 0.5, 0.5)),
    ],
)
def test_attributes_are_held_against_the_object_in_the_same_place(answer, right):
    assert tuple(attributes_right([answer], [TWO]).values()) == right
    both = attributes_right([answer, TWO], [TWO, TWO])
    assert tuple(both.values()) == tuple((each + 1) / 2 for each in right)


def test_shares():
    assert share([True, False, False]) == 0.3333
    assert share(iter([])) == 0


def test_a_caption_may_be_a_token_longer_than_the_longest_right_one():
    texts = [SimpleNamespace(supervised_tokens=number) for number in (3, 7, 5)]
    assert most_tokens([], SimpleNamespace(encode_all=lambda samples, template: texts), "native") == 8


def test_captions_are_decoded_of_batches_without_them(monkeypatch):
    asked = []
    monkeypatch.setattr(gates, "batches", lambda *_, with_answers: asked.append(with_answers) or [[1, 2], [3]])
    answer = lambda backbone, batch: [SimpleNamespace(text=str(each)) for each in batch]  # noqa: E731
    answering = SimpleNamespace(processor=None, template=None, answer=answer)
    assert decoded(None, [], answering, 2) == ["1", "2", "3"]
    assert asked == [False]


@pytest.mark.parametrize("with_answers", [True, False])
def test_batches_have_every_sample_once_and_in_order(with_answers):
    picture, turns = numpy.zeros((24, 24, 3), numpy.uint8), (Turn("what color is it ?", "red"),)
    samples = [Sample(f"sample {number}", picture, "one", turns, ("caption",), "a test") for number in range(5)]
    found = list(batches(samples, small_processor(), PLAIN, 2, with_answers=with_answers))
    assert [list(batch.sample_ids) for batch in found] == [
        ["sample 0", "sample 1"],
        ["sample 2", "sample 3"],
        ["sample 4"],
    ]
    assert [bool((batch.labels != IGNORED_LABEL).any()) for batch in found] == [with_answers] * 3


class InventedBackbone:
    """States are logits already; the labels of a batch are given."""

    def __init__(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.given = logits, labels

    def supervised_states(self, batch, shortcuts):
        logits, labels = self.given
        return logits[:, :-1][labels[:, 1:] != IGNORED_LABEL], labels

    def logits(self, states):
        return states


def test_tokens_are_right_where_the_likeliest_is_the_next_label():
    labels = torch.tensor([[-100, -100, 2, 0], [-100, 1, -100, -100]])
    logits = torch.zeros(2, 4, 3)
    logits[0, 1, 2] = 2.0  # right
    logits[0, 2, 1] = 2.0  # 0 would be
    logits[1, 0, 1] = 2.0  # right
    loss, right = token_figures(InventedBackbone(logits, labels), SimpleNamespace())
    assert right.tolist() == [True, False, True]
    certain = torch.tensor(2.0).exp() / (torch.tensor(2.0).exp() + 2)
    expected = [-certain.log(), -((1 - certain) / 2).log(), -certain.log()]
    assert torch.allclose(loss, torch.stack(expected).double(), atol=1e-6)


def reached(tokens: float, whole: float) -> Figures:
    return Figures(0.5, tokens, 9000, whole, {"count": 0.5}, 400)


@pytest.mark.parametrize(
    ("tokens", "whole", "verdicts"),
    [(0.93, 0.30, ["passed", "passed"]), (0.9299, 0.9, ["open", "passed"]), (0.99, 0.2999, ["passed", "open"])],
)
def test_demands_are_reached_or_open(tokens, whole, verdicts):
    report = gates_of(AlignmentSettings("x"), reached(tokens, whole), reached(0.1, 0.0))
    said = json.loads(json.dumps(report.as_json()))
    assert [gate["verdict"] for gate in said["gates"]] == verdicts
    assert [gate["questions"] for gate in said["gates"]] == [9000, 400]
    assert said["start"]["tokens_right"] == 0.1


def test_what_is_measured_is_the_given_projector_on_unseen_pictures(monkeypatch):
    asked = []

    def stopped(words):
        asked.extend(words)
        raise BadInputError("measured")

    monkeypatch.setattr(gates, "checked", stopped)
    with pytest.raises(BadInputError, match="measured"):
        figures_of(["--model.backbone.projector", "start", "--data.annotation_file", "x"], Path("trained"), 1, 1)
    last = dict(zip(asked[::2], asked[1::2], strict=True))  # the last of a word counts
    assert last["--model.backbone.projector"] == "trained"
    assert last["--data.annotation_file"] == UNSEEN_ANNOTATION
