"""Runs with a prompt's words: what is tuned, asked and measured with them, and where each evaluation stands."""

import json
from pathlib import Path

import pytest

from experiments.commands.answer import main as answer
from experiments.commands.evaluate import main as evaluate
from experiments.commands.train import main as train
from experiments.commands.validate import main as validate
from experiments.configuration.cli import parse_experiment
from lightning_m2pt.inputs.named_templates import RewordedTemplate
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.runs.model_of_run import template_of_run
from lightning_m2pt.storage.adapter_folder import read_adapter_config
from tests.runs.test_evaluation import set_words
from tests.support.small_experiment import run_with_a_set, small_words


def file_of(folder: Path, question: str, name: str) -> str:
    (folder / name).write_text(json.dumps({"question": question}))
    return str(folder / name)


def test_a_run_is_tuned_and_asked_with_its_words_and_with_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned_with = file_of(tmp_path, "{question} Answer with one word.", "brief.yaml")
    run = run_with_a_set(tmp_path, "--prompt-text", tuned_with)
    config = read_adapter_config(run / "adapter")
    template = template_of_run(run)
    assert isinstance(template, RewordedTemplate)
    assert (config["template"], template.name) == ("vicuna_v1+brief", "vicuna_v1+brief")
    digest = config["template_sha256"]

    assert evaluate(["--run", str(run)]) == 0
    own = read_predictions(run / "predictions/vsr.jsonl")
    assert (own.header["template"], own.header["decoding"]["template_sha256"]) == ("vicuna_v1+brief", digest)
    assert "note: tuned with" not in capsys.readouterr().out

    other = file_of(tmp_path, "Please read: {question}", "other.yaml")
    assert evaluate(["--run", str(run), "--prompt-text", other]) == 0
    said = capsys.readouterr().out
    assert f"tuned with the template vicuna_v1+brief ({digest[:8]}), asked in vicuna_v1+other (" in said
    (folder,) = (run / "evaluations").iterdir()
    assert folder.name.startswith("prompt-other-")
    header = read_predictions(folder / "predictions/vsr.jsonl").header
    assert header["template"] == "vicuna_v1+other"
    assert header["decoding"]["template_sha256"] not in ("", digest)

    file_of(tmp_path, "Read this: {question}", "other.yaml")  # the same file with other words is another evaluation
    assert evaluate(["--run", str(run), "--prompt-text", other]) == 0
    assert len(list((run / "evaluations").iterdir())) == 2
    without = file_of(tmp_path, "{question}", "without.yaml")
    assert evaluate(["--run", str(run), "--prompt-text", without]) == 0
    (untouched,) = (run / "evaluations").glob("prompt-without-*")
    header = read_predictions(untouched / "predictions/vsr.jsonl").header
    assert header["template"] == "vicuna_v1"
    assert "template_sha256" not in header["decoding"]


def test_one_set_answered_with_words_stands_beside_it_without(tmp_path: Path) -> None:
    run = run_with_a_set(tmp_path)
    words = ["--run", str(run), "--data", "data_modules.vsr.VSR", "--data.root", str(tmp_path / "vsr")]
    words += ["--data.template", "vicuna_v1", "--data.batch_size", "4", "--data.max_new_tokens", "5"]
    text = file_of(tmp_path, "{question} Answer with one word.", "brief.yaml")
    for more in ([], ["--prompt-text", text]):
        assert answer(["predict", *words, *more]) == 0
    templates = {
        read_predictions(path).header["template"] for path in (run / "evaluations").glob("*/predictions/vsr.jsonl")
    }
    assert templates == {"vicuna_v1", "vicuna_v1+brief"}


def test_the_untouched_model_in_other_words_is_not_called_untouched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", "experiments/frozen.yaml", *set_words(tmp_path), "--output_root", str(tmp_path / "out")]
    text = file_of(tmp_path, "{question} Answer with one word.", "brief.yaml")
    cases = (([], "none: this is the untouched model"), (["--prompt-text", text], "not measured: nothing is tuned"))
    for main in (evaluate, train):
        for more, said in cases:
            assert main([*words, *more]) == 0
            (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("difference ")]
            assert said in line


def test_the_validation_split_is_measured_with_the_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*small_words(tmp_path, config="experiments/frozen.yaml"), "--data.validation_fraction", "0.5"]

    def loss(*more: str) -> float:
        assert validate([*words, *more]) == 0
        return float(json.loads(capsys.readouterr().out.splitlines()[-1])["val/loss"])

    text = file_of(tmp_path, "Please: {question} Answer with one word.", "brief.yaml")
    plain, worded = loss(), loss("--prompt-text", text)
    assert worded != plain
    assert loss("--prompt-text", text) == worded
    experiment = parse_experiment([*words, "--prompt-text", text])
    assert isinstance(experiment.data.template, RewordedTemplate)
