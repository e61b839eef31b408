"""A base is named by what it is built from, and described by one configuration."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.configuration.cli import parse_experiment
from lightning_m2pt.backbones.base_files import BaseFiles
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system import file_hashes
from lightning_m2pt.testing.random_backbone import write_configs

PARTS = ("vision_config.json", "vision.safetensors", "projector.safetensors")


@pytest.fixture
def base(tmp_path: Path) -> BaseFiles:
    """A base of invented bytes whose language model has a folder of its own beside its description."""
    for folder in ("described", "built"):
        (tmp_path / folder).mkdir()
        write_configs(tmp_path / folder)
    for name in ("vision.safetensors", "projector.safetensors", "built/model.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "vision_config.json").write_text((tmp_path / "built" / "open_clip_config.json").read_text())
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "built" / name).write_text(json.dumps({"of": name}))
    vision_config, vision, projector = (tmp_path / name for name in PARTS)
    return BaseFiles(vision_config, vision, tmp_path / "described", tmp_path / "built", projector)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}, indent=7))


CHANGES: dict[str, Callable[[BaseFiles], object]] = {
    "rope_theta": lambda base: change(base.language_model / "config.json", rope_theta=5000.0),
    "rms_norm_eps": lambda base: change(base.language_model / "config.json", rms_norm_eps=1e-5),
    "tokenizer": lambda base: change(base.language_model / "tokenizer.json", of="another"),
    "tokenizer's configuration": lambda base: change(base.language_model / "tokenizer_config.json", legacy=True),
    "special tokens": lambda base: change(base.language_model / "special_tokens_map.json", pad="x"),
    "added tokens": lambda base: (base.language_model / "added_tokens.json").write_text("{}"),
    "sentencepiece model": lambda base: (base.language_model / "tokenizer.model").write_bytes(b"x"),
    "language weights": lambda base: (base.language_model / "model.safetensors").write_bytes(b"x"),
    "vision weights": lambda base: base.vision_weights.write_bytes(b"x"),
    "projector": lambda base: base.projector_weights.write_bytes(b"x"),
    "vision configuration": lambda base: change(base.vision_config, preprocess_cfg={"mean": [0.4] * 3}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_everything_the_model_is_built_from_is_in_its_fingerprint(base: BaseFiles, what: str) -> None:
    before = base.fingerprint()
    CHANGES[what](base)
    assert base.fingerprint() != before


def test_what_reaches_no_number_is_not_in_it(base: BaseFiles, tmp_path: Path) -> None:
    before = base.fingerprint()
    assert re.fullmatch("v2:[0-9a-f]{64}", before)
    change(base.language_model / "config.json", transformers_version="9.9", use_cache=False, torch_dtype="float16")
    change(base.language_model / "tokenizer_config.json", chat_template="{{ unused }}")
    change(base.language_config / "config.json", vocab_size=7)  # nothing is built from it
    assert base.fingerprint() == before
    shutil.copytree(tmp_path, moved := tmp_path.parent / f"{tmp_path.name}-moved")
    vision_config, vision, projector = (moved / name for name in PARTS)
    assert BaseFiles(vision_config, vision, moved / "nowhere", moved / "built", projector).fingerprint() == before


def test_the_former_fingerprint_is_what_it_was() -> None:
    """Of the embedded backbone at the last version that computed it; adapters and runs of then go by it."""
    backbone = parse_experiment(["--config", "experiments/m2pt_base.yaml"]).model.backbone
    assert backbone.former_fingerprint() == "e44c762854a0b39f872a155aad694d83f8f3ab815834bfbeaa285f19927d63b8"


def test_both_fingerprints_read_every_file_once(base: BaseFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    hashed = file_hashes.read_and_hash
    monkeypatch.setattr(file_hashes, "read_and_hash", lambda path: (read.append(path), hashed(path))[1])
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1.0)
    for _ in range(3):
        base.fingerprint()
        base.former_fingerprint()
    assert len(read) == len(set(read)) > 5


def described_as(base: BaseFiles, **values: Any) -> OpenClipLlama:
    change(base.language_config / "config.json", **values)
    return OpenClipLlama(
        *(str(path) for path in (base.vision_config, base.vision_weights, base.language_config, base.language_model)),
        str(base.projector_weights),
    )


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"rope_theta": 5000.0}, "rope_parameters is .*5000.* in .*described/config.json and .*10000.* in .*built"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-05 in .* and 1e-06"),
        ({"num_hidden_layers": 2}, "num_hidden_layers is 2 in .* and 3"),
        (
            {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None},
            "model_type is 'mistral' in .* and 'llama'",
        ),
        ({"attention_bias": True}, "attention_bias is True in .* and False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_two_descriptions_of_one_language_model_are_refused(base: BaseFiles, values: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInputError, match=what):
        described_as(base, **values)


@pytest.mark.parametrize(
    "values",
    [
        {"rope_theta": 10000.0},
        {"rms_norm_eps": 1e-06, "hidden_act": "silu", "rope_scaling": None},
        {"pad_token_id": 3, "transformers_version": "4.31.0", "torch_dtype": "float16"},
    ],
    ids=["a default written out", "several of them", "keys that reach no number"],
)
def test_descriptions_that_say_the_same_in_other_words_agree(base: BaseFiles, values: dict[str, Any]) -> None:
    assert described_as(base, **values).shape.text_layers == 3


def test_nothing_is_compared_where_the_model_is_not_there(base: BaseFiles) -> None:
    (base.language_model / "config.json").unlink()
    assert described_as(base, rope_theta=5000.0).shape.text_layers == 3


def test_a_weight_file_that_changed_unseen_is_named_on_request(
    base: BaseFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -1.0)
    base.fingerprint()
    base.verify()
    place = base.vision_weights.resolve()
    known = (place, file_hashes.stamp_of(place))
    monkeypatch.setitem(file_hashes._known, known, "0" * 64)  # what it was before the disk lost a bit
    with pytest.raises(BadInputError, match=r"vision\.safetensors changed, though size and times are what they were"):
        base.verify()
    base.verify()
