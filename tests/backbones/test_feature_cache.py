"""Cached features of the frozen tower: the same numbers, and never where something in the tower is trained."""

import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from lightning_m2pt.backbones.feature_cache import COUNTER, FeatureCache, bytes_below, digest_of, reserve
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch, write_configs
from lightning_m2pt.tuning.losses import supervised_rows

ROOM = 10**9


@pytest.fixture
def cached(tmp_path: Path) -> OpenClipLlama:
    return with_cache(tmp_path)


def with_cache(
    folder: Path, dtype: torch.dtype = torch.float64, maximum_bytes: int = ROOM, computing: str = "a tower"
) -> OpenClipLlama:
    backbone = random_backbone(folder, dtype)
    backbone.requires_grad_(False)
    backbone.feature_cache = FeatureCache(folder / "features", maximum_bytes, computing)
    return backbone


def files(folder: Path) -> list[Path]:
    return sorted((folder / "features").glob("*/*/*.safetensors"))


def count_tower(backbone: OpenClipLlama, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that grows by the number of pictures whenever the tower runs."""
    original: Callable[[Tensor], Tensor] = backbone.vision_states
    pictures: list[int] = []

    def counted(pixel_values: Tensor) -> Tensor:
        pictures.append(len(pixel_values))
        return original(pixel_values)

    monkeypatch.setattr(backbone, "vision_states", counted)
    return pictures


def test_every_picture_is_computed_once_and_comes_back_bit_for_bit(cached, tmp_path, monkeypatch):
    pixels = random_batch(dtype=torch.float64).pixel_values
    expected = cached.vision_states(pixels)[:, 1:]
    pictures = count_tower(cached, monkeypatch)
    for _ in range(2):
        assert torch.equal(cached.visual_rows(pixels).rows, expected)
    assert pictures == [3]
    twice = pixels[[2, 0, 2, 1]]
    assert torch.equal(cached.visual_rows(twice).rows, expected[[2, 0, 2, 1]])
    assert pictures == [3]
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=str)
def test_features_of_smaller_batches_differ_in_rounding_only(tmp_path, dtype, tolerance):
    """The missing pictures of a batch are computed without the others: other batch sizes, other last bits."""
    backbone, pixels = with_cache(tmp_path, dtype), random_batch(size=5, dtype=dtype).pixel_values
    expected = backbone.vision_states(pixels)[:, 1:]
    backbone.visual_rows(pixels[3:4])
    backbone.visual_rows(pixels[:2])
    assert len(files(tmp_path)) == 3
    mixed = backbone.visual_rows(pixels).rows
    assert len(files(tmp_path)) == 5
    assert torch.allclose(mixed, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_loss_and_gradients_are_those_without_a_cache(tmp_path):
    results = []
    for name in ("without", "empty", "full"):
        backbone = with_cache(tmp_path)
        if name == "without":
            backbone.feature_cache = None
        method = built(M2PT(visual_length=0, textual_length=4), backbone)
        loss = supervised_rows(backbone, random_batch(dtype=torch.float64)).losses.sum()
        tensors = [parameter for part in method.parts().values() for _, parameter in part]
        results.append([loss.detach(), *torch.autograd.grad(loss, tensors)])
    assert len(files(tmp_path)) == 3
    assert len(results[0]) > 3
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def built(method: Method, backbone: OpenClipLlama) -> Method:
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    freeze_all_but_declared(torch.nn.ModuleList([method, backbone]), method)
    return method


@pytest.mark.parametrize(
    ("method", "is_used"),
    [
        (M2PT(visual_length=0, textual_length=4), True),
        (Lora(2, vision=False), True),
        (M2PT(visual_length=4, textual_length=0), False),
        (Lora(2, vision=True), False),
        (LayerNormTuning(vision=True), False),
        (Full(vision=True), False),
    ],
    ids=["projector and textual prompts", "lora", "visual prompts", "visual lora", "visual norms", "full"],
)
def test_only_a_tower_without_trained_tensors_is_cached(cached, tmp_path, method, is_used):
    built(method, cached)
    cached(random_batch(dtype=torch.float64))
    assert bool(files(tmp_path)) == is_used


def test_answering_pixel_gradients_and_hooks_run_the_tower(cached, tmp_path, monkeypatch):
    batch = random_batch(dtype=torch.float64)
    cached(batch)
    pictures = count_tower(cached, monkeypatch)
    with torch.no_grad():
        cached(batch)
    pixels = batch.pixel_values.clone().requires_grad_()
    cached(replace(batch, pixel_values=pixels)).hidden_states.sum().backward()
    assert bool(pixels.grad.abs().sum() > 0)
    handle = cached.vision_tower.transformer.resblocks[1].register_forward_hook(lambda *_: None)
    cached(batch)
    handle.remove()
    assert pictures == [3, 3, 3]
    cached(batch)
    assert pictures == [3, 3, 3]


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None], ids=["empty", "other", "one flipped bit"])
def test_a_damaged_file_is_computed_again_and_replaced(cached, tmp_path, damage):
    pixels = random_batch(dtype=torch.float64).pixel_values
    expected = cached.visual_rows(pixels).rows
    before = {path: path.read_bytes() for path in files(tmp_path)}
    for path, content in before.items():
        flipped = content[:-7] + bytes([content[-7] ^ 1]) + content[-6:]
        path.write_bytes(flipped if damage is None else damage)
    assert torch.equal(cached.visual_rows(pixels).rows, expected)
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


def test_another_tower_type_or_picture_has_another_name(tmp_path):
    pixels = random_batch(dtype=torch.float64).pixel_values
    for seed, dtype in ((0, torch.float64), (0, torch.float32), (1, torch.float64)):
        backbone = random_backbone(tmp_path, dtype, seed)
        backbone.requires_grad_(False)
        backbone.feature_cache = FeatureCache(tmp_path / "features", ROOM, "a tower")
        expected = backbone.vision_states(pixels.to(dtype))[:, 1:]
        assert torch.equal(backbone.visual_rows(pixels.to(dtype)).rows, expected)
    assert len(files(tmp_path)) == 9
    assert len({path.stem for path in files(tmp_path)}) == 6  # the tower's name is that of the folder above


def test_the_same_weights_in_another_kind_of_tower_have_other_features(tmp_path):
    """An activation function or a number of heads changes no tensor."""
    pixels = random_batch(dtype=torch.float64).pixel_values
    for number, computing in enumerate(("gelu", "quick gelu"), start=1):
        backbone = with_cache(tmp_path, computing=computing)
        backbone.visual_rows(pixels)
        assert len(files(tmp_path)) == 3 * number


def test_the_cache_of_a_backbone_knows_its_configuration(tmp_path):
    write_configs(tmp_path)
    names = []
    for quick_gelu in (False, True):
        path = tmp_path / "open_clip_config.json"
        content = json.loads(path.read_text())
        content["model_cfg"]["quick_gelu"] = quick_gelu
        path.write_text(json.dumps(content))
        backbone = OpenClipLlama(str(path), "none", str(tmp_path), "none", "none", feature_cache=str(tmp_path / "f"))
        names.append(backbone.feature_cache.computing)
    assert names[0] != names[1]


def test_a_full_cache_says_so_once_and_is_still_read(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="lightning_m2pt")
    backbone, batch = with_cache(tmp_path), random_batch(dtype=torch.float64)
    backbone.visual_rows(batch.pixel_values[:1])
    one = bytes_below(tmp_path / "features")
    backbone.feature_cache = FeatureCache(tmp_path / "features", 2 * one, "a tower")
    pictures = count_tower(backbone, monkeypatch)
    for _ in range(2):
        backbone.visual_rows(batch.pixel_values)
    assert pictures == [2, 1]
    assert bytes_below(tmp_path / "features") == 2 * one
    assert [record.message for record in caplog.records] == [
        f"the feature cache {tmp_path / 'features'} is full at {2 * one} bytes"
    ]


def test_a_folder_that_cannot_be_written_costs_no_training(tmp_path, caplog):
    backbone = with_cache(tmp_path)
    (tmp_path / "features").write_text("a file stands in the way")
    pixels = random_batch(dtype=torch.float64).pixel_values
    for _ in range(2):
        assert torch.equal(backbone.visual_rows(pixels).rows, backbone.vision_states(pixels)[:, 1:])
    assert len(caplog.records) == 1
    assert "takes nothing more" in caplog.text


def test_a_lost_count_is_made_again_from_the_files(tmp_path):
    backbone = with_cache(tmp_path)
    backbone.visual_rows(random_batch(dtype=torch.float64).pixel_values)
    folder = tmp_path / "features"
    counted = bytes_below(folder)
    for content in ("", "12", "x" * 20):
        (folder / COUNTER).write_text(content)
        assert not reserve(folder, 6, counted + 5)
        assert reserve(folder, 5, counted + 5)


def take_until_full(folder: Path, granted: "multiprocessing.Queue[int]") -> None:
    taken = 0
    while reserve(folder, 10, 10_000):
        taken += 1
    granted.put(taken)


def test_processes_together_stay_below_the_limit(tmp_path):
    context = multiprocessing.get_context("fork")
    granted = context.Queue()
    processes = [context.Process(target=take_until_full, args=(tmp_path, granted)) for _ in range(3)]
    for process in processes:
        process.start()
    assert sum(granted.get(timeout=60) for _ in processes) == 1000
    for process in processes:
        process.join()


def test_a_cache_without_room_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="at least 1"):
        FeatureCache(tmp_path, 0, "a tower")


def test_a_folder_that_cannot_be_written_is_known_before_weights_load(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(EnvironmentFailure, match="features cannot be kept there"):
        FeatureCache(blocked / "features", 10**6, "").check()
    FeatureCache(tmp_path / "new" / "features", 10**6, "").check()
    assert (tmp_path / "new" / "features").is_dir()


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {**tensors, "features": tensors["features"].view(torch.int64)},
        lambda tensors: {**tensors, "features": tensors["features"].flatten()},
        lambda tensors: {**tensors, "features": tensors["features"].reshape(-1, 64)},
        lambda tensors: {**tensors, "features": tensors["features"][:, :-1].contiguous()},
        lambda tensors: {**tensors, "sha256": tensors["sha256"].long()},
        lambda tensors: {"features": tensors["features"]},
    ],
)
@pytest.mark.parametrize("is_sealed", [False, True])
def test_features_of_another_form_count_as_missing(cached, tmp_path, change, is_sealed):
    """A file relabelled as another type holds the same bytes; one that somebody sealed again has a right digest."""
    pixels = random_batch(dtype=torch.float64).pixel_values
    expected = cached.visual_rows(pixels).rows
    for path in files(tmp_path):
        changed = change(load(path.read_bytes()))
        if is_sealed and changed["features"].shape != expected.shape[1:]:
            changed["sha256"] = digest_of(changed["features"])
        path.write_bytes(save(changed))
    assert torch.equal(cached.visual_rows(pixels).rows, expected)
    assert all(load(path.read_bytes())["features"].dtype == torch.float64 for path in files(tmp_path))


def test_drafts_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = with_cache(tmp_path)
    monkeypatch.setattr(Path, "replace", lambda *_: os._exit(9))  # as a kill before the rename
    process = multiprocessing.get_context("fork").Process(
        target=lambda: backbone.patch_features(random_batch(dtype=torch.float64).pixel_values)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    folder = tmp_path / "features"
    assert len(list(folder.glob("**/.*.draft"))) == 1
    cache = backbone.feature_cache
    assert cache is not None
    cache.check()
    assert not list(folder.glob("**/.*.draft"))
