"""Folders of whole models: read in every published layout, strictly; what is wrong is refused by its key or tensor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from tests.support.whole_models import llava_config, write_whole_model


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def reconfigured(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((folder / "config.json").read_text())
    change(content)
    (folder / "config.json").write_text(json.dumps(content))


def loaded(folder: Path) -> VisionLanguageModel:
    backbone = VisionLanguageModel(str(folder), dtype="float32")
    backbone.load()
    return backbone


def refusal(folder: Path) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        VisionLanguageModel(str(folder), dtype="float32").check_files()
    return caught.value


def as_first_published(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """CLIP's blocks stood one step deeper, and two tables that follow from sizes were kept."""
    tower = "vision_tower."
    deeper = {
        name.replace(tower, f"{tower}vision_model.")
        if name.startswith(tower) and "vision_model" not in name
        else name: one
        for name, one in tensors.items()
    }
    return {
        **deeper,
        "vision_tower.vision_model.embeddings.position_ids": torch.arange(17)[None],
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }


def as_in_the_library(tensors: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    return {name: one.clone().contiguous() for name, one in model.state_dict().items()}


@pytest.mark.parametrize("layout", ["first", "library"])
def test_every_published_layout_is_the_same_model(tmp_path: Path, layout: str) -> None:
    model = write_whole_model(tmp_path, llava_config())
    expected = loaded(tmp_path).language_model.state_dict()
    rewritten(tmp_path, as_first_published if layout == "first" else lambda all_of: as_in_the_library(all_of, model))
    found = loaded(tmp_path).language_model.state_dict()
    assert set(found) == set(expected) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_a_tied_head_may_be_left_out_but_not_be_another(tmp_path: Path) -> None:
    write_whole_model(tmp_path, llava_config(tie_word_embeddings=True))
    backbone = loaded(tmp_path)
    assert backbone.pretrained_lm_head().weight is backbone.token_embedding().weight
    rewritten(tmp_path, lambda tensors: {**tensors, "language_model.lm_head.weight": torch.ones(60, 32)})
    with pytest.raises(BadInputError, match="tie_word_embeddings"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(architectures=["BlipForConditionalGeneration"]), "architectures"),
        (lambda content: content.update(model_type="blip"), "model_type"),
        (lambda content: content.update(vision_feature_layer=[-2, -1]), "vision_feature_layer"),
        (lambda content: content.update(vision_feature_layer=0), "vision_feature_layer"),
        (lambda content: content.update(vision_feature_layer=5), "vision_feature_layer"),
        (lambda content: content.update(vision_feature_select_strategy="full"), "CLS"),
        (lambda content: content.update(projector_hidden_act="tanh"), "projector_hidden_act"),
        (lambda content: content.update(quantization_config={"bits": 4}), "quantization_config"),
        (lambda content: content.update(auto_map={"AutoModel": "x.Y"}), "auto_map"),
        (lambda content: content["text_config"].update(auto_map={"AutoModel": "x.Y"}), "auto_map"),
        (lambda content: content["text_config"].update(num_hidden_layers=10**12), "num_hidden_layers"),
        (lambda content: content["text_config"].update(model_type="gpt2"), "model_type"),
        (lambda content: content["vision_config"].update(model_type="vit"), "model_type"),
        (lambda content: content["vision_config"].update(num_attention_heads=5), "attention heads"),
        (lambda content: content["vision_config"].update(image_size=[16, 16]), "image_size"),
        (lambda content: content.update(text_config=3), "text_config"),
        (lambda content: content["vision_config"].update(hidden_size=30), "another shape"),
        (lambda content: content["text_config"].update(num_hidden_layers=4), "missing"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_not_the_models_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    write_whole_model(tmp_path, llava_config())
    reconfigured(tmp_path, change)
    error = refusal(tmp_path)
    assert words in f"{error.where} {error.what} {error.hint}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: {**tensors, "extra": torch.ones(2)}, "left over extra"),
        (lambda tensors: dict(list(tensors.items())[1:]), "missing"),
        (lambda tensors: {**tensors, "lm_head.weight": torch.ones(60, 32)}, "one tensor of the model"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    write_whole_model(tmp_path, llava_config())
    rewritten(tmp_path, change)
    assert words in refusal(tmp_path).what


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    write_whole_model(tmp_path, llava_config())
    name = "multi_modal_projector.linear_1.bias"
    rewritten(tmp_path, lambda tensors: {**tensors, name: torch.full((32,), float("nan"))})
    with pytest.raises(BadInputError, match="NaN"):
        loaded(tmp_path)


def test_the_fingerprint_is_of_what_decides_numbers(tmp_path: Path) -> None:
    write_whole_model(tmp_path, llava_config())

    def name() -> str:
        return VisionLanguageModel(str(tmp_path)).fingerprint()

    first = name()
    reconfigured(tmp_path, lambda content: content.update(transformers_version="4.0", dtype="float16"))
    assert name() == first
    reconfigured(tmp_path, lambda content: content.update(projector_hidden_act="relu"))
    second = name()
    assert second != first
    pictures = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**pictures, "image_mean": [0.5] * 3}))
    assert name() != second


def content_changed(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **values}))


PARTS_OF_A_NAME: dict[str, Callable[[Path], object]] = {
    "tower": lambda folder: reconfigured(folder, lambda own: own["vision_config"].update(layer_norm_eps=1e-3)),
    "language model": lambda folder: reconfigured(folder, lambda own: own["text_config"].update(rms_norm_eps=1e-3)),
    "weights": lambda folder: rewritten(folder, lambda own: {name: one * 2 for name, one in own.items()}),
    "index": lambda folder: content_changed(folder / "model.safetensors.index.json", weight_map={}),
    "tokenizer": lambda folder: content_changed(folder / "tokenizer.json", version="2.0"),
    "tokenizer's settings": lambda folder: content_changed(folder / "tokenizer_config.json", legacy=True),
    "processor": lambda folder: content_changed(folder / "processor_config.json", image_seq_length=9),
}


@pytest.mark.parametrize("what", PARTS_OF_A_NAME)
def test_everything_a_model_is_built_from_is_in_its_name(tmp_path: Path, what: str) -> None:
    write_whole_model(tmp_path, llava_config())
    before = VisionLanguageModel(str(tmp_path)).fingerprint()
    assert before.startswith("whole:")
    PARTS_OF_A_NAME[what](tmp_path)
    assert VisionLanguageModel(str(tmp_path)).fingerprint() != before


@pytest.mark.parametrize("size", [(1, 400), (335, 337), (16, 16), (50, 9)])
def test_pictures_are_the_librarys(tmp_path: Path, size: tuple[int, int]) -> None:
    from PIL import Image
    from transformers import CLIPImageProcessor

    write_whole_model(tmp_path, llava_config())
    picture = numpy.random.default_rng(0).integers(0, 255, (*size, 3), dtype=numpy.uint8)
    found = VisionLanguageModel(str(tmp_path)).processor().image(picture)
    library = CLIPImageProcessor.from_pretrained(tmp_path)
    # A picture of PIL's: an array of one line would be taken for one channel.
    expected = library(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "is not known"),
        ({"crop_size": {"height": 8, "width": 8}}, "the tower reads 16 x 16"),
        ({"auto_map": {"AutoImageProcessor": "x.Y"}}, "auto_map"),
    ],
)
def test_another_image_processor_is_refused(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    write_whole_model(tmp_path, llava_config())
    pictures = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**pictures, **keys}))
    error = refusal(tmp_path)
    assert words in f"{error.where} {error.what}"
