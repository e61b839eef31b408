"""Bad backbone folders, as a command meets them: `check` names the file, and nothing is loaded, fetched or run."""

import json
import shutil
from pathlib import Path

import pytest

from lightning_m2pt.main import main
from tests.backbones.test_broken import TOKENIZER, remove, write
from tests.bad_inputs.refusal import Spoil, assert_refused
from tests.support.small_experiment import small_words
from tests.support.stored_backbone import (
    CONFIG,
    PROJECTOR,
    TOWER,
    TOWER_CONFIG,
    WEIGHTS,
    change_bytes,
    change_json,
    change_tensors,
    store_backbone,
)

SETTINGS = "language/tokenizer_config.json"
VISION, PICTURES = ("model_cfg", "vision_cfg"), ("preprocess_cfg",)


def language(key: str, *values: object, named: str = "") -> dict[str, tuple[Spoil, tuple[str, ...]]]:
    """Returns a case for every value of a key of the language model's configuration."""
    return {f"{key}: {value!r:.30}": (change_json(CONFIG, key, value=value), (named or key,)) for value in values}


def tower(key: str, *values: object) -> dict[str, tuple[Spoil, tuple[str, ...]]]:
    return {f"{key}: {value!r:.30}": (change_json(TOWER_CONFIG, *VISION, key, value=value), (key,)) for value in values}


def pictures(key: str, *values: object) -> dict[str, tuple[Spoil, tuple[str, ...]]]:
    return {
        f"pictures' {key}: {value!r:.30}": (change_json(TOWER_CONFIG, *PICTURES, key, value=value), (key,))
        for value in values
    }


def header(size: int, text: bytes) -> Spoil:
    """Returns what gives the weights a header of their own."""
    return lambda folder: (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + text)


def tensor(name: str, **changes: object) -> Spoil:
    """Returns what changes one tensor's entry in the header of the language model's weights."""

    def spoil(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        size = int.from_bytes(data[:8], "little")
        entries = json.loads(data[8 : 8 + size])
        entries[name].update(changes)
        text = json.dumps(entries).encode()
        (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])

    return spoil


