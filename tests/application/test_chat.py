"""A chat reads what training would render of the same conversation, and runs each turn's own rows alone."""

import threading
from pathlib import Path

import numpy
import pytest
import torch

import lightning_m2pt
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.application.chat import Chat
from lightning_m2pt.application.model import Model
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.collate import Collator, encoded_sample
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.methods.m2pt import M2PT
from tests.support.answers.counted_rows import counted
from tests.support.answers.saved_adapters import save_invented, write_pictures
from tests.support.whole_models import llava_config, write_whole_model

QUESTIONS = ("What is this?", "Is there a red square?", "Which number is it?", "And what color?", "Is it blue?")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("chat") / "m2pt"
    save_invented(folder, M2PT(visual_length=3, textual_length=2), [])
    return lightning_m2pt.load(folder, base="testbed", device="cpu")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("llava")
    write_whole_model(folder / "base", llava_config())
    backbone = VisionLanguageModel(str(folder / "base"), dtype="float32")
    save_invented(folder / "adapter", M2PT(visual_length=3, textual_length=2), [], backbone)
    made = lightning_m2pt.load(folder / "adapter", base=folder / "base", device="cpu")
    made._base.backbone.never_answered = tuple(made._base.processor.tokenizer.all_special_ids)  # it answers in words
    return made


def rendered(model: Model, turns: tuple[Turn, ...], picture: Path | None, *, with_answers: bool) -> list[int]:
    """Returns the tokens of a conversation as tuning renders it."""
    sample = Sample("s", picture, "p", turns, ("",) * len(turns), "")
    return model._base.processor.encode(sample, model.template, with_answers=with_answers).input_ids.tolist()


def answered_anew(model: Model, turns: tuple[Turn, ...], picture: Path | None, limit: int) -> str:
    """Returns the answer to the last of these turns, the whole conversation read by itself."""
    processor = model._base.processor
    sample = Sample("s", picture, "p", turns, ("",) * len(turns), "")
    text = processor.encode(sample, model.template, with_answers=False)
    batch = Collator(processor.pad_token_id)([encoded_sample(sample, text, processor, "")])
    ends = processor.bound(model.template).end_token_ids
    with model._base.held(model._tuned[model.name]) as backbone:
        return processor.decode(greedy_answers(backbone, batch, limit, *ends)[0].token_ids)


