"""Templates of YAML files: their words, the forms that come with the package, and files that are no template."""

import typing
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Span
from lightning_m2pt.inputs.named_templates import (
    TEMPLATES,
    NativeTemplate,
    TemplateName,
    shipped_names,
    template_named,
)
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.templates import Piece
from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD
from tests.support.chat_templates import TEXT, chat_tokenizer, in_form

OWN = """\
system: "Be brief. "
before_question: "Q: "
image: "(<image>) "
before_answer: " A: "
end_of_answer: "<|end|>"
after_answer: "|"
"""
TURNS = (Turn("What color?", " red\n"), Turn("yes?", "no"))


def processor(begins: bool = True, **settings: typing.Any) -> Processor:
    return Processor(chat_tokenizer(begins=begins), 24, CLIP_MEAN, CLIP_STD, **settings)


def sample(*turns: Turn) -> Sample:
    return Sample("one", Path("none.png"), "", turns, ("task",) * len(turns), "file.json:3")


def file_of(folder: Path, text: str) -> str:
    (folder / "own.yaml").write_text(text)
    return str(folder / "own.yaml")


def test_a_file_s_texts_stand_where_they_say(tmp_path: Path) -> None:
    template = template_named(file_of(tmp_path, OWN))
    assert template.name == "own.yaml"
    ready = processor().bound(template)
    assert ready.form.pieces(TURNS, (1,)) == [
        Piece("Be brief. ", Span.SYSTEM),
        *[Piece("Q: ", Span.QUESTION), Piece("(", Span.QUESTION), Piece("<image>", Span.IMAGE)],
        *[Piece(") ", Span.QUESTION), Piece("What color? A:", Span.QUESTION), Piece(" red<|end|>", Span.ANSWER)],
        *[Piece("|", Span.QUESTION), Piece("Q: ", Span.QUESTION), Piece("yes? A:", Span.QUESTION)],
        *[Piece(" no<|end|>", Span.ANSWER), Piece("|", Span.QUESTION)],
    ]
    assert "".join(piece.text for piece in ready.form.pieces((Turn("What?"),), ())) == "Be brief. Q: What? A:"


def test_a_file_s_tokens(tmp_path: Path) -> None:
    ready = processor()
    tokenizer, template = ready.tokenizer, template_named(file_of(tmp_path, OWN))
    text = ready.encode(sample(*TURNS), template)
    ids = [token for token in text.input_ids.tolist() if token != IMAGE_TOKEN_ID]
    assert tokenizer.decode(ids) == "<s>Be brief. Q: () What color? A: red<|end|>|Q: yes? A: no<|end|>|"
    supervised = [label for label in text.labels if label != IGNORED_LABEL]
    assert tokenizer.decode(supervised) == " red<|end|> no<|end|>"
    end, own = tokenizer.convert_tokens_to_ids("<|end|>"), tokenizer.eos_token_id
    assert ready.bound(template).end_token_ids == (end, own)
    with pytest.raises(BadInputError, match=r"'<\|end\|>' inside its text"):
        ready.encode(sample(Turn("What <|end|>?", "red")), template)
    own_end = template_named(file_of(tmp_path, 'before_answer: " A:"'))
    assert ready.bound(own_end).end_token_ids == (own,)
    begun = template_named(file_of(tmp_path, 'system: "<s>Hi. "\nbefore_answer: " A:"'))
    assert ready.encode(sample(*TURNS), begun).input_ids.tolist().count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_form_is_its_family_s(name: str) -> None:
    """Against the family's template as the model brings it."""
    family = name.replace("_", "")
    native = in_form(family)
    text = TEXT[family].replace("Be helpful.", "You are a helpful assistant.")
    text = text.replace("'<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + day + '\n\n'", "''")
    text = text.replace("{{- '' }}", "").replace("{%- endif %}{{- '<|eot_id|>' }}", "{%- endif %}")
    text = text.replace("{% else %}{{ eos_token }}{% endif %}", "{% endif %}")
    ready = processor(chat_template=type(native)(text, native.source))
    turns = (Turn("What color?", "red"), Turn("yes?", "no 7"), Turn("7?", "12"))
    begins = "bos_token" in text
    for asked in (turns, (*turns[:-1], Turn("7?"))):
        ours = ready.encode(sample(*asked), template_named(name), with_answers=asked is turns)
        library = ready.encode(sample(*asked), TEMPLATES["native"], with_answers=asked is turns)
        skipped = 0 if begins else 1  # the tokenizer begins every text, the template none
        assert ours.input_ids[skipped:].tolist() == library.input_ids.tolist()
        assert ours.labels[skipped:].tolist() == library.labels.tolist()


DIGESTS = {
    "chatml": "028f70e1639b32ea",
    "llama_3": "413d0249be97d2ab",
    "phi_3": "3c142cf0239289cc",
}


