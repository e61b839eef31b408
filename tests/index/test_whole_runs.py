"""A whole tuning from an index is the one that read its set: run's name, losses and adapter, byte for byte."""

import csv
from pathlib import Path

import pytest

from data_modules.conversations import Conversations
from lightning_m2pt.inputs.processing import Processor
from tests.support.small_experiment import fitted, small_words

# Sample answers encode their questions by themselves.
WITHOUT_ANSWERS = ["--trainer.callbacks+", "callbacks.sample_answers.SampleAnswers", "--trainer.callbacks.samples", "0"]


def run_of(folder: Path, name: str, *words: str) -> tuple[str, list[list[str]], bytes]:
    """Tunes three steps; returns the run's name, the losses of every step, and the adapter."""
    common = ["--data.validation_fraction", "0.4", "--data.group_by_length", "2", *WITHOUT_ANSWERS]
    output = ["--output_root", str(folder / name)]
    _, run = fitted([*small_words(folder, batch_size=4, steps=3), *common, *output, *words])
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    losses = [[row[key] for key in sorted(row) if "loss" in key] for row in rows]
    return run.name, losses, (run / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_run_from_an_index_is_the_run_without(tmp_path: Path, monkeypatch) -> None:
    expected = run_of(tmp_path, "none", "--data.index", "false")
    assert any(any(losses) for losses in expected[1])
    kept = ("--data.index_folder", str(tmp_path / "index"))
    assert run_of(tmp_path, "first", *kept) == expected
    monkeypatch.setattr(Conversations, "read", lambda _: pytest.fail("read again"))
    monkeypatch.setattr(Processor, "encode_each", lambda *_, **__: pytest.fail("encoded again"))
    assert run_of(tmp_path, "second", *kept) == expected
