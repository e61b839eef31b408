"""The shipped projector: files as recorded, small, of the recipe, with what it reached on its card."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.alignment.export import PROJECTOR
from experiments.alignment.rendered import files_below
from experiments.alignment.settings import ALIGNMENT_VERSION, ALIGNMENTS
from experiments.alignment.training import LARGEST_BYTES, start_projector
from experiments.testbed.world_version import WORLD_VERSION
from lightning_m2pt.backbones.pairs.alignment_record import record_beside
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.report.tables.backbone_gates import gate_notes
from lightning_m2pt.storage.foreign.smollm2_dinov2 import LANGUAGE, VISION


@pytest.fixture(params=list(ALIGNMENTS))
def folder(request) -> Path:
    return EMBEDDED / request.param


@pytest.fixture
def record(folder) -> dict:
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))


def test_the_record_is_of_the_recipe(folder, record):
    settings = ALIGNMENTS[folder.name]
    assert record["settings"] == json.loads(json.dumps(asdict(settings)))
    assert record["alignment_version"] == ALIGNMENT_VERSION
    assert record["world_version"] == WORLD_VERSION
    assert record["steps"] * 8 == settings.pictures
    assert record["losses"][-1]["step"] == record["steps"]
    assert record["wheels"][LANGUAGE.file]["sha256"] == LANGUAGE.sha256
    assert record["wheels"][VISION.file]["sha256"] == VISION.sha256


def test_the_files_are_those_recorded(folder, record):
    files = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
    assert set(files) == {*record["files"], "training.json"}
    for name, expected in record["files"].items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == expected, name


def test_the_record_names_the_weights_of_a_fetched_pair(folder, record):
    """Under the names that ``m2pt models fetch`` writes: by these other models are refused."""
    read = record_beside(folder / PROJECTOR)
    assert set(read.base) == {"vision/model.safetensors", "language/model.safetensors"}
    assert (read.base, read.projector) == (record["base"], record["files"][PROJECTOR])
    assert f"m2pt models fetch {folder.name} makes" in read.remedy()
    assert f"m2pt backbone --name {folder.name} --output" in read.remedy()


def test_the_projector_is_small_and_trained(folder):
    assert (folder / PROJECTOR).stat().st_size < LARGEST_BYTES
    tensors = load_file(folder / PROJECTOR)
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()} == {
        "weight": ((576, 384), torch.float32),
        "bias": ((576,), torch.float32),
    }
    settings = ALIGNMENTS[folder.name]
    start = start_projector(576, 384, settings.seed, settings.start_deviation)
    assert float((tensors["weight"] - start["weight"]).norm() / start["weight"].norm()) > 0.1


def test_the_gates_follow_from_figures_and_fail_without_training(folder, record):
    report, settings = record["gates"], ALIGNMENTS[folder.name]
    tokens, whole = report["gates"]
    assert (tokens["threshold"], whole["threshold"]) == (settings.caption_tokens, settings.whole_captions)
    assert (tokens["figure"], whole["figure"]) == (
        report["aligned"]["tokens_right"],
        report["aligned"]["whole_captions"],
    )
    for gate in report["gates"]:
        assert gate["verdict"] == ("passed" if gate["figure"] >= gate["threshold"] else "open")
    assert report["aligned"]["captions"] == settings.unseen
    assert report["start"]["tokens_right"] < settings.caption_tokens
    assert report["start"]["whole_captions"] < settings.whole_captions
    missed = [gate for gate in report["gates"] if gate["verdict"] == "open"]
    pair = {"vision_tower": "/m/vision", "language_model": "/m/language", "projector": str(folder / PROJECTOR)}
    assert len(gate_notes({"init_args": pair}, [Path()])) == bool(missed)


def test_the_card_has_gates_bases_losses_and_hashes(folder, record):
    card = (folder / "README.md").read_text(encoding="utf-8")
    for gate in record["gates"]["gates"]:
        line = f"| {gate['name']} | {gate['threshold']:.2f} | {gate['figure']:.3f} | {gate['questions']} |"
        assert f"{line} {gate['verdict']} |" in card
    for name, value in {**record["base"], PROJECTOR: record["files"][PROJECTOR]}.items():
        assert f"| `{name}` | `{value}` |" in card
    for each in record["losses"]:
        assert f"| {each['step']:.0f} | {each['loss']:.3f} |" in card
    for words in (LANGUAGE.sha256, VISION.sha256, "Apache-2.0", "What it cannot do", "No question"):
        assert words in card
    assert "not aligned" not in card
