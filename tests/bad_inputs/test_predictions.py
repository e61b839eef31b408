"""Bad prediction files, and questions to them that cannot be answered: `score`, `export`, `judge`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_m2pt.main import main
from tests.bad_inputs.refusal import assert_refused
from tests.support.answers.prediction_files import (
    header_of,
    mme_predictions,
    mnist_predictions,
    pope_predictions,
    row_of,
    vsr_predictions,
    written,
)

Lines = list[dict[str, Any]]
FILE, THIRD = "vsr.jsonl", "vsr.jsonl:3"
VSR = vsr_predictions(("yes", "no"), questions=6)
HTML = b"<!DOCTYPE html><html><body>404</body></html>\n"


def put(line: int, key: str, value: object) -> Callable[[Lines], object]:
    return lambda lines: lines[line].update({key: value})


def drop(line: int, key: str) -> Callable[[Lines], object]:
    return lambda lines: lines[line].pop(key)


def key_cases() -> dict[str, tuple[Callable[[Lines], object], tuple[str, ...]]]:
    cases: dict[str, tuple[Callable[[Lines], object], tuple[str, ...]]] = {}
    for key in ("format", "benchmark", "template", "data_revision", "default_rule"):
        cases[f"header without {key}"] = drop(0, key), (f"{FILE}:1", key)
    for key in ("format", "benchmark", "decoding", "data_revision", "default_rule", "toggles", "classes"):
        cases[f"header whose {key} is null"] = put(0, key, None), (f"{FILE}:1", key)
        cases[f"header whose {key} is a float"] = put(0, key, 1.5), (f"{FILE}:1", key)
    for key in ("id", "set", "question", "answer", "target"):
        cases[f"prediction without {key}"] = drop(2, key), (THIRD, key)
        cases[f"prediction whose {key} is null"] = put(2, key, None), (THIRD, key)
        cases[f"prediction whose {key} is a number"] = put(2, key, 7), (THIRD, key)
        cases[f"prediction whose {key} is a list"] = put(2, key, ["yes"]), (THIRD, key)
    return cases


RECORDS = key_cases() | {
    "a newer format": (put(0, "format", 2), (f"{FILE}:1", "format")),
    "a rule nobody knows": (put(0, "default_rule", "yes_no"), (FILE, "yes_no")),
    "another set's rule": (put(0, "default_rule", "mme_official"), ("mme_official",)),
    "a set nobody knows": (put(0, "benchmark", "vsrr"), (FILE, "vsrr")),
    "an id twice": (lambda lines: lines.append(lines[2]), (f"{FILE}:8", "twice")),
    "a second header": (lambda lines: lines.append(lines[0]), (f"{FILE}:8", "header")),
    "no header": (lambda lines: lines.pop(0), (f"{FILE}:1",)),
    "no prediction": (lambda lines: lines.__delitem__(slice(1, None)), (FILE,)),
    "a prediction of another set": (put(3, "set", "pope"), (f"{FILE}:4", "pope")),
    "a target that is no answer": (put(2, "target", "maybe"), ("maybe",)),
    "fewer than the header says": (put(0, "questions", 7), (FILE, "7")),
    "more than the header says": (put(0, "questions", 3), (FILE, "3")),
    "an answer with half a character": (put(2, "target", "\ud800"), (THIRD, "target")),
    "a target that drives a terminal": (put(2, "target", "\x1b[2J\a"), ()),
    "log-probabilities that are a text": (put(2, "log_probabilities", "x"), (THIRD, "log_probabilities")),
    "log-probabilities that are infinite": (put(2, "log_probabilities", {"yes": 1e999}), (THIRD,)),
    "a header of a header": (put(0, "decoding", {"dtype": 7}), (f"{FILE}:1",)),
}
BYTES: dict[str, tuple[Callable[[bytes], bytes], tuple[str, ...]]] = {
    "empty": (lambda _: b"", (FILE,)),
    "white space": (lambda _: b"\n\n", (FILE,)),
    "HTML": (lambda _: HTML, (f"{FILE}:1",)),
    "cut off": (lambda data: data[:-9], (FILE,)),
    "cut in the header": (lambda data: data[:30], (FILE,)),
    "an empty line": (lambda data: data.replace(b"\n", b"\n\n", 1), (f"{FILE}:2",)),
    "NUL bytes": (lambda data: data + b"\0" * 100 + b"\n", (f"{FILE}:8",)),
    "not UTF-8": (lambda data: data + b'{"id": "\xff"}\n', (FILE,)),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), (FILE,)),
    "deep": (lambda data: data + b"[" * 100_000 + b"\n", (f"{FILE}:8",)),
    "a huge number": (lambda data: data + b'{"id": ' + b"9" * 10_000 + b"}\n", (f"{FILE}:8",)),
    "no number": (lambda data: data + b'{"id": NaN}\n', (f"{FILE}:8",)),
    "a list": (lambda data: data + b"[]\n", (f"{FILE}:8",)),
    "a key twice": (lambda data: data.replace(b'{"id":', b'{"id": "x", "id":', 1), (f"{FILE}:2", "id")),
    "one JSON list": (lambda data: b"[" + b",".join(data.splitlines()) + b"]\n", (FILE,)),
    "a pickle": (lambda _: b"\x80\x04cos\nsystem\n(S'touch ran'\ntR.\n", (FILE,)),
    "gzip": (lambda _: b"\x1f\x8b\x08\0" + bytes(40), (FILE,)),
}


def lines_of(content: Any) -> Lines:
    return [dict(line) for line in (content.header, *content.predictions)]


def store(lines: Lines, path: Path) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("name", RECORDS)
def test_a_bad_line_is_refused_by_its_number(tmp_path, capfd, name):
    change, named = RECORDS[name]
    lines = lines_of(VSR)
    change(lines)
    assert_refused(capfd, ["score", store(lines, tmp_path / FILE)], named, tmp_path)


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("verb", ["score", "export", "judge"])
def test_bad_bytes_are_refused_whoever_reads_them(tmp_path, capfd, verb, name):
    change, named = BYTES[name]
    path = written(VSR, tmp_path / FILE)
    path.write_bytes(change(path.read_bytes()))
    words = {
        "score": ["score", path],
        "export": ["export", "predictions", path, "--format", "pope_official", "--output", tmp_path / "out"],
        "judge": ["judge", path, "--model", "lightning_m2pt/embedded/testbed/language"],
    }
    assert_refused(capfd, words[verb], named, tmp_path)


def changed_ids(name: str) -> tuple[Lines, tuple[str, ...]]:
    lines = lines_of(VSR)
    if name == "fewer":
        return lines[:-1], ("test/5",)
    if name == "more":
        return [*lines, dict(lines[-1], id="test/99")], ("test/99",)
    if name == "another question":
        lines[2]["question"] = "Is it blue?"
    elif name == "another answer is right":
        lines[2]["target"] = {"yes": "no", "no": "yes"}[lines[2]["target"]]
    elif name == "another picture":
        lines[2]["image_id"] = "x.jpg"
    return lines, ("test/1",)


@pytest.mark.parametrize("name", ["fewer", "more", "another question", "another answer is right", "another picture"])
def test_files_of_other_questions_are_not_compared(tmp_path, capfd, name):
    lines, named = changed_ids(name)
    other = store(lines, tmp_path / FILE)
    whole = written(VSR, tmp_path / "whole" / FILE)
    assert_refused(capfd, ["score", whole, "--against", other], named, tmp_path)


def mme(change: Callable[[Lines], object]) -> Lines:
    lines = lines_of(mme_predictions(("Yes", "No"), images=2))
    change(lines)
    return lines


OF_SETS: dict[str, tuple[Lines, tuple[str, ...]]] = {
    "mme: a picture with one answer": (mme(lambda lines: lines.pop(1)), ("existence",)),
    "mme: a picture with three answers": (mme(lambda lines: lines.append(dict(lines[1], id="x"))), ("existence",)),
    "mme: an unknown subtask": (mme(put(1, "subtask", "colour")), ("colour",)),
    "mme: no subtask": (mme(put(1, "subtask", "")), ("subtask",)),
    "mme: another target": (mme(put(1, "target", "Perhaps")), ("Perhaps",)),
    "mnist: a target beyond its classes": (
        [mnist_predictions().header, *(dict(row, target="ten") for row in mnist_predictions().predictions)],
        ("ten",),
    ),
    "mnist: no classes": ([dict(mnist_predictions().header, classes=[]), *mnist_predictions().predictions], ("class",)),
    "mnist: a class twice": (
        [dict(mnist_predictions().header, classes=["0", "0", *"123456789"]), *mnist_predictions().predictions],
        ("class",),
    ),
    "mine: no rule of its own": (
        [header_of("vsr") | {"benchmark": "mine", "default_rule": None}, row_of("mine", "1", "", "?", "a", "b", "i")],
        ("rule",),
    ),
}


@pytest.mark.parametrize("name", OF_SETS)
def test_what_a_sets_rule_cannot_score_is_refused(tmp_path, capfd, name):
    lines, named = OF_SETS[name]
    assert_refused(capfd, ["score", store([dict(line) for line in lines], tmp_path / "x.jsonl")], named, tmp_path)


def test_the_untouched_files_are_right(tmp_path, capfd):
    for content in (VSR, mme_predictions(("Yes", "No"), images=2), pope_predictions(("yes",)), mnist_predictions()):
        assert main(["score", str(written(content, tmp_path / FILE))]) == 0
    capfd.readouterr()
