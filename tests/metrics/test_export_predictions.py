"""Our answers in peers' formats: a small re-implementation of each peer's scorer reads them and finds our score."""

import csv
import json
import random
import re
import string
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest

import data_modules.pope
import lightning_m2pt.metrics.peer_formats.pope
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.metrics.mme import COGNITION, PERCEPTION
from lightning_m2pt.metrics.peer_formats.formats import FORMATS, export_files
from lightning_m2pt.metrics.predictions import PredictionFile
from lightning_m2pt.metrics.score import Score, score
from tests.support.answers.prediction_files import (
    CLEAN,
    MESSY,
    mme_predictions,
    mnist_predictions,
    pope_predictions,
    vsr_predictions,
    written,
)

SEEDS = range(4)


def exported(content: PredictionFile, name: str, folder: Path) -> Path:
    """Goes through the file and the command, as a user does."""
    predictions = written(content, folder / "predictions" / "set.jsonl")
    words = ["export", "predictions", str(predictions), "--format", name, "--output", str(folder / name)]
    assert main(words) == ExitCode.DONE
    return folder / name


def ours(content: PredictionFile) -> Score:
    return score(content.header, content.predictions, content.header["default_rule"])


def shuffled(content: PredictionFile, seed: int) -> PredictionFile:
    rows = list(content.predictions)
    random.Random(seed).shuffle(rows)
    return PredictionFile(content.header, rows)


def official_mme(folder: Path) -> tuple[float, float]:
    """What the official tool makes of a results folder: perception and cognition."""
    points = {}
    for subtask in (*PERCEPTION, *COGNITION):
        with (folder / f"{subtask}.txt").open(encoding="utf-8") as file:
            lines = file.readlines()
        right = []
        for first, second in zip(lines[::2], lines[1::2], strict=True):
            fields = [line.split("\t") for line in (first, second)]
            assert [len(each) for each in fields] == [4, 4]
            assert fields[0][0] == fields[1][0]
            pair = []
            for _, _, truth, response in fields:
                response = response.lower()
                label = response if response in ("yes", "no") else response[:4]
                said = "yes" if "yes" in label else "no" if "no" in label else "other"
                pair.append(said == truth.lower())
            right.append(pair)
        points[subtask] = 100 * mean(map(mean, right)) + 100 * mean(map(all, right))
    return sum(points[name] for name in PERCEPTION), sum(points[name] for name in COGNITION)


