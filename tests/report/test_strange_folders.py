"""Folders of runs as strangers leave them: no table of them mixes measurements, and no file of theirs ends a report."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_m2pt.commands.compare import main as compare
from lightning_m2pt.commands.export_forms.predictions import main as export
from lightning_m2pt.commands.report import main as report
from lightning_m2pt.commands.score import main as score
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.report.page.material import Group, fingerprint_of
from lightning_m2pt.runs.evaluated import find_run_folders, grouped, read_run
from lightning_m2pt.storage.run_record import read_run_record, short_hash
from tests.support.answers.evaluated_folders import pope_questions, vsr_questions, write_predictions, write_run

QUESTIONS = vsr_questions(8)


def seeds(folder: Path, second: list[dict[str, str]], **header: object) -> Path:
    """Two seeds of an experiment; what the second was asked is given."""
    for seed, questions, more in ((0, QUESTIONS, {}), (1, second, header)):
        write_run(folder / f"m2pt-seed{seed}", seed)
        write_predictions(folder / f"m2pt-seed{seed}", "vsr", questions, 0.5, seed, **more)
    return folder


OTHER_QUESTIONS = {
    "other texts": ([{**row, "question": "Another?"} for row in QUESTIONS], {}),
    "other targets": ([{**row, "target": "yes"} for row in QUESTIONS], {}),
    "a part": (QUESTIONS[:4], {"of_questions": 8}),
    "other ids": ([{**row, "id": row["id"] + "x"} for row in QUESTIONS], {}),
}


@pytest.mark.parametrize("case", OTHER_QUESTIONS)
@pytest.mark.parametrize("verb", [report, compare])
def test_seeds_that_were_asked_other_questions_are_no_seeds_of_one_row(
    tmp_path: Path, case: str, verb: Callable[[list[str]], int]
) -> None:
    questions, header = OTHER_QUESTIONS[case]
    folder = seeds(tmp_path / "m2pt_base", questions, **header)
    with pytest.raises(BadInputError, match="m2pt-seed0") as caught:
        verb([str(folder)] * (2 if verb is compare else 1))
    assert "m2pt-seed1" in caught.value.what


def test_seeds_that_were_asked_the_same_in_another_order_are_one_row(tmp_path: Path) -> None:
    folder = seeds(tmp_path / "m2pt_base", QUESTIONS[::-1])
    assert len(grouped([read_run(path) for path in find_run_folders([folder])])) == 1


def test_answers_about_other_pictures_are_not_scored_against(tmp_path: Path) -> None:
    files = [tmp_path / name / "predictions" / "vsr.jsonl" for name in ("one", "other")]
    write_predictions(tmp_path / "one", "vsr", QUESTIONS, 0.5)
    write_predictions(tmp_path / "other", "vsr", QUESTIONS, 0.5, data_revision="c" * 64)
    with pytest.raises(BadInputError, match="the data revision is aaaaaaaa, and cccccccc in the other"):
        score([str(files[0]), "--against", str(files[1])])


HEADERS = {
    "a format that is true": {"format": True},
    "a format with a point": {"format": 1.0},
    "more predictions than questions": {"of_questions": 3},
    "no number of questions": {"of_questions": 10**400},
    "no number of examples": {"examples": {"shots": 10**400}},
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, case: str) -> None:
    write_predictions(tmp_path, "vsr", QUESTIONS, 0.5, **HEADERS[case])
    with pytest.raises(BadInputError):
        read_predictions(tmp_path / "predictions" / "vsr.jsonl")


def test_a_log_probability_beyond_any_float_is_refused(tmp_path: Path) -> None:
    write_predictions(tmp_path, "vsr", [{**QUESTIONS[0], "log_probabilities": {"yes": 10**400}}], 0.5)
    with pytest.raises(BadInputError, match="log_probabilities"):
        read_predictions(tmp_path / "predictions" / "vsr.jsonl")


def test_a_decoding_of_another_kind_is_shown(tmp_path: Path) -> None:
    write_predictions(tmp_path, "vsr", QUESTIONS, 0.5, decoding={"method": [1], "candidate_tokens": 5, "dtype": None})
    assert report([str(tmp_path)]) == 0


def test_a_number_of_thousands_of_digits_in_an_id_is_not_exported(tmp_path: Path) -> None:
    rows = [{**row, "id": row["id"].replace("/", "/" + "9" * 5000)} for row in pope_questions(1)]
    write_predictions(tmp_path, "pope", rows, 0.5)
    words = [str(tmp_path / "predictions" / "pope.jsonl"), "--format", "llava", "--output", str(tmp_path / "out")]
    with pytest.raises(BadInputError, match="has no number"):
        export(words)


CONFIGURATIONS = {
    "nested deeply": "[" * 20_000,
    "a date that is none": "seed: 2020-99-99\nmodel: &a [1]\ndata: *a\n",
    "a list": "- 1\n",
    "not UTF-8": "\udcff",
    "empty": "",
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_configuration_that_is_none_is_three_lines(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_predictions(tmp_path, "vsr", QUESTIONS, 0.5)
    (tmp_path / "config.yaml").write_text(CONFIGURATIONS[case], encoding="utf-8", errors="surrogateescape")
    assert main(["report", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) <= 3


def test_numbers_of_a_configuration_are_numbers(tmp_path: Path) -> None:
    write_predictions(tmp_path, "vsr", QUESTIONS, 0.5)
    (tmp_path / "config.yaml").write_text(json.dumps({"rate": 1e-5, "digits": int("9" * 18)}))
    assert read_run(tmp_path).config == {"rate": 1e-5, "digits": int("9" * 18)}


RECORDS = {
    "deciding": {"deciding": 5},
    "starts": {"made_with": 3},
    "a start": {"made_with": [3]},
    "names": {"made_with": [{"backbone_names": 3}]},
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_of_another_kind_is_refused(tmp_path: Path, case: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps(RECORDS[case]))
    with pytest.raises(BadInputError, match=r"run\.json: (deciding|made_with)"):
        read_run_record(tmp_path)


def test_the_frozen_model_is_known_where_a_part_of_a_set_was_asked(tmp_path: Path) -> None:
    frozen, tuned = tmp_path / "frozen", tmp_path / "m2pt_base" / "m2pt-seed0"
    write_run(tuned, 0)
    (tuned / "run.json").write_text(json.dumps({"deciding": {"seed": 0, "backbone": "f" * 64}}))
    (tuned / "config.yaml").write_text(json.dumps({"benchmarks": [{"class_path": "data_modules.vsr.VSR"}]}))
    write_predictions(tuned, "vsr", QUESTIONS, 0.5)
    write_predictions(frozen / "x", "vsr", QUESTIONS, 0.5, adapter=None, of_questions=20)
    header = dict(read_predictions(frozen / "x" / "predictions" / "vsr.jsonl").header)
    del header["of_questions"]
    named = (frozen / "x").rename(frozen / short_hash({"backbone": "f" * 64, "questions": [header]}))
    groups = [Group("", [read_run(path)]) for path in (named, tuned)]
    assert fingerprint_of(groups[0], [groups[1]]) == "f" * 64


def test_two_runs_of_one_seed_are_no_two_seeds(tmp_path: Path) -> None:
    """A run's copy beside it would make the deviation over seeds smaller than it is."""
    folders = [tmp_path / "m2pt_base" / name for name in ("m2pt-seed0", "m2pt-seed0-copy", "m2pt-seed1")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        write_run(folder, seed)
        write_predictions(folder, "vsr", vsr_questions(20), 0.8, seed)
    found = grouped([read_run(folder) for folder in folders])
    assert [[run.seed for run in group.runs] for group in found] == [[0, 1], [0]]