WEIGHT = "model.norm.weight"
CASES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    **language("hidden_size", "32", 0, -1, 1.5, None, True, [32], 33, 10**9),
    **language("num_attention_heads", 0, "4", 3, -4, None),
    **language("num_key_value_heads", 0, 3, "2", 8),
    **language("num_hidden_layers", 0, -1, "3", True, 2.5),
    **language("intermediate_size", "x", 0, -1),
    **language("vocab_size", 0, "x", -5, 10**12),
    **language("max_position_embeddings", 0, -1, "x", 4),
    **language("rms_norm_eps", "x", -1),
    **language("rope_theta", "x", 0, -1),
    **language("rope_scaling", "x", {"rope_type": "nope"}, 3),
    **language("model_type", "gpt2", "nope", 3, None, "mixtral", "gemma3"),
    **language("hidden_act", "nope", 3),
    **language("architectures", ["NopeForCausalLM"], ["LlamaForCausalLM", 3]),
    **language("tie_word_embeddings", "yes"),
    **language("attention_bias", True, named="bias"),
    **language("quantization_config", {"quant_method": "bitsandbytes"}, [], "4bit"),
    **language("trust_remote_code", True, named="trust_remote_code"),
    **language("sliding_window", 16),
    **language("logits_scaling", 8.0),
    **tower("layers", 0, -1, 1.5, None, "4"),
    **tower("width", 0, -32, None, 33),
    "patch_size: 3": (change_json(TOWER_CONFIG, *VISION, "patch_size", value=3), (TOWER,)),
    **tower("patch_size", 0, -4, "4", None),
    **tower("image_size", 0, -16, "16", 10**9, [16, 32]),
    **tower("head_width", 0, "8"),
    **tower("timm_model_name", "resnet50"),
    **pictures("mean", "grey", [0.5], None),
    "pictures' mean: infinite": (
        change_json(TOWER_CONFIG, *PICTURES, "mean", value=[1e400, 0, 0]),
        ("open_clip_config.json", "Infinity"),
    ),
    **pictures("std", [0, 0, 0], [-1, 1, 1], "x"),
    **pictures("interpolation", "nearest-exact", 3),
    **pictures("resize_mode", "nope", 7),
    "weights: a header of 2^63": (header(2**63, b"{}"), (WEIGHTS,)),
    "weights: a header beyond the file": (header(10**6, b"{}"), (WEIGHTS,)),
    "weights: a header that is no JSON": (header(4, b"nope"), (WEIGHTS,)),
    "weights: a header that is a list": (header(2, b"[]"), (WEIGHTS,)),
    "weights: a header in no encoding": (header(4, b'"\xff\xfe"'), (WEIGHTS,)),
    "weights: an unknown type": (tensor(WEIGHT, dtype="F7"), (WEIGHTS,)),
    "weights: overlapping": (tensor(WEIGHT, data_offsets=[0, 128]), (WEIGHTS,)),
    "weights: backwards": (tensor(WEIGHT, data_offsets=[128, 0]), (WEIGHTS,)),
    "weights: another shape of as many": (tensor(WEIGHT, shape=[16, 2]), (WEIGHT,)),
    "weights: a negative size": (tensor(WEIGHT, shape=[-32]), (WEIGHTS,)),
    "weights: text for a shape": (tensor(WEIGHT, shape="32"), (WEIGHTS,)),
    "tower: a text": (write(TOWER, "weights"), (TOWER,)),
    "projector: empty": (write(PROJECTOR, b""), (PROJECTOR,)),
    "projector: cut": (change_bytes(PROJECTOR, lambda data: data[:-3]), (PROJECTOR,)),
    "projector: without a bias": (
        change_tensors(PROJECTOR, lambda all_: {"weight": all_["weight"]}),
        ("missing bias",),
    ),
    "tower's configuration: HTML": (write(TOWER_CONFIG, "<html>"), ("open_clip_config.json",)),
    "tower's configuration: a list": (write(TOWER_CONFIG, "[]"), ("open_clip_config.json",)),
    "tower's configuration: missing": (remove(TOWER_CONFIG), ("open_clip_config.json",)),
    "tower's configuration: deep": (write(TOWER_CONFIG, "[" * 100_000), ("open_clip_config.json",)),
    "tokenizer: empty": (write(TOKENIZER, ""), ("tokenizer.json",)),
    "tokenizer: an object": (write(TOKENIZER, "{}"), ("tokenizer",)),
    "tokenizer: a list": (write(TOKENIZER, "[]"), ("tokenizer",)),
    "tokenizer: cut": (change_bytes(TOKENIZER, lambda data: data[: len(data) // 2]), ("tokenizer.json",)),
    "tokenizer's settings: a list": (write(SETTINGS, "[]"), ("tokenizer_config.json",)),
    "tokenizer's settings: HTML": (write(SETTINGS, "<html>"), ("tokenizer_config.json",)),
    "tokenizer's settings: no end token": (change_json(SETTINGS, "eos_token", value=None), ("end token",)),
    "tokenizer's settings: an end token that is a number": (change_json(SETTINGS, "eos_token", value=7), ("token",)),
    "tokenizer's settings: a class of code": (
        change_json(SETTINGS, "tokenizer_class", value="NopeTokenizer"),
        ("tokenizer",),
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone") / "whole"
    store_backbone(folder)
    return folder


def words_for(folder: Path) -> list[str]:
    """Returns the words of a check of this backbone with small data."""
    files = {
        "vision_config": TOWER_CONFIG,
        "vision_weights": TOWER,
        "language_config": "language",
        "language_model": "language",
        "projector_weights": PROJECTOR,
    }
    paths = [f"--model.backbone.{key}={folder / file}" for key, file in files.items()]
    lengths = ["--model.method.visual_length=2", "--model.method.textual_length=2", "--data.template=plain"]
    return ["check", *small_words(folder.parent), *paths, *lengths]


def test_the_whole_folder_is_right(whole, capfd):
    assert main(words_for(whole)) == 0
    capfd.readouterr()


@pytest.mark.parametrize("name", CASES)
def test_a_broken_folder_is_refused_by_its_file(whole, tmp_path, capfd, name):
    spoil, named = CASES[name]
    shutil.copytree(whole, tmp_path / "broken")
    words = words_for(tmp_path / "broken")
    spoil(tmp_path / "broken")
    assert_refused(capfd, words, named, tmp_path)
