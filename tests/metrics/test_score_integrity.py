"""A prediction file stands for one whole set under one header, and every score and mean says what it is over."""

import io
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from callbacks.predictions import prediction_header
from data_modules.vsr import VSR
from experiments.sweep.table import row_of as sweep_row
from lightning_m2pt.answering.partial_predictions import refuse_other_header
from lightning_m2pt.commands.report import read_groups
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.metrics.known_sizes import REVISIONS, other_revision
from lightning_m2pt.metrics.means import MMAVG_MEMBERS
from lightning_m2pt.metrics.predictions import PredictionFile, check_paired, read_predictions
from lightning_m2pt.metrics.score import Score, score
from lightning_m2pt.report.page.comparison import Scores
from lightning_m2pt.report.tables.formats import FORMAT_NAMES
from lightning_m2pt.report.tables.formats import formatted as written_table
from lightning_m2pt.report.tables.frozen_and_tuned import comparison_table
from lightning_m2pt.report.tables.groups import score_report
from lightning_m2pt.runs.scoring import score_under
from tests.support.answers.evaluated_folders import pope_questions, vsr_questions, write_predictions
from tests.support.answers.prediction_files import header_of, pope_predictions, row_of, vsr_predictions, written

VSR_FILE = vsr_predictions(("yes", "no"), questions=6)
Change = Callable[[list[dict[str, Any]]], object]


def refusal(capsys: pytest.CaptureFixture, *words: str) -> str:
    """Returns the message of a command that is refused in three lines at most."""
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().split("\n")) <= 3
    return captured.err


def lines_of(content: PredictionFile = VSR_FILE) -> list[dict[str, Any]]:
    return [dict(line) for line in (content.header, *content.predictions)]


def set_key(line: int, key: str, value: object) -> Change:
    return lambda lines: lines[line].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_key(3, "set", "pope"), r"vsr\.jsonl:4: set: this is a prediction of 'pope'"),
        (lambda lines: lines.extend(lines_of(pope_predictions(("yes",)))[1:]), r"vsr\.jsonl:8: set: .* 'pope'"),
        (lambda lines: lines.extend(lines_of()), r"vsr\.jsonl:8: this is a second header"),
        (lambda lines: lines.append(lines[2]), r"vsr\.jsonl:8: the id 'test/1' is there twice"),
        (lambda lines: lines.pop(0), r"vsr\.jsonl:1: the format is None"),
        (set_key(0, "questions", 7), "the header says 7 questions, and 6 predictions follow"),
        (set_key(0, "decoding", "greedy"), r"vsr\.jsonl:1: decoding: the value is 'greedy'"),
        (set_key(0, "toggles", None), r"vsr\.jsonl:1: toggles: the value is None"),
        (set_key(0, "classes", "cat"), r"vsr\.jsonl:1: classes: the value is 'cat'"),
        (set_key(0, "examples", [4]), r"vsr\.jsonl:1: examples: the value is \[4\]"),
        (set_key(0, "examples", {"shots": "4"}), r"vsr\.jsonl:1: shots: the value is '4'"),
        (set_key(0, "of_questions", 1e3), r"vsr\.jsonl:1: of_questions: the value is 1000\.0"),
        (set_key(2, "log_probabilities", {"yes": math.nan}), r"vsr\.jsonl:3: .* NaN is no JSON number"),
        (set_key(2, "log_probabilities", {"yes": "-1"}), r"vsr\.jsonl:3: log_probabilities: the value is"),
        (set_key(2, "answer", 7), r"vsr\.jsonl:3: answer: the value is 7"),
        (set_key(2, "target", "\ud800"), r"vsr\.jsonl:3: target: the text holds half a character"),
    ],
)
def test_a_file_of_anything_else_than_one_set_is_refused(tmp_path: Path, change: Change, expected: str) -> None:
    lines = lines_of()
    change(lines)
    path = tmp_path / "vsr.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BadInputError, match=expected) as caught:
        read_predictions(path)
    assert len(str(caught.value).split("\n")) <= 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: b"", "is empty"),
        (lambda text: b"\n" + text, "vsr.jsonl:1: this is not valid JSON"),
        (lambda text: b"\xef\xbb\xbf" + text, "vsr.jsonl:1: this is not valid JSON"),
        (lambda text: text.decode().encode("utf-16"), "this is not UTF-8 text"),
        (lambda text: text[:-1], "the last line is cut off"),
        (lambda text: text + b"\n", "vsr.jsonl:8: this is not valid JSON"),
        (lambda text: text + b"\0" * 4096, "the last line is cut off"),
        (lambda text: text.replace(b'"id": "test/0"', b'"id": "test/0", "id": "x"'), "vsr.jsonl:2: the key 'id' is"),
        (lambda text: text + b'{"id": ' * 5000 + b"\n", "vsr.jsonl:8: the JSON is nested too deeply"),
        (lambda text: text + b'{"id": 1' + b"0" * 5000 + b"}\n", "vsr.jsonl:8: the JSON holds a number of thousands"),
    ],
)
def test_damaged_bytes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, change: Callable[[bytes], bytes], expected: str
) -> None:
    path = written(VSR_FILE, tmp_path / "vsr.jsonl")
    path.write_bytes(change(path.read_bytes()))
    assert expected in refusal(capsys, "score", path)


