"""`m2pt data show --rendered`: text and label mask are those of the batch, in the terminal and on the page."""

import re
from html import unescape
from io import StringIO
from pathlib import Path

import numpy
import pytest
from rich.console import Console

from data_modules.vision_flan import VisionFlan
from data_modules.vsr import VSR
from experiments.datasets.rendered_page import page_of_samples
from experiments.datasets.rendered_sample import RenderedSample, Stretch, rendered
from experiments.datasets.rendered_set import rendered_set
from experiments.datasets.rendered_text import BRACKETS, shown_samples
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Span
from lightning_m2pt.inputs.picture_layout import PictureLayout, RunRows
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.main import main
from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD
from tests.support.chat_templates import ENDS, PARTS, TEXT, chat_tokenizer, in_form
from tests.support.small_experiment import small_words

ROWS = RunRows(36, 10)
TURNS = (Turn("What is it?\nA red car?", "It is blue ünd 7"), Turn("yes or no?", "no"))


def data_module(template: str, form: str, chat: str = "") -> VisionFlan:
    """A tuning set, never read, whose model has a tokenizer of bytes or of pieces, and a chat template."""
    module = VisionFlan("nowhere", template, batch_size=1)
    tokenizer = chat_tokenizer(form)
    module.connect(Processor(tokenizer, 24, CLIP_MEAN, CLIP_STD, chat_template=in_form(chat) if chat else None))
    return module


def sample(pictures: int = 1, turns: tuple[Turn, ...] = TURNS) -> Sample:
    image = numpy.zeros((4, 4, 3), numpy.uint8)
    further = tuple(image for _ in range(pictures - 1))
    return Sample("one", image if pictures else None, "p", turns, ("",) * len(turns), "f:1", (), further)


def supervised_texts(shown: RenderedSample) -> list[str]:
    """What is supervised, one text for every run of supervised stretches."""
    runs = [""]
    for stretch in shown.stretches:
        if stretch.is_supervised:
            runs[-1] += stretch.text
        elif runs[-1]:
            runs.append("")
    return [run for run in runs if run]


@pytest.mark.parametrize("form", ["bytes", "pieces"])
@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_the_published_template_is_shown_as_it_is_written(form: str, pictures: int) -> None:
    module = data_module("vicuna_v1", form)
    shown = rendered(sample(pictures), module, ROWS, 500)
    text = "".join(stretch.text for stretch in shown.stretches)
    system = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    assert text.startswith(f"<s>{system}" if form == "bytes" else f"<s> {system}")
    told = "[image x 46]\n" * pictures + "What is it?\nA red car? ASSISTANT: It is blue ünd 7</s>USER: yes or no? "
    told = f"USER: {told}ASSISTANT: no</s>"
    # A tokenizer of pieces puts a mark behind a special token, which the model reads: it is shown as a space.
    assert text.replace("</s> ", "</s>").endswith(told)
    assert supervised_texts(shown) == [" It is blue ünd 7</s>", " no</s>"]
    assert shown.supervised == module.processor.encode(sample(pictures), module.template).supervised_tokens
    assert shown.rows == shown.tokens + 45 * pictures
    assert shown.notes == ()
    specials = {stretch.text for stretch in shown.stretches if stretch.is_special}
    assert specials == {"<s>", "</s>"} or form == "pieces"  # whose bytes are special tokens, too
    assert specials >= {"<s>", "</s>"}


@pytest.mark.parametrize("form", ["bytes", "pieces"])
@pytest.mark.parametrize("name", [*TEXT, *PARTS])
def test_of_a_models_own_template_answers_and_their_ends_stand_out(name: str, form: str) -> None:
    shown = rendered(sample(), data_module("native", form, name), ROWS, 500)
    texts = supervised_texts(shown)
    assert [text.strip() for text in texts] == [
        f"It is blue ünd 7{' ' * (text_before_end(texts[0], name) == ' ')}{ENDS[name]}",
        f"no{' ' * (text_before_end(texts[1], name) == ' ')}{ENDS[name]}",
    ]
    assert [stretch.text for stretch in shown.stretches if stretch.span == Span.IMAGE] == ["[image x 46]"]
    assert any(ENDS[name] in stretch.text and stretch.is_special for stretch in shown.stretches)


def text_before_end(text: str, name: str) -> str:
    """The letter before the end token, which some templates put a space before."""
    return text.strip().removesuffix(ENDS[name])[-1:]


