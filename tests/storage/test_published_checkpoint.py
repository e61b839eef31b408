"""A checkpoint of M2PT's published code becomes a base and an adapter that compute the same, and back to the bit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.main import main
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.runs.loading import load_with_adapter
from lightning_m2pt.storage.adapter_folder import read_adapter_config
from lightning_m2pt.storage.foreign.published_import import base_backbone
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.testing.small_processor import word_tokenizer
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule
from tests.storage.foreign_files import PICTURES
from tests.storage.published_model import (
    SHARDS,
    TEXT_WIDTH,
    TEXTUAL_LENGTH,
    TOWER_NAME,
    VISION_WIDTH,
    VISUAL_LENGTH,
    PublishedModel,
    write_checkpoint,
)
from tests.support.adapters.no_paths import paths_said
from tests.support.small_experiment import run_with_a_set
from tests.support.towers.float64_islands import float64_islands

OURS = {
    f"{TOWER_NAME}encoder.prompts.": "visual_prompts.rows.",
    "model.prompts.": "textual_prompts.rows.",
    "model.mm_projector.": "interaction.",
    "lm_head.": "lm_head.",
}


def our_name(published: str) -> str:
    return next(ours + published.removeprefix(theirs) for theirs, ours in OURS.items() if published.startswith(theirs))


def imported(folder: Path, model: PublishedModel, dtype: torch.dtype = torch.float32) -> Path:
    """Writes a checkpoint and converts it; returns the new folder."""
    write_checkpoint(folder / "checkpoint", model.state(dtype))
    word_tokenizer().save_pretrained(str(folder / "checkpoint"))
    words = ["convert", str(folder / "checkpoint"), "--output", str(folder / "imported")]
    assert main([*words, "--tower", str(folder / "checkpoint" / "tower")]) == 0
    return folder / "imported"


def loaded(folder: Path, path: str = "auto") -> TuningModule:
    """Returns the imported base with its adapter, in float64."""
    method = M2PT(**{**read_adapter_config(folder / "adapter")["arguments"], "path": path})
    module = TuningModule(base_backbone(folder / "base", "float64"), method)
    module.check()
    module.backbone.check_files()
    load_with_adapter(folder / "adapter", module)
    method.double()
    method.attach(module.backbone)
    return module


def largest_relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-300))


@pytest.mark.parametrize("path", ["token", "prefix"])
@pytest.mark.parametrize(
    "lengths", [(VISUAL_LENGTH, TEXTUAL_LENGTH), (1, 1), (0, 2), (3, 0)], ids=["both", "one", "textual", "visual"]
)
def test_logits_loss_gradients_and_answers_are_the_published_ones(tmp_path, monkeypatch, lengths, path):
    model, batch = PublishedModel(*lengths), random_batch(dtype=torch.float64)
    module = loaded(imported(tmp_path, model), path)
    backbone, method = module.backbone, module.method
    model.double()
    with float64_islands(monkeypatch, model, backbone):
        expected = model.logits(batch.input_ids, batch.pixel_values)
        found = backbone.logits(backbone(batch).hidden_states)
        assert found.shape[1] == expected.shape[1] - lengths[1]
        assert largest_relative(expected[:, lengths[1] :], found) < 1e-12
        loss = model.loss(batch.input_ids, batch.labels, batch.pixel_values)
        loss.backward()
        ours = supervised_rows(backbone, batch).losses.mean()
        ours.backward()
        assert float(ours) == pytest.approx(float(loss), rel=1e-12)
        found_gradients = {name: one.grad for name, one in method.named_tensors().items()}
        published = {our_name(name): one.grad for name, one in model.trained().items()}
        assert set(found_gradients) == set(published)
        for name, gradient in published.items():
            assert largest_relative(gradient, found_gradients[name]) < 1e-11, name
        question = random_batch(size=1, answer=1, dtype=torch.float64)
        ids = question.input_ids[:, :-1]  # the last of a batch is one token shorter
        asked = Batch(question.pixel_values, ids, torch.full_like(ids, -100), question.spans[:, :-1], ["s"], [("t",)])
        with torch.no_grad():
            answer = greedy_answers(backbone, asked, max_new_tokens=6, end_token_id=-1)[0].token_ids
            assert answer == model.greedy(ids, question.pixel_values, 6)


def test_the_dropped_row_is_the_first_of_the_last_visual_prompt(tmp_path):
    model = PublishedModel()
    method = loaded(imported(tmp_path, model)).method
    assert method.dead_rows() == {"visual_prompts.rows.3": [0]}
    model.double()
    batch = random_batch(dtype=torch.float64)
    model.loss(batch.input_ids, batch.labels, batch.pixel_values).backward()
    assert not model.visual[-1].grad[:, 0].any()
    assert model.visual[-1].grad[:, 1:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_there_and_back_is_the_same_to_the_bit(tmp_path, dtype):
    state = PublishedModel().state(dtype)
    folder = imported(tmp_path, PublishedModel(), dtype)
    config = read_adapter_config(folder / "adapter")
    assert config["arguments"]["visual_length"] == VISUAL_LENGTH
    assert config["arguments"]["textual_length"] == TEXTUAL_LENGTH
    assert config["template"] == "vicuna_v1"
    assert (config["base"]["kind"], paths_said(folder / "adapter")) == ("files", [])
    words = ["--adapter", str(folder / "adapter"), "--config", "experiments/frozen.yaml"]
    words += ["--config", str(folder / "backbone.yaml"), "--output", str(tmp_path / "back")]
    assert main(["export", "checkpoint", *words]) == 0
    shards = [torch.load(tmp_path / "back" / shard, weights_only=True) for shard in SHARDS]
    found = shards[0] | shards[1]
    assert set(found) == set(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
    assert {name for name in state if "prompts" in name or name.startswith("lm_head")} <= set(shards[1])
    places = json.loads((tmp_path / "back" / "pytorch_model.bin.index.json").read_text())["weight_map"]
    assert places == {name: shard for shard, part in zip(SHARDS, shards, strict=True) for name in part}
    original = (tmp_path / "checkpoint" / "config.json").read_bytes()
    assert (tmp_path / "back" / "config.json").read_bytes() == original
    assert (tmp_path / "back" / "tokenizer.json").is_file()


def test_parts_alone_become_an_adapter_of_a_base_that_is_there(tmp_path):
    model = PublishedModel()
    folder = imported(tmp_path, model)
    trained = {name: one.detach() for name, one in model.trained().items()}
    base = ["--config", "experiments/frozen.yaml", "--config", str(folder / "backbone.yaml")]
    lists = tmp_path / "lists"
    lists.mkdir()
    torch.save(model.visual.state_dict(), lists / "vision_prompt.bin")
    torch.save(model.textual.state_dict(), lists / "llm_prompt.bin")
    projector = {name: one for name, one in trained.items() if "projector" in name}
    torch.save(projector, lists / "mm_projector.bin")
    torch.save(trained, tmp_path / "flat.bin")
    forms = {
        "lists": ([str(lists)], False),
        "flat": ([str(tmp_path / "flat.bin")], True),
        "second_shard": ([str(tmp_path / "checkpoint" / SHARDS[1])], True),
        "whole": ([str(tmp_path / "checkpoint")], True),
    }
    whole = loaded(folder).method.named_tensors()
    for name, (sources, has_head) in forms.items():
        assert main(["convert", *sources, *base, "--output", str(tmp_path / "made" / name)]) == 0
        assert not (tmp_path / "made" / name / "base").exists()
        shutil.copytree(folder / "base", tmp_path / "made" / name / "base")
        found = loaded(tmp_path / "made" / name).method.named_tensors()
        assert set(found) == {key for key in whole if has_head or not key.startswith("lm_head")}
        assert all(torch.equal(found[key], whole[key]) for key in found)


def test_prompts_on_the_tower_of_transformers_itself(tmp_path, monkeypatch):
    """A pair of the folders as the hub has them, with the published prompts, projector and head on it."""
    model = PublishedModel()
    write_checkpoint(tmp_path / "checkpoint", model.state())
    word_tokenizer().save_pretrained(str(tmp_path / "language"))
    model.language.save_pretrained(tmp_path / "language")
    model.tower.save_pretrained(tmp_path / "tower")
    (tmp_path / "tower" / "preprocessor_config.json").write_text(json.dumps(PICTURES))
    save_file(nn.Linear(VISION_WIDTH, TEXT_WIDTH).state_dict(), tmp_path / "projector.safetensors")
    paths = {"vision_tower": "tower", "language_model": "language", "projector": "projector.safetensors"}
    pair = {"class_path": f"{TowerAndDecoder.__module__}.{TowerAndDecoder.__name__}", "init_args": paths}
    (tmp_path / "pair.yaml").write_text(json.dumps({"model": {"backbone": pair}}))
    words = ["convert", str(tmp_path / "checkpoint"), "--config", "experiments/frozen.yaml"]
    words += ["--config", str(tmp_path / "pair.yaml"), "--output", str(tmp_path / "made")]
    assert main(words) == 0
    arguments = read_adapter_config(tmp_path / "made" / "adapter")["arguments"]
    backbone = TowerAndDecoder(**{key: str(tmp_path / path) for key, path in paths.items()}, dtype="float64")
    module = TuningModule(backbone, M2PT(**arguments))
    load_with_adapter(tmp_path / "made" / "adapter", module)
    module.method.double()
    batch = random_batch(dtype=torch.float64)
    with float64_islands(monkeypatch, model.double(), backbone), torch.no_grad():
        expected = model.logits(batch.input_ids, batch.pixel_values)[:, TEXTUAL_LENGTH:]
        assert largest_relative(expected, backbone.logits(backbone(batch).hidden_states)) < 1e-12


def test_a_run_goes_there_and_back_and_answers_as_before(tmp_path):
    """Through both commands and the imported base, on invented questions and the embedded backbone."""
    lengths = ["--model.method.visual_length", "3", "--model.method.textual_length", "2"]
    run = run_with_a_set(tmp_path / "run", *lengths)
    assert main(["evaluate", "--run", str(run)]) == 0
    published, back = tmp_path / "published", tmp_path / "back"
    assert main(["export", "checkpoint", "--run", str(run), "--output", str(published)]) == 0
    config = json.loads((published / "config.json").read_text())
    assert config["model_type"] == "llava_finetune"
    words = ["convert", str(published), "--output", str(back)]
    assert main([*words, "--tower", "lightning_m2pt/embedded/testbed/vision"]) == 0
    benchmarks = json.loads((run / "config.yaml").read_text())["benchmarks"]
    words = ["--config", "experiments/frozen.yaml", "--config", str(back / "backbone.yaml")]
    words += ["--adapter", str(back / "adapter"), "--benchmarks", json.dumps(benchmarks)]
    assert main(["evaluate", *words, "--output", str(tmp_path / "answers")]) == 0
    before, after = (
        [json.loads(line) for line in (folder / "predictions" / "vsr.jsonl").read_text().splitlines()[1:]]
        for folder in (run, tmp_path / "answers")
    )
    assert after == before
