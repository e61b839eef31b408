"""Answers piece by piece are those of all questions at once; what a question shares with the last one is not run."""

from pathlib import Path

import numpy
import pytest
import torch

import lightning_m2pt
from lightning_m2pt.application.model import Model
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from tests.support.answers.counted_rows import counted
from tests.support.answers.saved_adapters import TOKENS, asked_of, save_invented, write_pictures

METHODS: dict[str, Method] = {
    "m2pt": M2PT(visual_length=3, textual_length=2),
    "lora": Lora(rank=2),
    "aprompt": APrompt(2, 2),
}


class Adapters:
    """Folders of adapters by name, and what the model of each answers when every question is read by itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = asked_of(write_pictures(folder / "pictures"))
        self.answers = {name: save_invented(folder / name, method, self.asked) for name, method in METHODS.items()}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    return Adapters(tmp_path_factory.mktemp("streamed"))


@pytest.fixture(scope="module")
def model(adapters: Adapters) -> Model:
    made = lightning_m2pt.load(adapters.folder / "m2pt", base="testbed", device="cpu")
    for name in ("lora", "aprompt"):
        made.add(name, adapters.folder / name)
    return made


@pytest.mark.parametrize("name", METHODS)
def test_pieces_join_to_the_answers_of_each_question_by_itself(model: Model, adapters: Adapters, name: str) -> None:
    model.use("default" if name == "m2pt" else name)
    for by_picture in (adapters.asked, sorted(adapters.asked)):
        pieces = [list(model.stream(*asked, max_new_tokens=TOKENS)) for asked in by_picture]
        expected = dict(zip(adapters.asked, adapters.answers[name], strict=True))
        assert ["".join(each) for each in pieces] == [expected[asked] for asked in by_picture]
        assert any(len(each) > 1 for each in pieces)
    assert [model.ask(*asked, max_new_tokens=TOKENS) for asked in by_picture[:2]] == list(map("".join, pieces[:2]))


@pytest.mark.parametrize("name", METHODS)
def test_a_second_question_about_a_picture_runs_its_own_rows(model: Model, adapters: Adapters, name: str) -> None:
    model.use("default" if name == "m2pt" else name)
    first, second = "Is there a red square?", "Which number is it?"
    processor, backbone = model._base.processor, model._base.backbone
    model.ask(adapters.asked[1][0], first, max_new_tokens=4)
    with counted(backbone) as counts:
        model.ask(adapters.asked[0][0], first, max_new_tokens=4)
    whole = counts.rows
    with counted(backbone) as counts:
        answer = model.ask(adapters.asked[0][0], second, max_new_tokens=4)
    own = len(processor.tokenizer(f"{second} ASSISTANT:")["input_ids"]) + 4
    assert counts.rows <= 1.2 * own < whole / 3
    assert counts.pictures == 0
    assert answer == model.ask_all([(adapters.asked[0][0], second)], max_new_tokens=4)[0]


def test_a_file_that_changed_is_read_again(model: Model, adapters: Adapters, tmp_path: Path) -> None:
    from PIL import Image

    model.use("default")
    path, array = tmp_path / "now.png", numpy.zeros((20, 20, 3), numpy.uint8)
    for shade in (0, 255):
        Image.fromarray(array + shade).save(path)
        with counted(model._base.backbone) as counts:
            found = model.ask(path, "What is this?", max_new_tokens=TOKENS)
        assert counts.pictures == 1
        assert found == model.ask_all([(array + shade, "What is this?")], max_new_tokens=TOKENS)[0]


def test_an_answer_that_is_left_leaves_the_model_usable(model: Model, adapters: Adapters) -> None:
    model.use("default")
    asked = next(each for each in adapters.asked if len(list(model.stream(*each, max_new_tokens=TOKENS))) > 1)
    whole = model.ask(*asked, max_new_tokens=TOKENS)
    for piece in model.stream(*asked, max_new_tokens=TOKENS):
        assert whole.startswith(piece)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        break
    assert model.ask(*asked, max_new_tokens=TOKENS) == whole
    never_begun = model.stream(*asked)
    del never_begun
    assert model.ask(*asked, max_new_tokens=TOKENS) == whole


def test_streams_of_several_adapters_take_turns(model: Model, adapters: Adapters) -> None:
    """Each answer is its own adapter's from its first piece to its last, whatever is used and asked in between."""
    number = 4
    streams, given = {}, {name: "" for name in METHODS}
    for name in METHODS:
        model.use("default" if name == "m2pt" else name)
        streams[name] = model.stream(*adapters.asked[number], max_new_tokens=TOKENS)
    untouched = model.frozen()
    while streams:
        for name, stream in list(streams.items()):
            piece = next(stream, None)
            if piece is None:
                del streams[name]
            else:
                given[name] += piece
            untouched.ask(*adapters.asked[0], max_new_tokens=1)
    assert given == {name: answers[number] for name, answers in adapters.answers.items()}


def test_what_cannot_be_asked_is_refused_before_a_piece_is_asked_for(model: Model, adapters: Adapters) -> None:
    picture = adapters.asked[0][0]
    for image, question, tokens, named in (
        (picture, " ", 4, "empty"),
        (picture, "a <image> b", 4, "<image>"),
        (picture, "word " * 3000, 4, "rows"),
        (picture, "What?", 0, "max_new_tokens"),
        (picture.with_name("none.png"), "What?", 4, "none.png"),
        (numpy.zeros((2, 2)), "What?", 4, "image"),
    ):
        with pytest.raises(BadInputError, match=named):
            model.stream(image, question, max_new_tokens=tokens)
