"""A user's mistake ends in at most three lines on standard error and the right exit code; nothing is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.commands import fit
from experiments.commands.validate import validate
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.tuning.module import TuningModule
from tests.support.small_experiment import small_words

PUBLISHED = "experiments/m2pt_vicuna7b.yaml"
M2PT_CLASS = "lightning_m2pt.methods.m2pt.M2PT"
BEST_IS_EVALUATED = '[{"class_path": "callbacks.best_adapter.BestAdapter", "init_args": {"evaluated": "best"}}]'


def run(capfd, *words: str) -> tuple[int, list[str]]:
    """Runs the command in this process; returns the exit code and every line it wrote anywhere."""
    code = main(list(words))
    captured = capfd.readouterr()
    return code, [line for line in (captured.out + captured.err).splitlines() if line.strip()]


def assert_three_lines(code: int, lines: list[str], *named: str) -> None:
    assert code == ExitCode.BAD_INPUT
    assert len(lines) <= 3, lines
    assert lines[0].startswith("error: "), lines
    for text in named:
        assert text in " ".join(lines), lines


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model.method.visual_lenght", "3"], ["model.method.visual_lenght", "did you mean visual_length?"]),
        (["--model.method.visual_lenght.first", "3"], ["model.method.visual_lenght: ", "did you mean visual_length?"]),
        (["--trainer.max_stepz", "3"], ["trainer.max_stepz", "did you mean max_steps?"]),
        (["--model.method.visual_length", "ten"], ["model.method.visual_length", "'ten'", "int"]),
        (["--model.method.visual_length=-4"], ["model.method.visual_length", "-4 is negative"]),
        (["--model.method.visual_layers=[99]"], ["visual_layers", "layer 99 of 24 does not exist"]),
        (["--model.method.visual_layers=[0,1]"], ["visual_layers", "visual_rows_to_text"]),
        (["--model.method.visual_depth=shallow"], ["visual_depth", "visual_rows_to_text: none"]),
        (["--model.method.dropout=1.5"], ["model.method.dropout"]),
        (["--model.schedule.name", "cos"], ["model.schedule.name", "'cosine'"]),
        (["--model.optimizer.learning_rate=-1"], ["model.optimizer.learning_rate"]),
        (["--model.optimizer.learning_rate.prompts=1"], ["model.optimizer.learning_rate", "visual_prompts"]),
        (["--model.method", "lightning_m2pt.methods.m2pt.M3PT"], ["model.method", "M3PT"]),
        (["--data.batch_size", "x"], ["data.batch_size", "int"]),
        (["--data.batch_size", "0"], ["data.batch_size"]),
        (["--trainer.accumulate_grad_batches", "2"], ["trainer.accumulate_grad_batches"]),
        (["--bogus", "1"], ["bogus"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_wrong_arguments(capfd, tmp_path, words, named):
    code, lines = run(capfd, "params", "--config", PUBLISHED, "--output_root", str(tmp_path / "out"), *words)
    assert_three_lines(code, lines, *named)
    assert any(place in lines[0] for place in ("command line: ", f"{PUBLISHED}:", "experiments/parts/vicuna7b.yaml:"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        (
            "model:\n  method:\n    class_path: " + M2PT_CLASS + "\n    init_args:\n      visual_lenght: 3\n",
            5,
            "visual_lenght",
        ),
        ("model:\n  optimiser:\n    learning_rate: 1\n", 2, "optimizer"),
        ("seed_everything: 1\nseed_everything: 2\n", 2, "also written on line 1"),
        ("data:\n\tx: 1\n", 2, ""),
        ("model: [1, 2\n", 2, ""),
        ("trainer:\n  max_steps: many\n", 2, "trainer.max_steps"),
        ("model: !!python/name:os.system\n", 1, "not allowed"),
    ],
    ids=["misspelt key", "misspelt group", "duplicate key", "tab", "bracket", "wrong type", "tag"],
)
def test_wrong_files_name_file_and_line(capfd, tmp_path, text, line, named):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    code, lines = run(capfd, "params", "--config", PUBLISHED, "--config", str(path))
    assert_three_lines(code, lines, f"{path}:{line}", named)


@pytest.mark.parametrize("content", [None, "", "- 1\n", b"\xff\xfe\x00"], ids=["missing", "empty", "list", "binary"])
def test_files_that_are_no_experiment(capfd, tmp_path, content):
    path = tmp_path / "experiment.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, lines = run(capfd, "params", "--config", str(path))
    assert_three_lines(code, lines, str(path))


def test_published_experiment_says_which_files_are_missing(capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("M2PT_MODELS", str(tmp_path))
    code, lines = run(capfd, "fit", "--config", PUBLISHED, "--output_root", str(tmp_path / "out"))
    assert_three_lines(code, lines, "open_clip_model.safetensors", "projector.safetensors", "vicuna7b/README.md")
    assert not (tmp_path / "out").exists()


def test_unknown_verb(capfd):
    code, lines = run(capfd, "evalute")
    assert_three_lines(code, lines, "did you mean `m2pt evaluate`?")


def test_frozen_method_cannot_be_tuned(capfd, tmp_path):
    code, lines = run(capfd, "fit", "--config", "experiments/frozen.yaml", "--output_root", str(tmp_path))
    assert_three_lines(code, lines, "model.method", "m2pt evaluate")


@pytest.mark.parametrize("verb", [("validate",), ("fit", "--validate")])
def test_without_a_validation_split_there_is_nothing_to_validate(capfd, tmp_path, verb):
    code, lines = run(capfd, *verb, *small_words(tmp_path))
    assert_three_lines(code, lines, "there is no validation split", "data.validation_file")


def test_fitting_and_validating_at_once_gives_what_validating_the_run_gives(capfd, tmp_path):
    words = [*small_words(tmp_path, steps=2, batch_size=4), "--data.validation_fraction", "0.5"]
    folder = ["--run", str(tmp_path / "run")]
    tuned, again, alone = (
        next(line for line in run(capfd, *command)[1] if line.startswith("{"))
        for command in (
            ["fit", *words, *folder, "--validate"],
            ["fit", *words, *folder, "--validate"],  # complete: only validated
            ["validate", *folder],
        )
    )
    assert set(json.loads(tuned)) == {"val/loss", "val/answer_accuracy"}
    assert tuned == again == alone


@pytest.mark.parametrize(
    ("words", "times"),
    [
        ([], 0),
        (["--trainer.limit_val_batches", "8"], 0),
        (["--trainer.precision", "bf16-mixed"], 1),
        (["--trainer.callbacks", BEST_IS_EVALUATED], 1),
    ],
)
def test_a_run_that_has_validated_its_last_step_does_not_do_it_again(capfd, monkeypatch, tmp_path, words, times):
    fraction = ["--data.validation_fraction", "0.5"]
    asked = []
    monkeypatch.setattr(fit, "validate", lambda *which, **how: asked.append(1) or validate(*which, **how))
    words = [*small_words(tmp_path, steps=2, batch_size=4), *fraction, *words, "--run", str(tmp_path / "run")]
    lines = run(capfd, "fit", *words, "--validate")[1]
    assert len(asked) == times
    tuned = next(line for line in lines if line.startswith("{"))
    assert tuned == next(line for line in run(capfd, "validate", *words[-2:])[1] if line.startswith("{"))


@pytest.mark.parametrize(("batch_size", "micro", "samples"), [(1, 1, 1), (2, 1, 2)], ids=["whole", "split"])
def test_fitting_and_validating_keeps_to_the_limit(capfd, monkeypatch, tmp_path, batch_size, micro, samples):
    """The first batches, whether tuned just now or found complete; the run alone is validated on all."""
    validated, step = set(), TuningModule.validation_step

    def noted(self, batch, batch_idx):
        validated.update(batch.sample_ids)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TuningModule, "validation_step", noted)
    words = [*small_words(tmp_path, steps=2, batch_size=batch_size), "--data.validation_fraction", "0.5"]
    words += ["--data.micro_batch_size", str(micro)]
    folder = ["--run", str(tmp_path / "run")]
    limited = ["fit", *words, *folder, "--trainer.limit_val_batches", "1", "--validate"]
    measured = {}
    for name, command in {"now": limited, "again": limited, "all": ["validate", *folder]}.items():
        validated.clear()
        line = next(line for line in run(capfd, *command)[1] if line.startswith("{"))
        measured[name] = (line, len(validated))
    assert measured["now"] == measured["again"] != measured["all"]
    assert measured["now"][1] == samples < measured["all"][1]


def test_fitting_and_validating_on_nothing_is_refused(capfd, tmp_path):
    words = [*small_words(tmp_path), "--data.validation_fraction", "0.5", "--trainer.limit_val_batches", "0"]
    code, lines = run(capfd, "fit", *words, "--validate")
    assert_three_lines(code, lines, "trainer.limit_val_batches", "nothing is left")


def test_output_folder_that_cannot_be_written(capfd, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    code, lines = run(capfd, "fit", *small_words(tmp_path), "--output_root", str(blocked))
    assert code == ExitCode.ENVIRONMENT
    assert len(lines) <= 3
    assert str(blocked) in " ".join(lines)
    assert blocked.read_text() == "in the way"


def test_help_needs_neither_torch_nor_lightning():
    show_help = "import sys; from lightning_m2pt.main import main; main(['--help'])"
    program = f"{show_help}; print([m for m in ('torch', 'lightning', 'transformers') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert answer.stdout.strip().endswith("[]")
    assert "m2pt train --config experiments/m2pt_base.yaml" in answer.stdout


def test_deepspeed_is_refused_without_gpus_and_without_its_package(capfd, tmp_path, monkeypatch):
    words = [*small_words(tmp_path), "--config", "experiments/strategies/deepspeed_stage_2.yaml"]
    code, lines = run(capfd, "fit", *words)
    assert_three_lines(code, lines)
    assert lines[0] == "error: trainer.strategy: DeepSpeed is for GPUs, and the device is cpu"
    monkeypatch.setattr("lightning_m2pt.parallel.zero._DEEPSPEED_AVAILABLE", False)
    code, lines = run(capfd, "fit", *words)
    assert code == ExitCode.ENVIRONMENT
    assert lines[0] == "error: trainer.strategy: ZeroStrategy needs deepspeed, which is not installed here"
    assert len(lines) == 3
