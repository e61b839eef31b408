"""Pairs under the verbs: three steps of tuning, twice alike, answers with and without shared prefixes, counts."""

import json
from pathlib import Path

import pytest

from data_modules.vsr import VSR
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.main import main
from lightning_m2pt.storage.adapter_folder import TENSOR_FILE
from tests.support.small_experiment import small_words
from tests.support.towers.stored_pairs import store_pair, stored_pair

pytestmark = pytest.mark.slow


def words_of(folder: Path, steps: int) -> list[str]:
    """Returns the words of a small experiment on a folder's pair, with one invented set."""
    places = {"vision_tower": "tower", "language_model": "language", "projector": "projector.safetensors"}
    backbone = f"{TowerAndDecoder.__module__}.{TowerAndDecoder.__name__}"
    init = {**places, "activation_checkpointing": True}
    (folder / "pair.yaml").write_text(json.dumps({"model": {"backbone": {"class_path": backbone, "init_args": init}}}))
    settings = {"root": str(folder / "vsr"), "template": "vicuna_v1", "batch_size": 4, "max_new_tokens": 5}
    sets = json.dumps([{"class_path": "data_modules.vsr.VSR", "init_args": settings}])
    lengths = ["--model.method.visual_length", "3", "--model.method.textual_length", "4"]
    return [*small_words(folder, steps=steps), "--config", str(folder / "pair.yaml"), *lengths, "--benchmarks", sets]


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2", "timm", "open_clip"])
def test_it_is_tuned_twice_alike_and_answers_alike_with_and_without_sharing(tmp_path: Path, tower: str) -> None:
    store_pair(tmp_path, tower)
    VSR.write_fake(tmp_path / "vsr")
    runs = []
    for root in ("one", "two"):
        assert main(["fit", *words_of(tmp_path, 3), "--output_root", str(tmp_path / root)]) == 0
        runs.append(next((tmp_path / root).glob("*/*/adapter")).parent)
    adapters = [(run / "adapter" / TENSOR_FILE).read_bytes() for run in runs]
    assert adapters[0] == adapters[1]
    answers = []
    for run, shares in zip(runs, ("true", "false"), strict=True):
        assert main(["evaluate", "--run", str(run), "--shared-prefix", shares]) == 0
        [file] = run.rglob("vsr.jsonl")
        answers.append([line for line in file.read_text().splitlines() if '"answer"' in line])
    assert [json.loads(line)["answer"] for line in answers[0]] == [json.loads(line)["answer"] for line in answers[1]]
    assert len(answers[0]) == 6


def test_what_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store_pair(tmp_path)
    backbone = stored_pair(tmp_path)
    backbone.load()
    assert main(["params", *words_of(tmp_path, 3)]) == 0
    assert f"{backbone.base_parameters():,}" in capsys.readouterr().out
