"""Pairs of every kind of tower: their libraries' own features, both ways alike, the contract, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.backbone_contract import backbone_contract, loaded
from lightning_m2pt.testing.passes import batch_for
from lightning_m2pt.tuning.losses import supervised_rows
from tests.support.towers.float64_islands import float64_islands
from tests.support.towers.small import IMAGE, LAYERS, PATCH, PATCHES, WIDTH
from tests.support.towers.stored_pairs import (
    LIBRARY_PICTURES,
    TEXT_WIDTH,
    TOWERS,
    store_pair,
    store_timm,
    store_tower,
    stored_pair,
)

LENGTH = 3
IN_FRONT = {"siglip": 0, "whole siglip": 0, "timm with registers": 5, "dinov2 with registers": 3, "dinov3": 3}


def pixels_for(dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, IMAGE, IMAGE, generator=generator, dtype=torch.float64).to(dtype)


def library_states(folder: Path, tower: str, layer: int) -> Tensor:
    """Returns a hidden state as the library gives it out, its model read by its own loader."""
    if tower.startswith("timm"):
        import timm

        model = timm.create_model(f"local-dir:{folder / 'tower'}", pretrained=True).eval().double()
        found = model.forward_intermediates(
            pixels_for(), indices=[layer - 1], intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
        )
        return torch.cat(found[0][::-1], dim=1)
    if tower == "open_clip":
        import open_clip

        content = json.loads((folder / "tower" / "open_clip_config.json").read_text())["model_cfg"]
        model = open_clip.CLIP(**content)
        model.load_state_dict(load_file(folder / "tower" / "open_clip_model.safetensors"))
        found = (
            model.eval()
            .double()
            .visual.forward_intermediates(
                pixels_for(), indices=[layer - 1], intermediates_only=True, output_fmt="NLC", output_extra_tokens=True
            )
        )
        return torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1)
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder / "tower", dtype=torch.float64, trust_remote_code=False).eval()
    model = getattr(model, "vision_model", model)
    return model(pixels_for(), output_hidden_states=True).hidden_states[layer]


def attached(backbone: TowerAndDecoder, **arguments: Any) -> M2PT:
    method = M2PT(**{"visual_length": LENGTH, "textual_length": 2, "init": "normal", "init_std": 0.5, **arguments})
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    return method


@pytest.mark.parametrize("tower", TOWERS)
def test_features_are_the_librarys(tmp_path: Path, tower: str) -> None:
    store_pair(tmp_path, tower)
    in_front = IN_FRONT.get(tower, 1)
    for layer, used in ((-2, LAYERS - 1), (-1, LAYERS), (2, 2)):
        backbone = stored_pair(tmp_path, "float64", feature_layer=layer)
        backbone.load()
        with torch.no_grad():
            rows = backbone.visual_rows(pixels_for())
            expected = library_states(tmp_path, tower, used)[:, in_front:]
        assert rows.spans == [Span.PATCH] * PATCHES
        torch.testing.assert_close(rows.rows, expected, rtol=0, atol=1e-13 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("tower", "mlp_width", "quick"), [("clip", 40, True), ("siglip", 40, False), ("timm", 48, False)]
)
def test_sizes_are_those_of_both_folders(tmp_path: Path, tower: str, mlp_width: int, quick: bool) -> None:
    store_pair(tmp_path, tower)
    shape = stored_pair(tmp_path, feature_layer=2).shape
    assert (shape.vision_layers, shape.vision_width, shape.vision_mlp_width) == (3, WIDTH, mlp_width)
    assert (shape.patches, shape.patch_size, shape.image_size) == (PATCHES, PATCH, IMAGE)
    assert (shape.vision_rows_in_front, shape.vision_quick_gelu) == (IN_FRONT.get(tower, 1), quick)
    assert (shape.text_layers, shape.text_width, shape.text_mlp_width) == (3, TEXT_WIDTH, 48)
    assert (shape.text_heads, shape.text_key_value_heads, shape.text_head_width) == (4, 2, 12)
    assert (shape.vocabulary_size, shape.maximum_positions, shape.runs_reference) == (50, 128, "")
    assert (shape.image_mean, shape.image_std) == ((0.5, 0.4, 0.6), (0.3, 0.25, 0.2))


@pytest.mark.parametrize("switch", ["pre_norm", "qk_norm"])
def test_features_of_timms_other_forms_are_the_librarys(tmp_path: Path, switch: str) -> None:
    store_pair(tmp_path, "timm")
    store_timm(tmp_path / "tower", registers=0, **{switch: True})
    backbone = stored_pair(tmp_path, "float64", feature_layer=-1)
    backbone.load()
    with torch.no_grad():
        found, expected = backbone.visual_rows(pixels_for()).rows, library_states(tmp_path, "timm", LAYERS)[:, 1:]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13 * float(expected.abs().max()))


@pytest.mark.parametrize("tower", TOWERS)
def test_both_ways_equal_the_librarys_pass_and_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tower: str
) -> None:
    store_pair(tmp_path, tower)
    backbone = loaded(lambda dtype: stored_pair(tmp_path, dtype), "float64")
    assert isinstance(backbone, TowerAndDecoder)
    batch, found = batch_for(backbone), []
    with float64_islands(monkeypatch, backbone):
        for path in ("token", "auto") if backbone.tower.prefix_refused else ("token", "prefix"):
            for rows_to_text in ("official", "all", "none"):
                method = attached(backbone, visual_rows_to_text=rows_to_text, path=path)
                with torch.no_grad():
                    rows = backbone.visual_rows(batch.pixel_values)
                    expected = backbone.library_visual_rows(batch.pixel_values)
                torch.testing.assert_close(rows.rows, expected, rtol=0, atol=1e-13 * float(expected.abs().max()))
                losses = supervised_rows(backbone, batch).losses
                losses.sum().backward()
                gradients = {name: each.grad for name, each in method.named_parameters()}
                found.append((rows.rows, losses.detach(), gradients))
                method.detach(backbone)
    for one, other in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(one[:2], other[:2], rtol=1e-12, atol=1e-12)
        assert [name for name, each in one[2].items() if each is None] == [
            name for name, each in other[2].items() if each is None
        ]
        for name, gradient in ((name, each) for name, each in one[2].items() if each is not None):
            scale = max(float(gradient.abs().max()), 1e-3)
            torch.testing.assert_close(gradient, other[2][name], rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize(
    ("tower", "names"),
    [
        ("clip", [Span.VISUAL_PROMPT] * (LENGTH - 1) + [Span.CLS]),
        ("siglip", [Span.VISUAL_PROMPT] * (LENGTH - 1)),
        ("timm with registers", [Span.VISUAL_PROMPT] * (LENGTH - 1) + [Span.CLS]),
    ],
)
def test_official_rows_are_the_published_slice(tmp_path: Path, tower: str, names: list[Span]) -> None:
    """Everything but the first row, which is a prompt's; where there is no CLS, none comes. Registers stay behind."""
    store_pair(tmp_path, tower)
    backbone = stored_pair(tmp_path, "float64")
    backbone.load()
    method = attached(backbone)
    rows = backbone.visual_rows(pixels_for())
    assert rows.spans == names + [Span.PATCH] * PATCHES
    assert method.visual_prompts is not None
    raw = method.visual_prompts.rows[str(LAYERS - 1)][:, 1:]
    assert torch.equal(rows.rows[:, : LENGTH - 1], raw.expand(2, -1, -1))
    assert backbone.rows_of_runs(pixels_for()) == [len(rows.spans)] * 2
    assert backbone.connected_rows(pixels_for()).counts == [len(rows.spans)] * 2


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    store_pair(tmp_path, "clip")
    backbone_contract(lambda dtype: stored_pair(tmp_path, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("tower", sorted(set(TOWERS) - {"clip"}))
def test_every_kind_keeps_the_contract(tmp_path: Path, tower: str) -> None:
    store_pair(tmp_path, tower, projector="linear" if tower == "dinov2" else "transformers")
    backbone_contract(lambda dtype: stored_pair(tmp_path, dtype, feature_layer=-1))


@pytest.mark.parametrize(
    ("tower", "norm"), [("siglip", "post_layernorm"), ("dinov2", "layernorm"), ("dinov3", "norm"), ("timm", "norm")]
)
def test_features_through_the_last_norm(tmp_path: Path, tower: str, norm: str) -> None:
    store_pair(tmp_path, tower)
    backbone = stored_pair(tmp_path, "float64", feature_layer=-1, feature_norm=True)
    backbone.load()
    attached(backbone, visual_rows_to_text="none")
    with torch.no_grad():
        rows = backbone.visual_rows(pixels_for()).rows
        torch.testing.assert_close(rows, backbone.library_visual_rows(pixels_for()), rtol=1e-12, atol=1e-12)
    assert any(name.startswith(f"vision_tower.{norm}.") for name in backbone.used_tensors()["vision"])


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2", "dinov2 with registers", "dinov3", "timm"])
def test_positions_are_interpolated_as_the_library_does(tmp_path: Path, tower: str) -> None:
    store_pair(tmp_path, tower)
    backbone = stored_pair(tmp_path, "float64", image_size=24)
    backbone.load()
    assert backbone.shape.patches == 36
    attached(backbone, visual_rows_to_text="all")
    pixels = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        rows = backbone.visual_rows(pixels).rows
        assert rows.shape == (2, LENGTH + 36, WIDTH)
        torch.testing.assert_close(rows, backbone.library_visual_rows(pixels), rtol=1e-12, atol=1e-12)
    assert backbone.fingerprint() != stored_pair(tmp_path).fingerprint()
    assert backbone.processor().image(numpy.zeros((40, 31, 3), numpy.uint8)).shape == (3, 24, 24)


OLDER = {
    "feature_extractor_type": "CLIPFeatureExtractor", "do_resize": True, "size": IMAGE, "do_center_crop": True,
    "crop_size": IMAGE, "do_normalize": True, "image_mean": [0.5, 0.4, 0.6], "image_std": [0.3, 0.25, 0.2],
    "resample": 3,
}  # fmt: skip
"""As OpenAI's CLIP of the hub has it."""


@pytest.mark.parametrize("tower", [*LIBRARY_PICTURES, "clip in older words"])
def test_pixels_are_the_librarys(tmp_path: Path, tower: str) -> None:
    from transformers import AutoImageProcessor

    store_pair(tmp_path, tower.partition(" in ")[0])
    if tower.endswith("words"):
        (tmp_path / "tower" / "preprocessor_config.json").write_text(json.dumps(OLDER))
    library, ours = (
        AutoImageProcessor.from_pretrained(tmp_path / "tower", trust_remote_code=False),
        stored_pair(tmp_path).processor(),
    )
    generator = numpy.random.default_rng(0)
    for height, width in ((16, 16), (33, 40), (200, 31), (17, 150)):
        picture = generator.integers(0, 255, (height, width, 3), numpy.uint8)
        expected = library(picture, return_tensors="pt")["pixel_values"][0]
        assert torch.equal(ours.image(picture), expected)


def test_pixels_of_another_size_and_scale_are_the_librarys(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor

    store_pair(tmp_path)
    settings = {**LIBRARY_PICTURES["clip"], "size": {"shortest_edge": IMAGE + 4}, "rescale_factor": 0.01}
    (tmp_path / "tower" / "preprocessor_config.json").write_text(json.dumps(settings))
    sizes = {"size": {"shortest_edge": 2 * (IMAGE + 4)}, "crop_size": {"height": 2 * IMAGE, "width": 2 * IMAGE}}
    kept = {key: value for key, value in settings.items() if key not in {*sizes, "image_processor_type"}}
    picture = numpy.random.default_rng(0).integers(0, 255, (33, 60, 3), numpy.uint8)
    expected = CLIPImageProcessor(**kept, **sizes)(picture, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(stored_pair(tmp_path, image_size=2 * IMAGE).processor().image(picture), expected)


@pytest.mark.parametrize("tower", ["clip", "dinov2", "dinov3", "timm", "open_clip"])
def test_recomputed_blocks_have_the_same_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tower: str) -> None:
    store_pair(tmp_path, tower)
    found = []
    for recomputes in (False, True):
        backbone = stored_pair(tmp_path, "float64", activation_checkpointing=recomputes)
        backbone.load()
        backbone.requires_grad_(False).train()
        ran: list[int] = []
        backbone.tower_blocks()[1].mlp.register_forward_pre_hook(lambda *_, ran=ran: ran.append(1))
        for depth in ("deep", "shallow"):
            ran.clear()
            method = attached(backbone, visual_rows_to_text="none", visual_depth=depth)
            with float64_islands(monkeypatch, backbone):
                supervised_rows(backbone, batch_for(backbone)).losses.sum().backward()
            assert len(ran) == 1 + recomputes
            found.append({name: each.grad for name, each in method.named_parameters()})
            method.detach(backbone)
    for one, other in zip(found[:2], found[2:], strict=True):
        for name, gradient in one.items():
            torch.testing.assert_close(gradient, other[name], rtol=1e-12, atol=1e-14)


def test_names_of_a_model_follow_its_content_alone(tmp_path: Path) -> None:
    for name in ("one", "other"):
        store_pair(tmp_path / name)
    one, other = stored_pair(tmp_path / "one"), stored_pair(tmp_path / "other", feature_layer=LAYERS - 1)
    assert one.fingerprint() == other.fingerprint()
    assert stored_pair(tmp_path / "other", feature_layer=-1).fingerprint() != one.fingerprint()
    file = tmp_path / "other" / "projector.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    assert stored_pair(tmp_path / "other").fingerprint() != one.fingerprint()


def test_what_prepares_pictures_is_part_of_the_name(tmp_path: Path) -> None:
    store_pair(tmp_path, "siglip")
    picture = numpy.random.default_rng(0).integers(0, 256, (60, 90, 3), numpy.uint8)
    found = []
    for kind in ("siglip", "dinov3"):
        named = {"image_processor_type": LIBRARY_PICTURES[kind]["image_processor_type"]}
        settings = {**LIBRARY_PICTURES["siglip"], **named}
        (tmp_path / "tower" / "preprocessor_config.json").write_text(json.dumps(settings))
        found.append(stored_pair(tmp_path))
    (one, other) = (backbone.processor().image(picture) for backbone in found)
    assert not torch.equal(one, other)
    assert found[0].fingerprint() != found[1].fingerprint()


def test_a_tower_in_shards_is_read(tmp_path: Path) -> None:
    store_pair(tmp_path, "siglip")
    file = tmp_path / "tower" / "model.safetensors"
    tensors = list(load_file(file).items())
    file.unlink()
    places = {}
    for number, part in enumerate((tensors[:9], tensors[9:]), 1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file(dict(part), tmp_path / "tower" / name)
        places |= dict.fromkeys(dict(part), name)
    (tmp_path / "tower" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    backbone = stored_pair(tmp_path)
    backbone.load()
    assert all(torch.equal(backbone.vision_tower.state_dict()[name], tensor) for name, tensor in tensors)


@pytest.mark.parametrize("tower", ["clip", "timm"])
def test_open_clips_files_beside_anothers_are_left_aside(tmp_path: Path, tower: str) -> None:
    store_pair(tmp_path, tower)
    alone = stored_pair(tmp_path)
    store_tower(tmp_path / "tower", "open_clip")
    both = stored_pair(tmp_path)
    both.load()
    assert type(both.tower) is type(alone.tower)
    assert both.fingerprint() == alone.fingerprint()
    (tmp_path / "tower" / "model.safetensors").rename(tmp_path / "tower" / "other.safetensors")
    with pytest.raises(BadInputError):
        stored_pair(tmp_path).check_files()
