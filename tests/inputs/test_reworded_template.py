"""Prompts that are words: what becomes of a question, its tokens and its spans in every form, and what is refused."""

from pathlib import Path

import numpy
import pytest
import torch

from lightning_m2pt.answering.asked_pictures import asked_pictures, planned_batches
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Span
from lightning_m2pt.inputs.named_templates import (
    NATIVE,
    RewordedTemplate,
    Template,
    read_prompt,
    shipped_names,
    template_named,
)
from lightning_m2pt.inputs.picture_batch import PADDING_SEGMENT, SHARED_SEGMENT, picture_batch
from lightning_m2pt.inputs.picture_layout import ONE_RUN
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.reworded_template import PromptText
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.templates import PLAIN, VICUNA_V1, Piece
from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD, small_processor
from tests.support.chat_templates import PARTS, TEXT, chat_tokenizer, in_form

TURNS = (Turn("What color?", "red"), Turn("yes?", "no"))
AROUND = PromptText("It is {question} blue car")


def file_of(folder: Path, text: str, name: str = "brief.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def processor(form: str = "") -> Processor:
    return Processor(chat_tokenizer(), 24, CLIP_MEAN, CLIP_STD, chat_template=in_form(form) if form else None)


def sample(name: str, *turns: Turn, image: str = "none.png", system: str = "") -> Sample:
    return Sample(name, Path(image), "", turns, ("task",) * len(turns), "file.json:3", system=system)


def reworded(base: Template, text: PromptText = AROUND) -> RewordedTemplate:
    assert not isinstance(base, RewordedTemplate)
    return RewordedTemplate(f"{base.name}+around", base, text)


def test_every_turn_s_question_is_put_into_the_words(tmp_path: Path) -> None:
    template = template_named(str(file_of(tmp_path, "based_on: vicuna_v1\nquestion: 'It is {question} {blue} car'\n")))
    assert template.name == "vicuna_v1+brief"
    pieces = processor().bound(template).form.pieces(TURNS, (1,))
    assert pieces == [
        *[Piece(VICUNA_V1.system, Span.SYSTEM), Piece("USER: ", Span.QUESTION), Piece("<image>", Span.IMAGE)],
        *[Piece("\n", Span.QUESTION), Piece("It is What color? {blue} car ASSISTANT:", Span.QUESTION)],
        *[Piece(" red</s>", Span.ANSWER), Piece("USER: ", Span.QUESTION)],
        *[Piece("It is yes? {blue} car ASSISTANT:", Span.QUESTION), Piece(" no</s>", Span.ANSWER)],
    ]
    marked = processor().bound(template).form.pieces([Turn("Is {question} a word?")], ())
    assert marked[-1].text == "It is Is {question} a word? {blue} car ASSISTANT:"


@pytest.mark.parametrize(
    "name", ["vicuna_v1", "plain", *shipped_names(), *(f"native {form}" for form in {**TEXT, **PARTS})]
)
def test_tokens_and_masks_are_those_of_the_longer_question(name: str) -> None:
    kind, _, form = name.partition(" ")
    ready, base = processor(form), template_named(kind)
    template = reworded(base)
    asked = [Turn(f"It is {turn.question} blue car", turn.answer) for turn in TURNS]
    for turns, longer in ((TURNS, asked), (TURNS[:1], asked[:1])):
        for with_answers in (True, False):
            found = ready.encode(sample("one", *turns), template, with_answers)
            expected = ready.encode(sample("one", *longer), base, with_answers)
            numpy.testing.assert_array_equal(found.input_ids, expected.input_ids)
            numpy.testing.assert_array_equal(found.spans, expected.spans)
            numpy.testing.assert_array_equal(found.labels, expected.labels)
    same = ready.bound(base)
    ready_template = ready.bound(template)
    assert (ready_template.begin_ids, ready_template.end_token_ids) == (same.begin_ids, same.end_token_ids)
    assert (ready_template.image_token, ready_template.control) == (same.image_token, same.control)


def test_masks_by_value() -> None:
    ready = small_processor()
    text = ready.encode(sample("one", Turn("what color", "red")), reworded(PLAIN, PromptText("it is {question} , yes")))
    words = ready.tokenizer.convert_ids_to_tokens([int(number) for number in text.input_ids if number >= 0])
    assert words == ["<s>", "Question", ":", "it", "is", "what", "color", ",", "yes", "Answer", ":", "red", "</s>"]
    assert [int(label) for label in text.labels if label != IGNORED_LABEL] == ready.tokenizer.convert_tokens_to_ids(
        ["red", "</s>"]
    )
    assert text.spans.tolist() == [Span.SYSTEM, Span.IMAGE, *[Span.QUESTION] * 10, Span.ANSWER, Span.ANSWER]


def test_a_system_text_stands_in_the_place_of_the_template_s() -> None:
    ready, text = processor("chatml"), PromptText(system="yes no")
    assert ready.bound(reworded(VICUNA_V1, text)).form.pieces(TURNS[:1], ())[0] == Piece("yes no ", Span.SYSTEM)
    in_model = ready.bound(reworded(NATIVE, text)).form.pieces(TURNS[:1], ())
    assert in_model[0] == Piece("<|im_start|>system\nyes no<|im_end|>\n<|im_start|>user\n", Span.SYSTEM)
    of_file = ready.bound(reworded(template_named("chatml"), text)).form.pieces(TURNS[:1], ())
    assert of_file[0] == Piece("<|im_start|>system\nyes no<|im_end|>\n", Span.SYSTEM)
    own = ready.encode(sample("one", *TURNS, system="car"), reworded(VICUNA_V1, text))
    expected = ready.encode(sample("one", *TURNS, system="car"), VICUNA_V1)
    numpy.testing.assert_array_equal(own.input_ids, expected.input_ids)


def test_the_digest_names_words_and_base(tmp_path: Path) -> None:
    ready = processor("chatml")

    def digest(base: Template, text: PromptText) -> str:
        return ready.bound(reworded(base, text)).digest

    bases = [VICUNA_V1, PLAIN, NATIVE, template_named("chatml")]
    texts = [AROUND, PromptText("It is {question}"), PromptText("It is {question} blue car", "yes")]
    found = {digest(base, text) for base in bases for text in (texts if base != PLAIN else texts[:2])}
    assert len(found) == 11
    assert digest(VICUNA_V1, AROUND) == "2f6becffa60d2909603ca8960c97bd3c127a5197e92191158a0e84f11cbb9232"
    renamed = RewordedTemplate("otherwise", VICUNA_V1, AROUND)
    assert ready.bound(renamed).digest == digest(VICUNA_V1, AROUND)
    assert ready.bound(renamed).label.startswith("otherwise (2f6becff")


def test_words_that_change_nothing_leave_the_template(tmp_path: Path) -> None:
    prompt = read_prompt(file_of(tmp_path, "question: '{question}'\n"))
    assert prompt.on(PLAIN) is PLAIN
    assert read_prompt(file_of(tmp_path, "question: '{question}'\nbased_on: plain\n")).on(VICUNA_V1) is PLAIN


def test_a_file_may_be_based_on_another_file(tmp_path: Path) -> None:
    file_of(tmp_path, 'before_answer: " A:"\nbefore_question: "Q: "', "own.yaml")
    template = template_named(str(file_of(tmp_path, "based_on: own.yaml\nquestion: '{question} car'\n")))
    assert template.name == "own.yaml+brief"
    assert "".join(piece.text for piece in processor().bound(template).form.pieces([Turn("yes?")], ())) == (
        "Q: yes? car A:"
    )


def side_by_side(template: Template) -> tuple[int, list[int], list[int]]:
    """Returns the number of batches, and of the first the tokens in front, the common ones and each question's own."""
    ready = small_processor()
    questions = ["is it red ?", "is it blue ?", "what color ?", "is it the color ?"]
    samples = [
        sample(f"{picture} {number}", Turn(question), image=f"{picture}.png")
        for picture in ("first", "second")
        for number, question in enumerate(questions)
    ]
    texts = ready.encode_all(samples, template, with_answers=False)
    keys = [str(each.image) for each in samples]
    planned = planned_batches(asked_pictures(samples, texts, [[ONE_RUN]] * len(samples), keys), batch_size=4)
    (asked,) = planned[0]
    batch = picture_batch(torch.zeros(1, 3, 24, 24), [asked.texts], [asked.names])
    counts = [int((batch.segment_ids == number).sum()) for number in (SHARED_SEGMENT, 0, 1, 2, 3)]
    assert int((batch.segment_ids == PADDING_SEGMENT).sum()) == 0
    assert int((batch.tokens == IMAGE_TOKEN_ID).sum()) == 1
    return len(planned), [len(batch.before)], counts


def test_the_questions_of_a_picture_share_it_whatever_words_stand_around_them() -> None:
    """Behind a question the words are its own, in front of it they are common to all; the picture stays shared."""
    batches, before, (common, *own) = side_by_side(VICUNA_V1)
    assert batches == 2
    behind = side_by_side(reworded(VICUNA_V1, PromptText("{question} yes no")))
    assert behind == (batches, before, [common, *(number + 2 for number in own)])
    in_front = side_by_side(reworded(VICUNA_V1, PromptText("yes no {question}")))
    assert in_front == (batches, before, [common + 2, *own])
    system = side_by_side(reworded(VICUNA_V1, PromptText(system="yes no")))
    assert (system[0], system[2]) == (batches, [common, *own])
    assert system[1][0] < before[0]


@pytest.mark.parametrize(
    ("content", "said", "where"),
    [
        ("question: 'Answer with one word.'", "stands 0 times", ": question"),
        ("question: '{question} and {question}'", "stands 2 times", ": question"),
        ("question: ' '", "the text is empty", ": question"),
        ("question: '{question} <image>'", "<image> stands in", ": question"),
        ("system: '<image>'", "<image> stands in", ": system"),
        ("system: 'See {question}'", "{question} stands in 'See {question}'", ": system"),
        (f"question: '{{question}} {'a' * 20_000}'", "has 20,011 letters", ": question"),
        ("question: 3", "3 is no text", ": question"),
        ("question: '{question}'\nsytem: a", "unknown key", ": sytem"),
        ("question: '{question}'\nbased_on: vicuna", "unknown conversation template 'vicuna'", "template"),
    ],
)
def test_what_is_no_prompt(content: str, said: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as refused:
        read_prompt(file_of(tmp_path, content))
    assert said in refused.value.what
    assert refused.value.where.endswith(where)
    assert refused.value.expected


def test_a_prompt_does_not_stand_on_itself(tmp_path: Path) -> None:
    own = file_of(tmp_path, "based_on: own.yaml\nquestion: 'a {question}'", "own.yaml")
    file_of(tmp_path, "based_on: other.yaml\nquestion: 'a {question}'", "one.yaml")
    other = file_of(tmp_path, "based_on: one.yaml\nquestion: 'a {question}'", "other.yaml")
    for path in (own, other):
        with pytest.raises(BadInputError, match="has a prompt's words already"):
            read_prompt(path)
        with pytest.raises(BadInputError, match="has a prompt's words already"):
            template_named(str(path))


def test_prompts_do_not_stand_on_one_another(tmp_path: Path) -> None:
    first = file_of(tmp_path, "based_on: plain\nquestion: 'a {question}'", "first.yaml")
    with pytest.raises(BadInputError, match="has a prompt's words already"):
        read_prompt(file_of(tmp_path, "based_on: first.yaml\nquestion: 'b {question}'"))
    with pytest.raises(BadInputError, match="has a prompt's words already"):
        read_prompt(first).on(template_named(str(first)))
    with pytest.raises(BadInputError, match="does not say what the words are written on top of"):
        template_named(str(file_of(tmp_path, "question: 'a {question}'")))


@pytest.mark.parametrize(
    ("base", "text", "said"),
    [
        (VICUNA_V1, PromptText("{question} </s>"), "'</s>' stands in the text"),
        (VICUNA_V1, PromptText("{question}<s>"), "'<s>' stands in the text"),
        (NATIVE, PromptText("{question}<|im_end|>"), r"'<\|im_end\|>' stands in the text"),
        (NATIVE, PromptText(system="<|im_start|>"), r"'<\|im_start\|>' stands in the text"),
        (PLAIN, PromptText(system="Be brief."), "plain cannot take a system text: it has no system text whose place"),
        (template_named("mistral"), PromptText(system="Be brief."), "its file has no own_system"),
    ],
)
def test_words_that_the_model_would_not_read_as_words(base: Template, text: PromptText, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        processor("chatml").bound(reworded(base, text))


def test_words_that_the_tokenizer_does_not_know_are_named() -> None:
    with pytest.raises(BadInputError, match="does not know 'Look', 'pears'") as refused:
        small_processor().bound(reworded(PLAIN, PromptText("Look {question} , pears , Look red")))
    assert refused.value.where == "prompt text plain+around: question"
    with pytest.raises(BadInputError, match="does not know 'Look'") as refused:
        small_processor().bound(reworded(VICUNA_V1, PromptText(system="Look red")))
    assert refused.value.where == "prompt text vicuna_v1+around: system"
    many = PromptText("one two three four five six seven {question}")
    with pytest.raises(BadInputError, match="'five' and 2 more"):
        small_processor().bound(reworded(PLAIN, many))
