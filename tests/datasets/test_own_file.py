"""`m2pt data check FILE` and `m2pt data show FILE`: one mistake of each kind is told, and what is left is counted."""

import json
from pathlib import Path

import pytest

from data_modules.conversations import Conversations
from data_modules.reading.files import fake_image, write_image
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main

GOOD = 4


def run(capfd: pytest.CaptureFixture, *words: object) -> tuple[int, str, str]:
    code = main(["data", *map(str, words)])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def record(image: object = "0.png", question: object = "<image>\nWhat is it?", answer: object = "A field.") -> dict:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": [image]}


def spoilt_lines(folder: Path) -> dict[str, tuple[str, str]]:
    """A line with one mistake of each kind, and words that tell it, by kind; its pictures are written to ``folder``."""
    whole = (folder / "0.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "page.png").write_bytes(b"<!DOCTYPE html><html>Not found</html>")
    (folder / "empty.png").write_bytes(b"")
    two_questions = record()
    two_questions["messages"][1]["role"] = "user"
    return {
        "broken JSON": ('{"messages": [', "JSON"),
        "no object": ("[1, 2]", "the record is a list"),
        "an empty answer": (json.dumps(record(answer="")), "empty"),
        "an answer that is no text": (json.dumps(record(answer=7)), "7"),
        "two questions in a row": (json.dumps(two_questions), "user"),
        "more marks than pictures": (json.dumps(record(question="<image><image> What?")), "<image>"),
        "no conversation": (json.dumps({"images": ["0.png"]}), "'messages' is missing"),
        "a name that leads out": (json.dumps(record("../0.png")), "leads out"),
        "an address": (json.dumps(record("https://example.org/0.png")), "address"),
        "a picture cut in half": (json.dumps(record("half.png")), "half.png"),
        "a page instead of a picture": (json.dumps(record("page.png")), "page.png"),
        "an empty picture": (json.dumps(record("empty.png")), "empty.png"),
        "a missing picture": (json.dumps(record("nowhere.png")), "nowhere.png"),
        "a text that is too long": (json.dumps(record(answer="field " * 1100)), "has 1140 tokens"),
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for number in range(GOOD):
        write_image(folder / f"{number}.png", fake_image(number))
    return folder


def test_one_mistake_of_each_kind_is_told_with_its_line(
    capfd: pytest.CaptureFixture, tmp_path: Path, pictures: Path
) -> None:
    spoilt = spoilt_lines(pictures)
    good = [json.dumps(record(f"{number}.png")) for number in range(GOOD)]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join([*good, *(line for line, _ in spoilt.values())]))
    words = ("check", file, "--data.image_root", pictures, "--overlap", "none")
    code, out, err = run(capfd, *words)
    assert code == ExitCode.BAD_INPUT
    assert (out + err).count("note: mine.jsonl: 18 records; columns: image = images") == 1  # read twice, said once
    lines = out.splitlines()
    for place, (kind, (_, told)) in enumerate(spoilt.items(), start=GOOD + 1):
        assert any(f"mine.jsonl:{place}" in line and told in line for line in lines), f"{kind}: {out}"
    assert f"{len(spoilt)} mistakes" in out
    assert "without what is wrong:" in out
    assert f"{GOOD} samples to train on, {GOOD} turns, 1 tasks, {GOOD} pictures" in out
    assert f"{len(spoilt)} of {GOOD + len(spoilt)} records are left out" in out
    assert out.rstrip().endswith("bad Conversations: 14 mistakes, listed above")
    code, out, err = run(capfd, *words, "--format", "json")
    told = json.loads(out)
    assert code == ExitCode.BAD_INPUT
    assert sum(kind["number"] for kind in told["mistakes"]) == len(spoilt)
    assert told["counts"]["samples to train on"] == GOOD
    assert "columns: image = images, conversation = messages" in told["recognised"][0]
    assert "note:" in err


def test_what_the_language_model_has_no_position_for_is_a_mistake(
    capfd: pytest.CaptureFixture, tmp_path: Path, pictures: Path
) -> None:
    long = record("1.png", answer="field " * 460)  # below max_text_length; 46 rows of the picture are more than fit
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, (record(), long))))
    code, out, _ = run(capfd, "check", tmp_path / "mine.jsonl", "--data.image_root", pictures, "--overlap", "none")
    assert code == ExitCode.BAD_INPUT
    assert "mine.jsonl:2: sample 1 has 545 rows with its picture" in out
    assert "at most 502" in out
    assert "2 samples to train on" in out
    assert "positions behind the prompts; 1 too long" in out


def test_a_file_of_questions_is_checked_under_its_rule(
    capfd: pytest.CaptureFixture, tmp_path: Path, pictures: Path
) -> None:
    file = tmp_path / "asked.csv"
    rows = [f"{number}.png,Is it red?,{'yes' if number % 2 else 'no'}" for number in range(GOOD)]
    file.write_text("\n".join(["image,question,answer", *rows]))
    words = ("check", file, "--rule", "yes_no_words", "--data.image_root", pictures, "--overlap", "none")
    code, out, _ = run(capfd, *words)
    assert code == ExitCode.DONE
    assert f"{GOOD} questions, {GOOD} pictures" in out
    assert "of them supervised" not in out
    file.write_text("\n".join(["image,question,answer", *rows, "nowhere.png,Is it red?,perhaps"]))
    code, out, _ = run(capfd, *words)
    assert code == ExitCode.BAD_INPUT
    assert "asked.csv:6" in out
    assert "perhaps" in out


def test_a_file_is_shown_as_the_model_reads_it(capfd: pytest.CaptureFixture, tmp_path: Path) -> None:
    Conversations.write_fake(tmp_path)
    page = tmp_path / "page.html"
    words = (tmp_path / "records.jsonl", "--count", "2", "--output", page, "--template", "plain")
    code, out, _ = run(capfd, "show", *words)
    assert code == ExitCode.DONE
    assert "2 of 8 samples to train on" in out
    assert "template plain" in out
    assert "<h1>records.jsonl</h1>" in page.read_text()
    assert "columns: image = images, conversation = messages" in page.read_text()


@pytest.mark.parametrize("command", ["check", "show"])
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("/no/such.json",), ("/no/such.json", "does not exist")),
        (("a.json", "b.json"), ("'b.json' is a second file",)),
        (("--rule", "exact", "--set", "mme"), ("--rule", "FILE")),
        (("--template", "plain", "--set", "mme"), ("--template", "FILE")),
        (("README.md", "--rule", "exakt"), ("command line: --rule", "'exakt'", "did you mean exact?")),
    ],
    ids=str,
)
def test_wrong_words_end_in_three_lines(
    capfd: pytest.CaptureFixture, command: str, words: tuple[str, ...], named: tuple[str, ...]
) -> None:
    given = [word for word in words if command == "show" or word not in ("--set", "mme")]
    code, out, err = run(capfd, command, *given)
    assert code == ExitCode.BAD_INPUT
    assert not out
    assert len(err.splitlines()) <= 3
    assert all(text in err for text in named), err


def test_the_value_of_a_setting_is_no_file(capfd: pytest.CaptureFixture, tmp_path: Path) -> None:
    Conversations.write_fake(tmp_path)
    words = ("--data.max_text_length", "200", "--overlap", "none", tmp_path / "records.jsonl", "--data.num_workers=0")
    code, out, _ = run(capfd, "check", *words)
    assert code == ExitCode.DONE
    assert "8 samples to train on" in out
    assert " 200 " in out
