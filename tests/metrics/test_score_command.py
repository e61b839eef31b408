"""``m2pt score``: several rules on several files, what fits, and errors of three lines; torch stays away."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.metrics.predictions import check_same_questions, read_predictions
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.report.tables.scores import score_table
from lightning_m2pt.runs.scoring import score_under
from tests.metrics.test_every_rule import CLASSES, answered

POPE_RULES = ["pope_official", "pope_lmms", "pope_vlmevalkit"]


def prediction_file(folder: Path, name: str, default_rule: str, answers: tuple[str, ...], **others: object) -> Path:
    header = {
        "format": 1,
        "benchmark": name,
        "template": "vicuna_v1",
        "decoding": {},
        "data_revision": "0" * 64,
        "adapter": None,
        "default_rule": default_rule,
        "toggles": {},
        "classes": CLASSES.get(name, []),
        **others,
    }
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [header, *answered(name, answers)]))
    return path


@pytest.fixture
def pope(tmp_path: Path) -> Path:
    return prediction_file(tmp_path, "pope", "pope_official", ("Yes, a dog.", "no", "I cannot tell"))


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    return prediction_file(tmp_path, "mnist", "closed_set", ("seven", "7 or 1"))


def scored(capsys: pytest.CaptureFixture, *arguments: str) -> list[dict[str, Any]]:
    assert main(["score", *arguments, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert all(line["parsed"] is None for line in scores)
    return scores


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    assert main(["score", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().split("\n")) <= 3
    return captured.err


def test_several_rules_on_several_files(pope: Path, mnist: Path, capsys: pytest.CaptureFixture) -> None:
    default = scored(capsys, str(pope), str(mnist))
    assert [(line["benchmark"], line["rule"]) for line in default] == [
        ("pope", "pope_official"),
        ("mnist", "closed_set"),
    ]
    several = scored(capsys, str(pope), str(mnist), "--rule", "exact", "vqa_words")
    assert [(line["benchmark"], line["rule"]) for line in several] == [
        (name, rule) for name in ("pope", "mnist") for rule in ("exact", "vqa_words")
    ]
    assert {line["rule"]: line["value"] for line in several if line["benchmark"] == "mnist"} == {
        "exact": 0,
        "vqa_words": 20,
    }


def test_all_is_every_rule_that_fits_each_file_once(pope: Path, mnist: Path, capsys: pytest.CaptureFixture) -> None:
    rules = [line["rule"] for line in scored(capsys, str(pope), "--rule", "exact", "all")]
    assert rules[:4] == ["exact", *POPE_RULES]
    assert len(rules) == len(set(rules))
    assert not {"closed_set", "mme_official", "vqa_accuracy"} & set(rules)
    rules = [line["rule"] for line in scored(capsys, str(mnist), "--rule", "all")]
    assert rules == ["closed_set", "has_word", "exact_ehub", "vqa_words", "vqa_normalised", "exact"]


def test_a_table_shows_every_rule(pope: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["score", str(pope), "--rule", *POPE_RULES]) == 0
    table = capsys.readouterr().out
    assert all(rule in table for rule in POPE_RULES)


def test_a_narrow_table_cuts_no_name(pope: Path) -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(score_table(score_under(pope, POPE_RULES)))
    columns = zip(*(line.split("│")[1:3] for line in console.export_text().splitlines() if "│" in line), strict=True)
    names, rules = ("".join(map(str.strip, column)) for column in columns)
    assert "…" not in names + rules
    assert rules == "".join(POPE_RULES)


def test_a_rule_that_does_not_fit_names_those_that_do(mnist: Path, pope: Path, capsys: pytest.CaptureFixture) -> None:
    message = refused(capsys, str(mnist), "--rule", "mme_lmms")
    assert "mnist.jsonl" in message
    assert "mme_lmms does not fit: unknown MME subtask" in message
    assert "rules that fit this set: closed_set, has_word, exact_ehub, vqa_words, vqa_normalised, exact\n" in message
    assert "closed_set does not fit: the header names no classes" in refused(capsys, str(pope), "--rule", "closed_set")
    assert "vqa_accuracy does not fit" in refused(capsys, str(pope), "--rule", "all", "vqa_accuracy")
    message = refused(capsys, str(mnist), "--rule", "pope_lmm")
    assert "unknown scoring rule 'pope_lmm'" in message
    assert "did you mean pope_lmms?" in message


def test_help_lists_every_rule_and_its_sets(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as ended:
        main(["score", "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.split("\n")
    for name, rule in RULES.items():
        (shown,) = [line for line in lines if line.split()[:1] == [name]]
        assert rule.about in shown
        assert all(known in shown for known in rule.default_of)


@pytest.mark.parametrize("arguments", [["--help"], ["FILE", "--rule", "all"]])
def test_scoring_imports_no_torch(pope: Path, arguments: list[str]) -> None:
    given = [str(pope) if word == "FILE" else word for word in arguments]
    program = (
        "import sys, lightning_m2pt.main as m\n"
        f"try: m.main(['score', *{given!r}])\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join(n for n in ('torch', 'lightning', 'transformers', 'numpy') if n in sys.modules) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "pope_vlmevalkit" in ended.stdout


def test_files_are_compared_with_another_ones_questions(
    pope: Path, mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = pope.read_text().splitlines(keepends=True)
    shuffled, short = tmp_path / "shuffled.jsonl", tmp_path / "short.jsonl"
    shuffled.write_text("".join([lines[0], *reversed(lines[1:])]))
    short.write_text("".join([lines[0], *lines[1:5], *lines[6:]]))
    assert scored(capsys, str(shuffled), "--against", str(pope)) == scored(capsys, str(pope))
    message = refused(capsys, str(short), "--against", str(pope))
    assert "short.jsonl: the file has no answer to 'pope/4' (1 missing, 0 too many)" in message
    message = refused(capsys, str(pope), "--against", str(short))
    assert "pope.jsonl: the file answers 'pope/4', which was not asked (0 missing, 1 too many)" in message
    assert "(12 missing, 10 too many)" in refused(capsys, str(mnist), "--against", str(pope))


def test_the_first_missing_question_is_named_in_the_sets_order() -> None:
    predictions = [{"id": name} for name in ("c", "x", "a")]
    check_same_questions(predictions, ["a", "c", "x"], "here")
    with pytest.raises(BadInputError, match=r"here: the file has no answer to 'd' \(2 missing, 1 too many\)"):
        check_same_questions(predictions, ["d", "a", "b", "c"], "here")


def test_a_header_that_counts_its_questions_is_held_to_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    answers = ("yes",)
    assert (
        len(read_predictions(prediction_file(tmp_path, "vsr", "yes_no_words", answers, questions=7)).predictions) == 7
    )
    for counted in (8, 6, "7", None, True):
        path = prediction_file(tmp_path, "vsr", "yes_no_words", answers, questions=counted)
        message = refused(capsys, str(path))
        assert f"the header says {counted!r} questions, and 7 predictions follow" in message