@pytest.mark.parametrize("name", ["chatml", "llama_3", "phi_3"])
def test_a_record_s_own_system_text_stands_as_the_family_writes_it(name: str) -> None:
    native = in_form(name.replace("_", ""))
    text = TEXT[name.replace("_", "")].replace("Today Date: ' + day + '\n\n'", "'")
    text = text.replace("{% else %}{{ eos_token }}{% endif %}", "{% endif %}")
    ready = processor(chat_template=type(native)(text, native.source))
    template, begins = template_named(name), "bos_token" in text
    for asked in (TURNS, (*TURNS[:-1], Turn("yes?"))):
        spoken = replace(sample(*asked), system="Answer in one word.")
        ours = ready.encode(spoken, template, with_answers=asked is TURNS)
        library = ready.encode(spoken, TEMPLATES["native"], with_answers=asked is TURNS)
        assert ours.input_ids[0 if begins else 1 :].tolist() == library.input_ids.tolist()
        assert ours.labels[0 if begins else 1 :].tolist() == library.labels.tolist()
    assert template.digest().startswith(DIGESTS[name]), "runs of before have this name"
    assert not replace(template, own_system="<system>").digest().startswith(DIGESTS[name])


def test_a_file_says_what_stands_around_a_system_text(tmp_path: Path) -> None:
    template = template_named(file_of(tmp_path, OWN + 'own_system: "[<system>] "\n'))
    pieces = processor().bound(template).form.pieces(TURNS, (1,), "Be long.")
    assert pieces[0] == Piece("[Be long.] ", Span.SYSTEM)
    assert pieces[1:] == template_named(file_of(tmp_path, OWN)).pieces(TURNS, (1,))[1:]
    with pytest.raises(BadInputError, match="one of system and own_system begins with <s>"):
        processor().bound(template_named(file_of(tmp_path, OWN + 'own_system: "<s><system>"\n')))


def test_names_are_the_files_there_are() -> None:
    choices = typing.get_args(typing.get_args(TemplateName)[0])
    assert list(choices) == [*TEMPLATES, *shipped_names()]
    with pytest.raises(BadInputError, match="unknown conversation template 'vicuna_v2'") as refused:
        template_named("vicuna_v2")
    assert "vicuna_v1, plain, native, chatml" in refused.value.expected


def test_the_model_s_own_template_with_a_system_s_text(tmp_path: Path) -> None:
    template = template_named(file_of(tmp_path, 'native: true\nsystem: "Be brief."\n'))
    assert template == NativeTemplate("own.yaml", "Be brief.")
    ready = processor(chat_template=in_form("chatml"))
    text = ready.tokenizer.decode(ready.encode(sample(Turn("What?", "red")), template).input_ids.clip(0))
    assert "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n" in text
    assert "helpful" not in text
    assert ready.bound(template).digest != ready.bound(TEMPLATES["native"]).digest
    refusing = processor(chat_template=in_form("gemma"))
    with pytest.raises(BadInputError, match="System role not supported"):
        refusing.bound(template)


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("before_answer: x\nbefor_question: y\n", "befor_question", "unknown key"),
        ("before_answer: 7\n", "before_answer", "7 is no text"),
        ("system: x\n", "before_answer", "does not say"),
        ("before_answer: x\nimage: here\n", "image", "the mark"),
        ("before_answer: x<image>\n", "image", "the mark"),
        ("native: maybe\n", "native", "no switch"),
        ("native: true\nbefore_answer: x\n", "before_answer", "takes no"),
        ('before_answer: "a"\nown_system: "Hi."\n', "own_system", "<system> has to stand once"),
        ("native: true\nsystem: 7\n", "system", "no text"),
        ("- a\n", "own.yaml", "no keys"),
        ("before_answer: x\nbefore_answer: y\n", "before_answer", "also written"),
    ],
)
def test_a_file_that_is_no_template_is_refused(tmp_path: Path, text: str, where: str, said: str) -> None:
    with pytest.raises(BadInputError, match=said) as refused:
        template_named(file_of(tmp_path, text))
    assert where in refused.value.where
    assert "own.yaml" in refused.value.where


def test_a_missing_file_and_an_end_that_is_no_token_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No such file"):
        template_named(str(tmp_path / "none.yaml"))
    template = template_named(file_of(tmp_path, OWN.replace("<|end|>", "THE END")))
    with pytest.raises(BadInputError, match="'THE END' is no special token") as refused:
        processor().bound(template)
    assert "<|im_end|>" in refused.value.expected


def test_the_page_s_example_is_a_template(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    pieces = processor().bound(template_named(file_of(tmp_path, example))).form.pieces(TURNS[:1], (1,))
    assert "".join(piece.text for piece in pieces) == "Be brief. USER: <image>\nWhat color? ASSISTANT: red</s> "
