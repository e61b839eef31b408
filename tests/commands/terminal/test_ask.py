"""``m2pt ask``: what it writes is what the model answers; what cannot be asked ends in three lines."""

import json
from pathlib import Path

import pytest
from PIL import Image

from lightning_m2pt.application.model import Model
from lightning_m2pt.main import main
from tests.bad_inputs.refusal import assert_refused

QUESTIONS = ("What is this?", "Is there a red square?", "Which number is it?")
TOKENS = ("--max-new-tokens", "6")


def asked(adapter: Path, picture: Path, *words: str) -> list[str]:
    return ["ask", str(adapter), str(picture), *words, "--base", "testbed", *TOKENS]


def written(capfd: pytest.CaptureFixture[str], words: list[str]) -> list[str]:
    capfd.readouterr()
    assert main(words) == 0
    captured = capfd.readouterr()
    assert "\x1b" not in captured.out
    assert captured.err == ""
    return captured.out.splitlines()


def test_answers_are_the_model_s_a_line_each(
    capfd: pytest.CaptureFixture[str], adapter: Path, pictures: list[Path], model: Model
) -> None:
    found = written(capfd, asked(adapter, pictures[0], *QUESTIONS))
    assert found == model.ask_all([(pictures[0], each) for each in QUESTIONS], max_new_tokens=6)
    assert all(found)


def test_compared_with_the_frozen_model(
    capfd: pytest.CaptureFixture[str], adapter: Path, pictures: list[Path], model: Model
) -> None:
    untouched = model.frozen()
    both = [
        [each.ask(pictures[0], question, max_new_tokens=6) for each in (model, untouched)] for question in QUESTIONS
    ]
    number = next(number for number, (tuned, frozen) in enumerate(both) if tuned != frozen)
    question, (tuned, frozen) = QUESTIONS[number], both[number]
    words = asked(adapter, pictures[0], question, "--compare")
    assert written(capfd, words) == [f"tuned: {tuned}", f"frozen: {frozen}"]
    (line,) = written(capfd, [*words, "--json"])
    assert json.loads(line) == {"question": question, "answer": tuned, "frozen": {"answer": frozen}}


def test_of_candidates_the_likeliest_is_the_answer(
    capfd: pytest.CaptureFixture[str], adapter: Path, pictures: list[Path], model: Model
) -> None:
    candidates = ("no", "yes", "red square")
    words = asked(adapter, pictures[0], *QUESTIONS, "--candidates", "no, yes,red square")
    lines = written(capfd, [*words, "--json"])
    plain = written(capfd, words)
    for number, question in enumerate(QUESTIONS):
        scores = model.score(pictures[0], question, candidates)
        best = max(scores, key=lambda each: scores[each])
        assert json.loads(lines[number]) == {"question": question, "answer": best, "candidates": scores}
        block = plain[4 * number : 4 * number + 4]
        assert block == [best, *(f"  {scores[each]:10.4f}  {each}" for each in candidates)]


def test_what_a_model_says_drives_no_terminal(
    capfd: pytest.CaptureFixture[str], adapter: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "\x1b[2Jcleared\u202e\nsecond [bold]line"
    monkeypatch.setattr(Model, "stream", lambda *_, **__: iter([said[:9], said[9:]]))
    assert written(capfd, asked(adapter, pictures[0], "What?")) == ["\\x1b[2Jcleared\\u202e\\nsecond [bold]line"]
    (line,) = written(capfd, asked(adapter, pictures[0], "What?", "--json"))
    assert json.loads(line)["answer"] == said


@pytest.mark.parametrize(
    ("picture", "words", "named"),
    [
        ("0.png", ("",), ("QUESTION", "empty")),
        ("0.png", ("What?", " "), ("QUESTION", "empty")),
        ("0.png", ("What <image> is it?",), ("QUESTION", "<image>")),
        ("0.png", ("What?", "--candidates", "yes"), ("--candidates", "two different")),
        ("0.png", ("What?", "--candidates", "yes,,no"), ("--candidates",)),
        ("0.png", ("What?", "--candidates", "yes,yes"), ("--candidates",)),
        ("0.png", ("red " * 3000,), ("question", "rows")),
        ("none.png", ("What?",), ("none.png", "PICTURE")),
        ("text.png", ("What?",), ("text.png", "PICTURE")),
        ("cut.png", ("What?",), ("cut.png", "PICTURE")),
        ("0.png", ("What?", "--max-new-tokens", "0"), ("max-new-tokens",)),
        ("0.png", (), ("QUESTION",)),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    adapter: Path,
    pictures: list[Path],
    picture: str,
    words: tuple[str, ...],
    named: tuple[str, ...],
) -> None:
    (tmp_path / "0.png").write_bytes(pictures[0].read_bytes())
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:300])
    assert_refused(capfd, ["ask", adapter, tmp_path / picture, *words, "--base", "testbed"], named, tmp_path)


@pytest.mark.parametrize(
    ("source", "flags", "named"),
    [
        ("no/run", ("--base", "testbed"), ("command line: RUN", "no/run")),
        ("", ("--base", "testbed"), ("folder",)),
        ("ADAPTER", ("--base", "testbed_patch12"), ("another backbone",)),
        ("ADAPTER", ("--base", "/no/such"), ("command line: --base", "/no/such")),
        ("ADAPTER", ("--base", "testbed", "--device", "quantum"), ("command line: --device", "quantum")),
        ("ADAPTER", ("--base", "testbed", "--dtype", "int4"), ("dtype",)),
        ("ADAPTER", ("--base", "testbed", "--revision", "main"), ("revision",)),
    ],
    ids=str,
)
def test_what_cannot_be_loaded_is_refused(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    adapter: Path,
    pictures: list[Path],
    source: str,
    flags: tuple[str, ...],
    named: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lightning_m2pt.application.loading import load

    monkeypatch.setattr("lightning_m2pt.commands.terminal.model.load", load)
    monkeypatch.chdir(tmp_path)
    name = str(adapter) if source == "ADAPTER" else source
    for words in (["ask", name, pictures[0], "What?"], ["chat", name, pictures[0]]):
        assert_refused(capfd, [*words, *flags], named, tmp_path)


def test_a_command_is_told_what_a_command_can_do(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["ask", "nobody/none-such", str(tmp_path / "a.png"), "What?"]) == 2
    shown = capfd.readouterr().err.splitlines()
    assert len(shown) == 3
    assert shown[2].endswith("m2pt models fetch nobody/none-such")
