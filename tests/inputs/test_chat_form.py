"""Conversations in models' own templates against the library's rendering: what is read, what is supervised."""

from itertools import groupby
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from transformers import PreTrainedTokenizerFast

from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Span
from lightning_m2pt.inputs.chat_form import ChatForm
from lightning_m2pt.inputs.chat_template import ChatTemplate
from lightning_m2pt.inputs.named_templates import NATIVE
from lightning_m2pt.inputs.processing import EncodedText, Processor
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD
from tests.support.chat_templates import CHATML, ENDS, PARTS, TEXT, chat_tokenizer, in_form

FORMS = [*TEXT, *PARTS]
WITHOUT_SYSTEM = {"gemma"}
TOKENIZERS = {form: chat_tokenizer(form) for form in ("bytes", "pieces")}
AS_PIECES = {"llama2", "mistral", "gemma", "zephyr", "llava"}
PROCESSORS = {
    name: Processor(
        TOKENIZERS["pieces" if name in AS_PIECES else "bytes"], 24, CLIP_MEAN, CLIP_STD, chat_template=in_form(name)
    )
    for name in FORMS
}
LETTERS = some.sampled_from([*"aeiou RSTbcd 0127 .,?!:;-\n\t'\"<>[]/#|{}%", "é", "ß", "水", "\N{GRINNING FACE}"])
SPACES = some.sampled_from(["", " ", "\n", "  \t"])
WORDS = some.lists(LETTERS, min_size=1, max_size=12).map("".join).filter(str.strip)
ANSWERS = some.tuples(SPACES, WORDS, SPACES).map("".join)
TURNS = some.lists(some.tuples(WORDS, ANSWERS), min_size=1, max_size=3)


def content(name: str, text: str, images: int = 0) -> object:
    """Returns a message's content in the form that the library's call takes for this template."""
    if name not in PARTS:
        return "<image>\n" * images + text
    return [*[{"type": "image"}] * images, {"type": "text", "text": text}]


def rendered(
    tokenizer: PreTrainedTokenizerFast, name: str, turns: list[tuple[str, str]], goes_on: bool, images: int = 0
) -> str:
    """Returns what the library's public call writes; the answers as they are supervised, without outer spaces."""
    messages = []
    for number, (question, answer) in enumerate(turns):
        messages.append({"role": "user", "content": content(name, question, 0 if number else images)})
        messages.append({"role": "assistant", "content": content(name, answer.strip())})
    text: str = tokenizer.apply_chat_template(
        messages[:-1] if goes_on else messages,
        chat_template=in_form(name).text.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'"),
        tokenize=False,
        add_generation_prompt=goes_on,
        enable_thinking=False,
    )
    return text


def sample(turns: list[tuple[str, str]], image: Path | None = None) -> Sample:
    return Sample("one", image, "", tuple(Turn(*turn) for turn in turns), ("task",) * len(turns), "file.json:3")


def answers(text: EncodedText) -> list[list[int]]:
    """Returns the supervised tokens of each answer."""
    return [
        [int(token) for token in run]
        for is_answer, run in groupby(text.labels, key=lambda token: token != IGNORED_LABEL)
        if is_answer
    ]


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=10, deadline=None)
@given(turns=TURNS)
def test_what_is_read_is_the_library_s_and_what_is_supervised_the_answers_with_their_ends(
    name: str, turns: list[tuple[str, str]]
) -> None:
    processor = PROCESSORS[name]
    tokenizer = processor.tokenizer
    text = processor.encode(sample(turns), NATIVE)
    written = rendered(tokenizer, name, turns, goes_on=False)
    if name == "llava":  # it ends no answer: the end token is put behind each
        parts = [f"USER: {question} ASSISTANT: {answer.strip()}" for question, answer in turns]
        assert written == "".join(f"{part} " for part in parts)
        written = "".join(f"{part}</s> " for part in parts)
    assert text.input_ids.tolist() == tokenizer(written, add_special_tokens=name in PARTS)["input_ids"]
    found = [tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in answers(text)]
    assert [each.removesuffix(ENDS[name]).strip() for each in found] == [answer.strip() for _, answer in turns]
    assert all(ids[-1] == tokenizer.convert_tokens_to_ids(ENDS[name]) for ids in answers(text))


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=6, deadline=None)
@given(turns=TURNS)
def test_a_question_ends_where_the_library_lets_the_model_go_on(name: str, turns: list[tuple[str, str]]) -> None:
    processor = PROCESSORS[name]
    asked = [*turns[:-1], (turns[-1][0], "")]
    text = processor.encode(sample(asked), NATIVE, with_answers=False)
    whole = processor.encode(sample(turns), NATIVE)
    if name != "llava":
        written = rendered(processor.tokenizer, name, asked, goes_on=True)
        assert text.input_ids.tolist() == processor.tokenizer(written, add_special_tokens=name in PARTS)["input_ids"]
    assert len(answers(text)) == len(turns) - 1
    if name != "always_thinking":  # it asks otherwise than it writes what was answered
        assert whole.input_ids[: len(text)].tolist() == text.input_ids.tolist()
        assert whole.labels[: len(text)].tolist() == text.labels.tolist()
        assert whole.spans[len(text)] == Span.ANSWER


