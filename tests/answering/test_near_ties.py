"""What rounding may change is marked by the type's own limit, and what it may change does not share a folder."""

import json
import math
from pathlib import Path

import pytest
import torch

from callbacks.predictions import prediction_file
from data_modules.mme import MME
from data_modules.vsr import VSR
from experiments.commands.evaluate import evaluation_folder
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.evaluation import AnsweringOptions, answering_of, evaluate_frozen, frozen_folder, header_of
from experiments.runs.prepare import check_experiment
from lightning_m2pt.answering.decoding import Answer, refuse_not_finite
from lightning_m2pt.answering.near_ties import depends_on_batch, near_tie_limit
from lightning_m2pt.answering.prediction_line import prediction_line
from lightning_m2pt.errors import DivergedError
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.metrics.predictions import read_predictions

QUESTION = Question("1", "", "What?", "yes", Path("x"), "1.jpg", "file:1")
ONE_BY_ONE = AnsweringOptions(shared_prefix=False)


def experiment_of(folder: Path, dtype: str, batch_size: int = 3) -> Experiment:
    MME.write_fake(folder / "mme")
    VSR.write_fake(folder / "vsr")
    sets = [
        {
            "class_path": f"data_modules.{name.lower()}.{name}",
            "init_args": {
                "root": str(folder / name.lower()),
                "template": "vicuna_v1",
                "batch_size": batch_size,
                "max_new_tokens": 6,
            },
        }
        for name in ("MME", "VSR")
    ]
    words = ["--config", "experiments/frozen.yaml", "--benchmarks", json.dumps(sets)]
    words += ["--output_root", str(folder / "outputs"), "--model.backbone.dtype", dtype]
    experiment = parse_experiment(words)
    check_experiment(experiment)
    return experiment


def test_the_limit_follows_the_types_rounding() -> None:
    assert near_tie_limit("float32") == near_tie_limit("float64") == 1e-4
    assert near_tie_limit("bfloat16") > 1.0  # the largest margin at which an answer flipped on the testbed
    assert near_tie_limit("bfloat16") > near_tie_limit("float16") > near_tie_limit("float32")
    assert near_tie_limit("float8_e4m3fn") >= near_tie_limit("bfloat16")
    assert [depends_on_batch(name) for name in ("float32", "float64", "bfloat16", "float16")] == [False] * 2 + [
        True
    ] * 2


@pytest.mark.parametrize(("dtype", "margin", "is_near"), [("float32", 0.5, False), ("bfloat16", 0.5, True)])
def test_lines_are_marked_by_the_types_limit(dtype: str, margin: float, is_near: bool) -> None:
    assert prediction_line("vsr", QUESTION, Answer("yes", margin), dtype).get("near_tie", False) == is_near


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batches_belong_to_an_evaluations_name_where_they_may_change_it(tmp_path: Path, dtype: str) -> None:
    large = experiment_of(tmp_path, dtype, 100)
    folders = {frozen_folder(large), frozen_folder(large, ONE_BY_ONE)}
    large.benchmarks[0].batch_size = 1
    folders.add(frozen_folder(large))
    large.benchmarks[0].batch_size = 100
    assert len(folders) == (1 if dtype == "float32" else 3)
    benchmark = large.benchmarks[0]
    answering = answering_of(benchmark, "greedy")
    decoding = header_of(large, benchmark, None, {}, answering)["decoding"]
    expected = {"method": "greedy", "max_new_tokens": 6, "dtype": dtype}
    assert decoding == expected | ({"batch_size": 100, "shared_prefix": True} if dtype == "bfloat16" else {})
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(json.dumps(large.config))
    assert evaluation_folder(run, large, frozenset(), "greedy", 0) == run
    alone = evaluation_folder(run, large, frozenset(), "greedy", 0, shared_prefix=False)
    assert (alone == run) == (dtype == "float32")


@pytest.mark.slow
def test_answers_in_bfloat16_differ_between_batches_only_where_they_are_marked(tmp_path: Path) -> None:
    rows = {}
    for size, shared in ((1, False), (1, True), (100, True)):
        experiment = experiment_of(tmp_path, "bfloat16", size)
        folder, _ = evaluate_frozen(experiment, AnsweringOptions(shared_prefix=shared))
        rows[size, shared] = [
            row for name in ("mme", "vsr") for row in read_predictions(prediction_file(folder, name)).predictions
        ]
    first, *others = rows.values()
    for other in others:
        for one, another in zip(first, other, strict=True):
            assert one["answer"] == another["answer"] or "near_tie" in one or "near_tie" in another


@pytest.mark.parametrize("method", ["greedy", "likelihood_sum"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_model_whose_numbers_are_not_finite_answers_nothing(tmp_path: Path, method: str, shared: bool) -> None:
    experiment = experiment_of(tmp_path, "float32")
    experiment.model.configure_model()
    with torch.no_grad():
        for name, parameter in experiment.model.backbone.named_parameters():
            if name.endswith("lm_head.weight"):
                parameter[7] = math.nan
    with pytest.raises(DivergedError, match="what is no number"):
        evaluate_frozen(experiment, AnsweringOptions(method, shared_prefix=shared))
    assert not list(tmp_path.glob("outputs/**/*.jsonl"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_infinite_values_are_refused(value: float) -> None:
    refuse_not_finite([0.0, 1e30])
    with pytest.raises(DivergedError):
        refuse_not_finite([0.0, value])