def test_a_picture_of_several_runs_says_all_its_rows() -> None:
    module = data_module("plain", "bytes")
    layout = PictureLayout(numpy.array([7, IMAGE_TOKEN_ID, 8, IMAGE_TOKEN_ID, 9], numpy.int32), (1000, 64))
    module.processor.layouts = lambda sources, where="": [layout] * len(sources)
    shown = rendered(sample(), module, RunRows(0), 500)
    assert [stretch.text for stretch in shown.stretches if stretch.span == Span.IMAGE] == ["[image x 1,067]"]
    assert shown.rows == shown.tokens - 1 + 1067
    assert shown.notes == (f"refused: {shown.rows:,} rows, and the language model takes 500 behind the prompts",)


def test_pictures_side_by_side_are_shown_one_by_one() -> None:
    shown = rendered(sample(2), data_module("plain", "bytes"), ROWS, 500)
    assert [stretch.text for stretch in shown.stretches if stretch.span == Span.IMAGE] == ["[image x 46]"] * 2


def test_what_is_too_long_is_shown_with_the_reason_why_it_is_refused() -> None:
    module = data_module("plain", "bytes")
    module.max_text_length = 20
    shown = rendered(sample(), module, ROWS, 500)
    assert shown.notes == (f"refused: {shown.tokens} tokens, and max_text_length is 20",)
    assert supervised_texts(shown)[0].strip() == "It is blue ünd 7</s>"


def test_a_question_is_shown_as_it_is_asked(tmp_path: Path) -> None:
    VSR.write_fake(tmp_path)
    module = VSR(str(tmp_path), "vicuna_v1")
    module.connect(data_module("plain", "bytes").processor)
    facts, shown = rendered_set(module, 2, ROWS, 500)
    assert len(shown) == 2
    assert all(not supervised_texts(each) and each.stretches[-1].text.endswith("ASSISTANT:") for each in shown)
    assert facts[0].startswith("2 of ")


def printed(samples: list[RenderedSample], **console: object) -> str:
    file = StringIO()
    out = Console(file=file, width=200, **console)
    for block in shown_samples(samples, ["a fact"], out):
        out.print(block)
    return file.getvalue()


def test_without_colours_brackets_say_what_is_supervised() -> None:
    shown = rendered(sample(), data_module("vicuna_v1", "bytes"), ROWS, 500)
    text = printed([shown])
    inside = re.findall(f"{BRACKETS[0]}(.*?){BRACKETS[1]}", text, re.DOTALL)
    assert inside[1:] == supervised_texts(shown)
    assert "[image x 46]↵\nWhat is it?↵\n" in text
    coloured = printed([shown], force_terminal=True, color_system="truecolor")
    assert BRACKETS[0] not in coloured
    assert "\x1b[1;30;42m It is blue ünd 7" in coloured


def test_nothing_in_a_text_reaches_terminal_or_page() -> None:
    evil = "</span><script>alert(1)</script>\x1b[2J\u202e<img src=http://x>"
    shown = RenderedSample(evil, evil, (), (Stretch(evil, Span.ANSWER, is_supervised=True),), 1, 1, 1, (evil,))
    page = page_of_samples(evil, (evil,), [shown])
    assert "<script" not in page
    assert "<img src=http" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    text = printed([shown])
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_page_marks_what_is_supervised_and_holds_its_pictures() -> None:
    shown = rendered(sample(2), data_module("vicuna_v1", "bytes"), ROWS, 500)
    page = page_of_samples("set", ("a fact",), [shown])
    body = page.partition("</ul>")[2].partition("<article")[2]
    marked = re.findall(r'<mark class="taught[^"]*">(.*?)</mark>', body, re.DOTALL)
    assert "".join(map(unescape, marked)) == "".join(supervised_texts(shown))
    assert body.count('src="data:image/png;base64,') == 2
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert '<i class="break">↵</i>\n' in body


def test_the_command_writes_a_page_and_prints_the_same(capfd: pytest.CaptureFixture, tmp_path: Path) -> None:
    words = [*small_words(tmp_path), "--set", "vision_flan", "--rendered", "--count", "2"]
    assert main(["data", "show", *words]) == ExitCode.DONE
    out = capfd.readouterr().out
    page = (tmp_path / "outputs" / "data_show" / "vision_flan.html").read_text()
    assert out.count("of them supervised") == page.count("of them supervised") == 2
    assert "2 of 16 samples to train on" in out
    assert "vision_flan.html" in out
    assert main(["data", "show", *words, "--output", str(tmp_path / "x.png")]) == ExitCode.BAD_INPUT
    assert "is no HTML page" in capfd.readouterr().err