def given_answers(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Lets the next answers be these texts, whatever the model would say."""
    rest = iter(texts)

    def streamed(*_: object) -> object:
        return iter([next(rest)])

    monkeypatch.setattr("lightning_m2pt.application.chat.streamed_answer", streamed)


@pytest.mark.parametrize("name", ["model", "llava"])
@pytest.mark.parametrize("has_picture", [True, False])
def test_every_turn_is_answered_as_the_whole_conversation_read_anew(
    name: str, has_picture: bool, pictures: list[Path], request: pytest.FixtureRequest
) -> None:
    model: Model = request.getfixturevalue(name)
    picture = pictures[0] if has_picture else None
    chat = model.chat(picture)
    for number, question in enumerate(QUESTIONS):
        before = chat.history
        answer = chat.say(question, max_new_tokens=5)
        assert answer == answered_anew(model, (*before, Turn(question)), picture, 5)
        assert chat.history == ((*before, Turn(question, answer)) if answer else before)
        read = chat._last.kept
        assert read is not None
        asked = rendered(model, (*before, Turn(question)), picture, with_answers=False)
        if not has_picture or name == "model":  # one token stands for a picture
            assert read.tokens[: len(asked)].tolist() == asked
        assert len(before) == number


def test_a_conversation_is_what_training_supervises(model: Model, pictures: list[Path]) -> None:
    """Up to its last answer, token by token, a chat of five turns is the training sample of five turns."""
    chat = model.chat(pictures[1])
    for question in QUESTIONS:
        chat.say(question, max_new_tokens=5)
    assert len(chat.history) == len(QUESTIONS)
    trained = rendered(model, chat.history, pictures[1], with_answers=True)
    ids = chat._encoded_turns([*chat.history[:-1], Turn(QUESTIONS[-1])]).input_ids.tolist()
    assert trained[: len(ids)] == ids
    assert len(trained) > len(ids)


def test_a_turn_runs_its_own_rows_and_never_the_picture(model: Model, pictures: list[Path]) -> None:
    chat = model.chat(pictures[0])
    before: list[int] = []
    for number, question in enumerate(QUESTIONS):
        with counted(model._base.backbone) as counts:
            answer = chat.say(question, max_new_tokens=5)
        assert answer
        now = rendered(model, chat.history, pictures[0], with_answers=True)
        if number:
            assert counts.pictures == 0
            # The end of the last answer, the question, and the answer's tokens: at most five.
            assert counts.rows <= 1.2 * (len(now) - len(before) + 1)
        before = now


def test_an_answer_that_is_stopped_is_a_turn_as_far_as_it_came(model: Model, pictures: list[Path]) -> None:
    chat = model.chat(pictures[0])
    stream = chat.stream(QUESTIONS[0], max_new_tokens=6)
    first = next(stream)
    assert chat.history == ()
    answer = chat.say(QUESTIONS[1], max_new_tokens=4)  # closes the one before
    assert chat.history == (Turn(QUESTIONS[0], first), Turn(QUESTIONS[1], answer))
    assert list(stream) == []
    assert answer == answered_anew(model, (Turn(QUESTIONS[0], first), Turn(QUESTIONS[1])), pictures[0], 4)


def test_an_interrupt_in_the_model_keeps_what_was_given(model: Model, pictures: list[Path]) -> None:
    chat = model.chat(pictures[0])
    stream = chat.stream(QUESTIONS[0], max_new_tokens=6)
    first = next(stream)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model._base.backbone.decoder().layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    handle.remove()
    assert chat.history == (Turn(QUESTIONS[0], first),)
    answer = chat.say(QUESTIONS[1], max_new_tokens=4)
    assert answer == answered_anew(model, (Turn(QUESTIONS[0], first), Turn(QUESTIONS[1])), pictures[0], 4)


def test_half_an_answer_of_a_model_that_fails_is_no_turn(model: Model, pictures: list[Path]) -> None:
    chat = model.chat(pictures[0])
    stream = chat.stream(QUESTIONS[0], max_new_tokens=6)
    assert next(stream)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    handle = model._base.backbone.decoder().layers[1].register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        list(stream)
    handle.remove()
    assert chat.history == ()


def test_a_question_answered_with_nothing_is_no_turn(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = model.chat()
    given_answers(monkeypatch, "", "Yes")
    assert chat.say(QUESTIONS[0]) == ""
    assert chat.history == ()
    chat.say(QUESTIONS[1])
    assert chat.history == (Turn(QUESTIONS[1], "Yes"),)


def test_another_picture_and_a_reset_begin_anew(model: Model, pictures: list[Path]) -> None:
    chat = model.chat(pictures[0])
    first = chat.say(QUESTIONS[0], max_new_tokens=5)
    chat.show(pictures[1])
    assert chat.history == ()
    assert chat.say(QUESTIONS[0], max_new_tokens=5) == answered_anew(model, (Turn(QUESTIONS[0]),), pictures[1], 5)
    chat.show(None)
    assert chat.say(QUESTIONS[0], max_new_tokens=5) == answered_anew(model, (Turn(QUESTIONS[0]),), None, 5)
    chat.show(pictures[0])
    chat.say(QUESTIONS[1], max_new_tokens=5)
    chat.reset()
    assert chat.history == ()
    assert chat._last.kept is None  # its rows are let go
    assert chat.say(QUESTIONS[0], max_new_tokens=5) == first


def test_what_is_no_picture_changes_nothing(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:300])
    chat = model.chat(pictures[0])
    chat.say(QUESTIONS[0], max_new_tokens=5)
    before = chat.history
    for image in (tmp_path / "text.png", tmp_path / "cut.png", tmp_path / "none.png", numpy.zeros((3, 3)), 7):
        with pytest.raises(BadInputError, match="image"):
            chat.show(image)  # type: ignore[arg-type]
        with pytest.raises(BadInputError, match="image"):
            model.chat(image)  # type: ignore[arg-type]
    assert chat.history == before
    answer = chat.say(QUESTIONS[1], max_new_tokens=5)
    assert answer == answered_anew(model, (*before, Turn(QUESTIONS[1])), pictures[0], 5)


def test_beyond_the_context_is_refused_with_what_to_do(model: Model, pictures: list[Path]) -> None:
    chat = model.chat(pictures[0])
    chat.say(QUESTIONS[0], max_new_tokens=5)
    before, room = chat.history, model._base.backbone.shape.maximum_positions
    for question, tokens in ((" red" * room, 4), (QUESTIONS[1], room)):
        with pytest.raises(BadInputError, match="rows with this question") as refused:
            chat.say(question, max_new_tokens=tokens)
        assert "reset()" in refused.value.hint
        assert chat.history == before
    assert chat.say(QUESTIONS[1], max_new_tokens=5) == answered_anew(
        model, (*before, Turn(QUESTIONS[1])), pictures[0], 5
    )


def test_a_picture_s_rows_count_to_the_last(model: Model, pictures: list[Path]) -> None:
    """Of a chat, and of a question by itself."""
    chat = model.chat(pictures[0])
    chat.say(QUESTIONS[0], max_new_tokens=1)
    assert chat._last.kept is not None
    limit = model._base.backbone.shape.maximum_positions - chat._last.kept.state.past.length
    chat.reset()
    chat.stream(QUESTIONS[0], max_new_tokens=limit)
    model.stream(pictures[0], QUESTIONS[0], max_new_tokens=limit)
    for asked in (chat.stream, lambda *given, **named: model.stream(pictures[0], *given, **named)):
        with pytest.raises(BadInputError, match="rows with"):
            asked(QUESTIONS[0], max_new_tokens=limit + 1)


def test_the_last_position_can_be_answered_in(model: Model) -> None:
    """What is let through never ends in the middle of an answer."""
    chat = model.chat()
    shape, learned = model._base.backbone.shape, model._tuned[model.name].method.rows_before_text()
    asked = len(rendered(model, (Turn(QUESTIONS[0]),), None, with_answers=False))
    limit = shape.maximum_positions - learned - asked
    with pytest.raises(BadInputError):
        chat.stream(QUESTIONS[0], max_new_tokens=limit + 1)
    chat.stream(QUESTIONS[0], max_new_tokens=limit)


@pytest.mark.parametrize("question", ["", "  \n", "a <image> b", "half \ud800 letter", 7, None])
def test_what_is_no_question_is_refused(model: Model, question: str) -> None:
    chat = model.chat()
    with pytest.raises(BadInputError, match="question"):
        chat.say(question)
    with pytest.raises(BadInputError, match="max_new_tokens"):
        chat.say("What?", max_new_tokens=0)


def test_an_answer_with_a_sign_of_the_template_asks_for_a_reset(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = model.chat()
    with monkeypatch.context() as patched:
        given_answers(patched, "a <image> of it")
        chat.say(QUESTIONS[0])
    with pytest.raises(BadInputError, match="<image>") as refused:
        chat.say(QUESTIONS[1])
    assert "reset()" in refused.value.hint
    chat.reset()
    assert chat.say(QUESTIONS[1], max_new_tokens=5) == answered_anew(model, (Turn(QUESTIONS[1]),), None, 5)


def test_a_chat_keeps_its_adapter_and_its_rows_whoever_asks_in_between(model: Model, pictures: list[Path]) -> None:
    chats = [model.chat(pictures[0]), model.frozen().chat(pictures[0])]
    alone = [model.chat(pictures[0]), model.frozen().chat(pictures[0])]
    expected = [[chat.say(question, max_new_tokens=4) for question in QUESTIONS[:3]] for chat in alone]
    found: list[list[str]] = [[], []]
    for number, question in enumerate(QUESTIONS[:3]):
        for chat, answers in zip(chats, found, strict=True):
            with counted(model._base.backbone) as counts:
                answers.append(chat.say(question, max_new_tokens=4))
            assert counts.pictures == (number == 0)
            model.ask(pictures[1], "What?", max_new_tokens=1)
    assert found == expected
    assert found[0] != found[1]


def test_threads_with_a_chat_each_take_turns(model: Model, pictures: list[Path]) -> None:
    expected = [[chat.say(each, max_new_tokens=4) for each in QUESTIONS[:2]] for chat in map(model.chat, pictures)]
    found: dict[int, list[str]] = {}

    def talk(number: int, chat: Chat) -> None:
        found[number] = [chat.say(each, max_new_tokens=4) for each in QUESTIONS[:2]]

    threads = [threading.Thread(target=talk, args=(number, model.chat(each))) for number, each in enumerate(pictures)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert [found[number] for number in range(len(pictures))] == expected
    assert torch.is_grad_enabled()


def test_two_threads_cannot_read_one_chat(model: Model) -> None:
    chat = model.chat()
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        go_on.wait(60)

    handle = model._base.backbone.decoder().layers[0].register_forward_pre_hook(wait)
    reader = threading.Thread(target=lambda: chat.say(QUESTIONS[0], max_new_tokens=2))
    reader.start()
    try:
        assert inside.wait(60)
        with pytest.raises(BadInputError, match="still being given"):
            chat.say(QUESTIONS[1])
    finally:
        go_on.set()
        reader.join(60)
        handle.remove()