@pytest.mark.parametrize("answers", [CLEAN, MESSY], ids=["clean", "messy"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_official_mme_tool_finds_our_points(tmp_path: Path, answers: tuple[str, ...], seed: int) -> None:
    content = mme_predictions(answers, seed)
    table = ours(content).table
    perception, cognition = official_mme(exported(shuffled(content, seed), "mme_official", tmp_path))
    assert perception == pytest.approx(table["perception"]["score"])
    assert cognition == pytest.approx(table["cognition"]["score"])
    assert 0 < perception < 2000


def test_mme_lines_are_pairs_in_the_order_of_the_file(tmp_path: Path) -> None:
    folder = exported(mme_predictions(("a\nb\tc",)), "mme_official", tmp_path)
    lines = (folder / "OCR.txt").read_text().splitlines()
    assert lines[:3] == [
        "0.jpg\tIs 1 in picture 0? Please answer yes or no.\tYes\ta b c",
        "0.jpg\tIs 2 in picture 0? Please answer yes or no.\tNo\ta b c",
        "1.jpg\tIs 1 in picture 1? Please answer yes or no.\tYes\ta b c",
    ]
    assert len(list(folder.iterdir())) == 14


def test_an_incomplete_mme_says_what_the_official_tool_will_miss(tmp_path: Path, capfd) -> None:
    content = mme_predictions(CLEAN)
    rows = [row for row in content.predictions if row["subtask"] not in ("OCR", "scene")]
    exported(PredictionFile(content.header, rows), "mme_official", tmp_path)
    assert "stops without scene, OCR" in capfd.readouterr().out
    with pytest.raises(BadInputError, match="has 1 answers"):
        export_files(PredictionFile(content.header, content.predictions[:-1]), "mme_official")


def official_pope(responses: list[str], labels: list[str]) -> dict[str, float]:
    """What POPE's and LLaVA's script make of responses and labels in one order."""
    said = []
    for response in responses:
        words = response.split(".")[0].replace(",", "").split(" ")
        said.append("no" if {"No", "not", "no"} & set(words) else "yes")
    pairs = list(zip(said, labels, strict=True))
    hits = pairs.count(("yes", "yes"))
    precision, recall = hits / said.count("yes"), hits / labels.count("yes")
    return {
        "accuracy": mean(answer == label for answer, label in pairs),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "yes_ratio": said.count("yes") / len(said),
        "n": len(said),
    }


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.open(encoding="utf-8")]


@pytest.mark.parametrize("answers", [CLEAN, MESSY], ids=["clean", "messy"])
@pytest.mark.parametrize("seed", SEEDS)
def test_popes_script_and_llavas_find_our_numbers(tmp_path: Path, answers: tuple[str, ...], seed: int) -> None:
    content = pope_predictions(answers, seed)
    table = ours(content).table
    official = exported(shuffled(content, seed), "pope_official", tmp_path)
    llava = exported(shuffled(content, seed), "llava", tmp_path)
    category = {row["question_id"]: row["category"] for row in json_lines(llava / "questions.jsonl")}
    for split in ("random", "popular", "adversarial"):
        labels = [row["target"] for row in content.predictions if row["subtask"] == split]
        of_split = json_lines(official / f"coco_pope_{split}_answers.jsonl")
        assert official_pope([row["answer"] for row in of_split], labels) == pytest.approx(table[split])
        texts = [row["text"] for row in json_lines(llava / "answers.jsonl") if category[row["question_id"]] == split]
        assert official_pope(texts, labels) == pytest.approx(table[split])


def test_pope_keeps_the_order_of_the_question_file_and_says_how_many(tmp_path: Path, capfd) -> None:
    content = pope_predictions(CLEAN)
    folder = exported(content, "pope_official", tmp_path)
    asked = [row["question"] for row in content.predictions if row["subtask"] == "popular"]
    assert [row["question"] for row in json_lines(folder / "coco_pope_popular_answers.jsonl")] == asked
    assert "random 40, popular 40, adversarial 40" in capfd.readouterr().out
    assert data_modules.pope.SPLITS == lightning_m2pt.metrics.peer_formats.pope.SPLITS
    unnumbered = [content.predictions[0] | {"id": "random/first"}, *content.predictions[1:]]
    for name in ("pope_official", "llava"):
        with pytest.raises(BadInputError, match="the id 'random/first' has no number"):
            export_files(PredictionFile(content.header, unnumbered), name)
    strange = [row | {"subtask": "../strange"} for row in content.predictions]
    for name in ("pope_official", "llava", "lmms_eval"):
        with pytest.raises(BadInputError, match="unknown POPE split"):
            export_files(PredictionFile(content.header, strange), name)


def lmms_mme(path: Path) -> tuple[float, float]:
    """What lmms-eval's MME task makes of answers and targets: perception and cognition."""
    points: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in json_lines(path):
        (logged,) = (sample[key] for key in sample if key.startswith("mme_"))
        text = sample["filtered_resps"].lower().strip().replace(".", "")
        said = {"y": "yes", "n": "no"}.get(text) or ("yes" if "yes" in text[:4] else "no" if "no" in text[:4] else "")
        assert logged["score"] == (said == sample["target"].lower())
        points[logged["category"]][logged["question_id"]].append(logged["score"])
    assert {len(pair) for images in points.values() for pair in images.values()} == {2}
    of = {name: 100 * mean(mean(pair) + all(pair) for pair in images.values()) for name, images in points.items()}
    return sum(of[name] for name in PERCEPTION), sum(of[name] for name in COGNITION)


@pytest.mark.parametrize("seed", SEEDS)
def test_lmms_evals_reading_of_clean_answers_is_our_score(tmp_path: Path, seed: int) -> None:
    mme, pope = mme_predictions(CLEAN, seed), pope_predictions(("Yes", "No", "yes"), seed)
    perception, cognition = lmms_mme(exported(mme, "lmms_eval", tmp_path) / "samples_mme.jsonl")
    assert perception == pytest.approx(ours(mme).table["perception"]["score"])
    assert cognition == pytest.approx(ours(mme).table["cognition"]["score"])
    folder = exported(pope, "lmms_eval", tmp_path)
    for split, task in (("random", "pope_random"), ("popular", "pope_pop"), ("adversarial", "pope_adv")):
        samples = json_lines(folder / f"samples_{task}.jsonl")
        right = [row["filtered_resps"].lower().strip() == row["target"] for row in samples]
        assert [row["pope_f1_score"]["score"] for row in samples] == right
        assert mean(right) == pytest.approx(ours(pope).table[split]["accuracy"])


@pytest.mark.parametrize("seed", SEEDS)
def test_lmms_eval_itself_reads_answers_of_every_kind_as_we_log_them(tmp_path: Path, seed: int) -> None:
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: pip install -e '.[lmms-eval]'")
    from lmms_eval.tasks.mme.utils import mme_aggregate_results, mme_process_results
    from lmms_eval.tasks.pope import utils as pope

    samples = json_lines(exported(mme_predictions(MESSY, seed), "lmms_eval", tmp_path) / "samples_mme.jsonl")
    theirs = []
    for sample in samples:
        ((name, logged),) = ((key, value) for key, value in sample.items() if key.startswith("mme_"))
        doc = {key: logged[key] for key in ("question_id", "category")} | {"answer": sample["target"]}
        assert mme_process_results(doc, [sample["filtered_resps"]]) == {name: logged}
        theirs.append(logged)
    perception, cognition = lmms_mme(tmp_path / "lmms_eval" / "samples_mme.jsonl")
    assert mme_aggregate_results(theirs) == pytest.approx(perception + cognition)
    folder = exported(pope_predictions(MESSY, seed), "lmms_eval", tmp_path)
    for sample in json_lines(folder / "samples_pope_adv.jsonl"):
        doc = {"question_id": sample["pope_f1_score"]["question_id"], "answer": sample["target"]}
        logged = {key: value for key, value in sample.items() if key.startswith("pope_")}
        assert pope.pope_process_results(doc, [sample["filtered_resps"]]) == logged


def kit_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def kit_right(row: dict[str, str]) -> bool:
    """VLMEvalKit's extraction: yes or no as a word, not both, equal to the answer."""
    words = re.sub(f"[{re.escape(string.punctuation)}]", "", row["prediction"].lower()).split()
    said = {(True, False): "Yes", (False, True): "No"}.get(("yes" in words, "no" in words), "Unknown")
    return said == row["answer"]


@pytest.mark.parametrize("seed", SEEDS)
def test_vlmevalkits_reading_of_plain_answers_is_our_score(tmp_path: Path, seed: int) -> None:
    plain = ("Yes", "No", "yes.", "no.")
    mme, pope, vsr = (make(plain, seed) for make in (mme_predictions, pope_predictions, vsr_predictions))
    pairs: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in kit_rows(exported(shuffled(mme, seed), "vlmevalkit", tmp_path) / "m2pt_MME.tsv"):
        pairs[row["category"]][row["image_path"]].append(kit_right(row))
    of = {
        name: 100 * mean(map(mean, images.values())) + 100 * mean(pair[0] * pair[1] for pair in images.values())
        for name, images in pairs.items()
    }
    assert sum(of[name] for name in PERCEPTION) == pytest.approx(ours(mme).table["perception"]["score"])
    assert sum(of[name] for name in COGNITION) == pytest.approx(ours(mme).table["cognition"]["score"])
    rows = kit_rows(exported(pope, "vlmevalkit", tmp_path) / "m2pt_POPE.tsv")
    assert len({row["index"] for row in rows}) == len(pope.predictions)
    for split in ("random", "popular", "adversarial"):
        of_split = [kit_right(row) for row in rows if split in row["category"].split(",")]
        assert mean(of_split) == pytest.approx(ours(pope).table[split]["accuracy"])
    rows = kit_rows(exported(vsr, "vlmevalkit", tmp_path) / "m2pt_VSR-zeroshot.tsv")
    assert 100 * mean(map(kit_right, rows)) == pytest.approx(ours(vsr).value)


def test_vlmevalkit_gets_every_answer_as_it_is(tmp_path: Path) -> None:
    content = vsr_predictions((*MESSY, 'a "quoted"\tanswer\nof two lines'))
    rows = kit_rows(exported(content, "vlmevalkit", tmp_path) / "m2pt_VSR-zeroshot.tsv")
    assert [row["prediction"] for row in rows] == [row["answer"] for row in content.predictions]


@pytest.mark.parametrize(
    ("content", "name", "named"),
    [
        (pope_predictions(CLEAN), "mme_official", "pope_official or llava or llava_answers or lmms_eval or vlmevalkit"),
        (vsr_predictions(CLEAN), "lmms_eval", "expected: llava_answers or vlmevalkit"),
        (mnist_predictions(), "vlmevalkit", "expected: llava_answers"),
    ],
    ids=["pope", "vsr", "mnist"],
)
def test_a_set_that_does_not_fit_names_the_formats_that_do(tmp_path, capfd, content, name, named):
    path = written(content, tmp_path / "set.jsonl")
    words = ["export", "predictions", str(path), "--format", name, "--output", str(tmp_path / "out")]
    assert main(words) == ExitCode.BAD_INPUT
    error = capfd.readouterr().err
    assert named in error
    assert len(error.splitlines()) <= 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_wrong_targets_empty_files_and_half_characters(name: str) -> None:
    make = mme_predictions if "mme" in FORMATS[name].sets else pope_predictions
    content = make(("Yes \ud800",))
    assert all(file.decode() for file in export_files(content, name).files.values())
    with pytest.raises(BadInputError, match="no predictions"):
        export_files(PredictionFile(content.header, []), name)
    if not FORMATS[name].sets:
        return  # any target will do
    rows = [row | {"target": "maybe"} for row in content.predictions]
    with pytest.raises(BadInputError, match="is 'maybe'"):
        export_files(PredictionFile(content.header, rows), name)


def test_what_is_there_is_not_overwritten(tmp_path: Path, capfd) -> None:
    folder = exported(mme_predictions(("Yes",)), "mme_official", tmp_path)
    (folder / "OCR.txt").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    predictions = written(mme_predictions(("No",)), tmp_path / "predictions" / "set.jsonl")
    words = ["export", "predictions", str(predictions), "--format", "mme_official", "--output", str(folder)]
    assert main(words) == ExitCode.BAD_INPUT
    assert "--force" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert main([*words, "--force"]) == ExitCode.DONE
    assert b"\tNo\n" in (folder / "OCR.txt").read_bytes()
    assert all(b"\tYes\tYes" not in path.read_bytes() for path in folder.iterdir())


def test_what_cannot_be_exported_is_said(tmp_path: Path, capfd) -> None:
    output = ["--output", str(tmp_path / "out")]
    missing = str(tmp_path / "missing.jsonl")
    assert main(["export", "predictions", missing, "--format", "llava", *output]) == ExitCode.BAD_INPUT
    assert main(["export", "predictions", missing, "--format", "helm", *output]) == ExitCode.BAD_INPUT
    assert main(["export", "weights"]) == ExitCode.BAD_INPUT
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ["does not exist" in errors[0], "helm" in errors[1], "weights" in errors[2]] == [True] * 3