@pytest.mark.parametrize("name", FORMS)
def test_pictures_stand_where_the_template_writes_them(name: str) -> None:
    """Two pictures in the first question, none in the second; tokens between them are the library's."""
    processor = PROCESSORS[name]
    image = Path("none.png")
    turns = [("What color?", "red"), ("yes?", "no 7")]
    shown = Sample("one", image, "", tuple(Turn(*turn) for turn in turns), ("", ""), "", further_images=(image,))
    found = processor.encode(shown, NATIVE).input_ids
    written = rendered(processor.tokenizer, name, turns, goes_on=False, images=2)
    if name == "llava":
        written = written.replace("red", "red</s>").replace("no 7", "no 7</s>")
    if name in PARTS:
        library = numpy.array(processor.tokenizer(written)["input_ids"])
        library[library == processor.tokenizer.convert_tokens_to_ids("<image>")] = IMAGE_TOKEN_ID
    else:  # the model has no such token: its text is read in parts
        parts = processor.tokenizer(written.split("<image>"), add_special_tokens=False)["input_ids"]
        library = numpy.concatenate([parts[0], [IMAGE_TOKEN_ID], parts[1], [IMAGE_TOKEN_ID], parts[2]])
    assert found.tolist() == library.tolist()
    assert (processor.encode(shown, NATIVE).spans == Span.IMAGE).sum() == 2


@pytest.mark.parametrize("name", [name for name in FORMS if name not in WITHOUT_SYSTEM])
def test_a_system_text_stands_where_the_template_writes_it(name: str) -> None:
    form = ChatForm(PROCESSORS[name].tokenizer, in_form(name), system="Be brief.")
    turns = [Turn("What color?", "red"), Turn("yes?", "no"), Turn("7?", "12")]
    messages = [{"role": "system", "content": content(name, "Be brief.")}]
    for turn in turns:
        messages.append({"role": "user", "content": content(name, turn.question)})
        messages.append({"role": "assistant", "content": content(name, turn.answer)})
    pieces = form.pieces(turns, ())
    text = "".join(piece.text for piece in pieces)
    assert text.count("Be brief.") == 1
    template = in_form(name).text.replace("strftime_now('%d %b %Y')", "'26 Jul 2024'")
    library = PROCESSORS[name].tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    assert text.replace("</s>", "") == library.replace("</s>", "")
    supervised = [piece.text.removesuffix(ENDS[name]).strip() for piece in pieces if piece.span == Span.ANSWER]
    assert [each for each in supervised if each] == ["red", "no", "12"]


def test_what_the_library_marks_as_generated_is_supervised() -> None:
    """A template that says itself what the model gives says the same, but for the token that ends an answer."""
    generation = CHATML.replace("message.content +", "").replace(
        "{{ '<|im_start|>' + message.role + '\n' +  '<|im_end|>' + '\n' }}",
        "{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
        "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{% else %}"
        "{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}",
    )
    assert "generation %" in generation
    tokenizer = chat_tokenizer()
    processor = Processor(tokenizer, 24, CLIP_MEAN, CLIP_STD, chat_template=ChatTemplate(generation, "here"))
    turns = [("What color?", "red"), ("yes?", "no 7")]
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    library = tokenizer.apply_chat_template(
        messages, chat_template=generation, return_assistant_tokens_mask=True, return_dict=True
    )
    text = processor.encode(sample(turns), NATIVE)
    assert text.input_ids.tolist() == library["input_ids"]
    assert (text.labels != IGNORED_LABEL).astype(int).tolist() == library["assistant_masks"]