def test_lines_that_end_as_on_windows_are_read(tmp_path: Path) -> None:
    path = written(VSR_FILE, tmp_path / "vsr.jsonl")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert list(read_predictions(path).predictions) == list(VSR_FILE.predictions)


@pytest.mark.parametrize("key", ["question", "target", "image_id", "subtask", "references"])
def test_the_same_ids_with_other_questions_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture, key: str) -> None:
    lines = lines_of()
    lines[3][key] = ["another"] if key == "references" else {"yes": "no", "no": "yes"}.get(lines[3][key], "another")
    path = written(VSR_FILE, tmp_path / "vsr.jsonl")
    other = written(PredictionFile(lines[0], lines[1:]), tmp_path / "other" / "vsr.jsonl")
    assert f"the {key} of 'test/2' is" in refusal(capsys, "score", path, "--against", other)
    with pytest.raises(BadInputError, match=f"the {key} of 'test/2' is .* in a and .* in b"):
        check_paired(VSR_FILE.predictions, lines[1:], ("a", "b"))
    assert main(["score", str(path), "--against", str(path)]) == 0


def test_every_rule_of_a_set_without_rules_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    header = header_of("vsr") | {"benchmark": "mine"}
    path = written(PredictionFile(header, [row_of("mine", "1", "", "?", "a", "b", "i")]), tmp_path / "mine.jsonl")
    for words in (["all"], ["all", "yes_no_words"]):
        message = refusal(capsys, "score", path, "--rule", *words, "--json")
        assert "no rule fits these questions of mine" in message
        assert "a set that has rules: mme, pope, vsr" in message
    written(PredictionFile(header_of("vsr"), []), path)
    assert "there are no predictions" in refusal(capsys, "score", path, "--rule", "all")


@pytest.mark.parametrize("words", [["score"], ["report"], ["compare", "."]])
def test_a_rules_name_is_looked_at_before_any_file(tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str]):
    message = refusal(capsys, *words, tmp_path / "is not there", "--rule", "yes_no_word")
    assert "unknown scoring rule 'yes_no_word'" in message
    assert "did you mean yes_no_words?" in message


def test_questions_of_no_split_beside_splits_are_refused() -> None:
    content = pope_predictions(("yes",))
    rows = [dict(row) for row in content.predictions]
    rows[5]["subtask"] = ""
    with pytest.raises(BadInputError, match="1 questions such as 'random/6' belong to no split"):
        score(content.header, rows, "pope_official")


def without_split(split: str) -> list[dict[str, str]]:
    return [row for row in pope_questions(10) if row["subtask"] != split]


def write_members(folder: Path, pope: list[dict[str, str]], **of_vsr: object) -> Path:
    """Writes all members of the published mean."""
    for name in MMAVG_MEMBERS:
        rows, header = vsr_questions(20), of_vsr if name == "vsr" else {}
        header = header | {"default_rule": "yes_no_words"}
        if name == "pope":
            rows, header = pope, {}
        write_predictions(folder, name, rows, 0.8, **header)
    return folder


def records(capsys: pytest.CaptureFixture, *words: object) -> list[dict[str, Any]]:
    assert main([str(word) for word in words] + ["--format", "json"]) == 0
    return [row for table in json.loads(capsys.readouterr().out)["tables"] for row in table["records"]]


@pytest.mark.parametrize(
    ("pope", "of_vsr", "name"),
    [
        (pope_questions(10), {}, "MMAvg"),
        (without_split("popular"), {}, "pope[2 of 3 splits]"),
        ([row | {"subtask": "gqa"} for row in without_split("popular") if row["subtask"] == "random"], {}, "pope[0 of"),
        (pope_questions(10), {"of_questions": 1222}, "MMAvg of limited sets"),
    ],
    ids=["whole", "two splits", "unknown split", "few questions"],
)
def test_a_mean_over_less_is_not_the_published_one(
    tmp_path: Path, capsys: pytest.CaptureFixture, pope: list[dict[str, str]], of_vsr: dict[str, int], name: str
) -> None:
    run = write_members(tmp_path / "run", pope, **of_vsr)
    groups = read_groups([run], [], [])
    report = score_report(groups)
    for style in FORMAT_NAMES:
        text = written_table([report], style, 400).replace("MMAvg of limited sets", "")
        assert ("MMAvg" in text) == (name == "MMAvg"), style
    assert (Scores(groups, None).mean_name == "MMAvg") == (name == "MMAvg")
    assert len(Scores(groups, None).members(report.records[-1]["set"])) == len(MMAVG_MEMBERS)
    assert main(["score", *map(str, sorted((run / "predictions").glob("*.jsonl"))), "--json"]) == 0
    scores = [Score(**row) for row in json.loads(capsys.readouterr().out)]
    of_sets = {scored.benchmark: scored for scored in scores}
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(comparison_table(of_sets, of_sets, "m2pt"))
    results = {"tuned": {key: one.to_json() for key, one in of_sets.items()}, "parameters": {"percent": 1}}
    assert ("MMAvg" in console.export_text().replace("MMAvg of limited sets", "")) == (name == "MMAvg")
    assert (sweep_row("m2pt", [(0, "run", results)], "tuned", {}).mean_of == "MMAvg") == (name == "MMAvg")
    if name != "MMAvg":
        part = name if name.startswith("pope") else "vsr[20 of 1,222 questions]"
        assert any(scored.name.startswith(part) for scored in scores)
        assert name in sweep_row("m2pt", [(0, "run", results)], "tuned", {}).mean_of


def test_the_report_says_where_sizes_are_not_the_published_ones(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", str(write_members(tmp_path / "run", pope_questions(10)))]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "not over as many questions as the published sets have" in text
    assert "snli_ve 20 (17,901)" in text


@pytest.mark.parametrize(
    ("name", "position", "part"),
    [(name, position, revision.name) for name, all_of in REVISIONS.items() for position, revision in enumerate(all_of)],
)
def test_other_splits_and_revisions_are_named(name: str, position: int, part: str) -> None:
    counts = Counter(REVISIONS[name][position].questions)
    assert other_revision(name, counts) == (part if position else "")
    assert other_revision(name, Counter({"": 17})) == ""
    assert other_revision("mine", counts) == ""


def test_a_score_carries_the_split_it_is_over(tmp_path: Path) -> None:
    rows = vsr_questions(2195)
    write_predictions(tmp_path, "vsr", rows, 0.8)
    (scored,) = score_under(tmp_path / "predictions" / "vsr.jsonl", [])
    assert scored.name == "vsr[random test]"


def test_a_limit_stands_in_the_header_and_decides_no_answer(tmp_path: Path) -> None:
    VSR.write_fake(tmp_path)
    headers = []
    for limit in (None, 2):
        data = VSR(str(tmp_path), "plain", 1, 4, limit)
        headers.append(prediction_header(data, None, {}, {}))
    whole, part = headers
    assert "of_questions" not in whole
    assert (part["questions"], part["of_questions"]) == (2, whole["questions"])
    assert part["questions"] < part["of_questions"]
    older = {key: value for key, value in part.items() if key != "of_questions"}
    refuse_other_header(tmp_path, older, part)


def test_compare_shows_what_was_not_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("a", "b"):
        write_predictions(tmp_path / name, "vsr", vsr_questions(20), 0.8)
    path = tmp_path / "b" / "predictions" / "vsr.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["answer"] = lines[2]["answer"] = "maybe yes"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (row,) = records(capsys, "compare", tmp_path / "a", tmp_path / "b")
    assert (row["first_unparsed"], row["second_unparsed"]) == ([0], [2])
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "0, 2" in capsys.readouterr().out
