"""A damaged adapter is refused by name, before any weight of the base is loaded; adapters of format 1 still load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.configuration.cli import parse_experiment
from experiments.runs import tuning as fit_module
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, M2PTError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.runs.loading import load_weights
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import (
    CONFIG_FILE,
    TENSOR_FILE,
    check_adapter,
    declared_tensors,
    load_adapter,
    refuse_unless_saved,
    save_adapter,
)
from lightning_m2pt.storage.adapter_manifest import config_digest
from lightning_m2pt.storage.run_record import read_run_record
from lightning_m2pt.testing.random_backbone import random_backbone
from tests.support.small_experiment import fitted, small_words

V1, V2 = "1" * 64, "v2:" + "2" * 64


def built(folder: Path) -> M2PT:
    method = M2PT(3, 2)
    method.build(random_backbone(folder), torch.Generator().manual_seed(5))
    method.built_shapes = {name: tuple(tensor.shape) for name, tensor in method.named_tensors().items()}
    return method


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    save_adapter(tmp_path / "adapter", built(tmp_path), AdapterBase("random", V2, "float32"), "", template="plain")
    return tmp_path / "adapter"


def config_of(adapter: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((adapter / CONFIG_FILE).read_text())
    return config


def change_config(adapter: Path, **values: Any) -> None:
    (adapter / CONFIG_FILE).write_text(json.dumps({**config_of(adapter), **values}))


def as_format_1(adapter: Path) -> None:
    """Leaves what adapters said before format 2."""
    later = ("tensors", "tensors_sha256", "base_dtype", "template")
    config = {key: value for key, value in config_of(adapter).items() if key not in later}
    (adapter / CONFIG_FILE).write_text(json.dumps({**config, "format": 1, "base_fingerprint": V1}))


def flip_a_bit(adapter: Path, place: int = -1000) -> None:
    content = bytearray((adapter / TENSOR_FILE).read_bytes())
    content[place] ^= 1
    (adapter / TENSOR_FILE).write_bytes(content)


def relabel(adapter: Path, dtype: str = "I32") -> None:
    """Same bytes, another type."""
    content = (adapter / TENSOR_FILE).read_bytes()
    (adapter / TENSOR_FILE).write_bytes(content.replace(b'"F32"', f'"{dtype}"'.encode()))


def with_tensors(adapter: Path, changed: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(adapter / TENSOR_FILE).items()}
    save_file(changed(tensors), adapter / TENSOR_FILE)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (flip_a_bit, "content is not what was saved"),
    "another type of as many bytes": (relabel, r"is I32 \["),
    "cut": (lambda a: (a / TENSOR_FILE).write_bytes((a / TENSOR_FILE).read_bytes()[:-7]), "cut or damaged"),
    "empty": (lambda a: (a / TENSOR_FILE).write_bytes(b""), "no safetensors file"),
    "gone": (lambda a: (a / TENSOR_FILE).unlink(), "the file is missing"),
    "half precision": (lambda a: with_tensors(a, lambda t: {n: v.half() for n, v in t.items()}), r"is F16 \["),
    "a tensor less": (lambda a: with_tensors(a, lambda t: dict(list(t.items())[1:])), "is missing"),
    "a tensor more": (lambda a: with_tensors(a, lambda t: {**t, "another": torch.zeros(1)}), "another is F32"),
    "no manifest": (lambda a: change_config(a, tensors=None), "does not say which tensors"),
    "a manifest of nonsense": (lambda a: change_config(a, tensors={"x": 3}), "does not say which tensors"),
    "no hash": (lambda a: change_config(a, tensors_sha256=None), "content is not what was saved"),
    "format 4": (lambda a: change_config(a, format=4), "unknown adapter format"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_adapter_is_refused_before_weights_load(adapter: Path, what: str) -> None:
    damage, message = DAMAGES[what]
    check_adapter(adapter, M2PT(3, 2), V2, V1)
    damage(adapter)
    with pytest.raises(BadInputError, match=message):
        check_adapter(adapter, M2PT(3, 2), V2, V1)


def test_an_adapter_says_how_its_base_was_packed_and_is_refused_on_another(adapter: Path, tmp_path: Path) -> None:
    assert "base_quantization" not in config_of(adapter)
    with pytest.raises(BadInputError, match="tuned on a base in its own type, which is in int8 now"):
        check_adapter(adapter, M2PT(3, 2), V2, V1, "int8")
    packed = tmp_path / "packed"
    save_adapter(packed, built(tmp_path), AdapterBase("random", V2, "float32", "nf4"), "")
    check_adapter(packed, M2PT(3, 2), V2, None, "nf4")
    with pytest.raises(BadInputError, match="tuned on a base in nf4, which is in its own type now") as refused:
        check_adapter(packed, M2PT(3, 2), V2)
    assert refused.value.hint == "--model.backbone.quantization nf4"


def test_format_1_loads_where_its_tensors_are_float32(adapter: Path, tmp_path: Path) -> None:
    as_format_1(adapter)
    check_adapter(adapter, M2PT(3, 2), V2, V1)
    fresh = built(tmp_path)
    with torch.no_grad():
        for tensor in fresh.named_tensors().values():
            tensor.zero_()
    load_adapter(adapter, fresh)
    saved = load_file(adapter / TENSOR_FILE)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in declared_tensors(fresh).items())
    with pytest.raises(BadInputError, match="adapter of another backbone"):
        check_adapter(adapter, M2PT(3, 2), V2)
    relabel(adapter)
    with pytest.raises(BadInputError, match="is of type I32"):
        check_adapter(adapter, M2PT(3, 2), V2, V1)


def test_loading_converts_nothing(adapter: Path, tmp_path: Path) -> None:
    with_tensors(adapter, lambda tensors: {name: tensor.double() for name, tensor in tensors.items()})
    with pytest.raises(BadInputError, match=r"is torch\.float64"):
        load_adapter(adapter, built(tmp_path))


@pytest.mark.parametrize("shape", [(0,), (1, 3, 16), (3, 32)])
def test_a_tensor_that_is_not_whole_is_not_saved(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """DeepSpeed's stage 3 leaves empty ones behind, FSDP flat parts."""
    method = built(tmp_path)
    name, tensor = next(iter(method.named_tensors().items()))
    tensor.data = torch.zeros(shape)
    with pytest.raises(BadInputError, match=f"{name} has shape"):
        save_adapter(tmp_path / "adapter", method, AdapterBase("random", V2), "")
    assert not (tmp_path / "adapter").exists()


def test_a_tensor_that_was_shared_out_while_it_was_built_is_not_saved(tmp_path: Path) -> None:
    method = built(tmp_path)
    next(iter(method.named_tensors().values())).data = torch.zeros(0)
    method.built_shapes = {name: tuple(tensor.shape) for name, tensor in method.named_tensors().items()}
    with pytest.raises(BadInputError, match="has shape"):
        save_adapter(tmp_path / "adapter", method, AdapterBase("random", V2), "")


def test_what_is_read_back_is_compared(adapter: Path, tmp_path: Path) -> None:
    method = built(tmp_path)
    refuse_unless_saved(adapter, method)
    with torch.no_grad():
        next(iter(method.named_tensors().values()))[0, 0, 0] += 1e-6
    with pytest.raises(EnvironmentFailure, match="does not read back as it was trained"):
        refuse_unless_saved(adapter, method)


def test_a_run_is_completed_only_once_its_adapter_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it is loaded into later is told from what it was tuned with."""
    words, save = small_words(tmp_path, steps=1), fit_module.save_adapter

    def on_a_bad_disk(folder: Path, *arguments: Any, **keywords: Any) -> None:
        save(folder, *arguments, **keywords)
        flip_a_bit(folder)

    monkeypatch.setattr(fit_module, "save_adapter", on_a_bad_disk)
    run = tmp_path / "run"
    with pytest.raises(M2PTError, match="content is not what was saved"):
        fitted(words, run)
    assert "completed" not in read_run_record(run)
    monkeypatch.setattr(fit_module, "save_adapter", save)
    tuned, _ = fitted(words, run)
    assert "completed" in read_run_record(run)
    config = config_of(run / "adapter")
    assert (config["format"], config["base_dtype"], config["template"]) == (3, "float32", "vicuna_v1")
    assert config["base_fingerprint"] == tuned.model.backbone.fingerprint()
    assert tuned.model.method.built_shapes


def test_another_type_of_the_base_or_template_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = small_words(tmp_path, steps=1)
    _, run = fitted(words)
    capsys.readouterr()
    load_weights(run, parse_experiment(words).model, ["vicuna_v1"])
    assert "note" not in capsys.readouterr().out
    load_weights(run, parse_experiment([*words, "--model.backbone.dtype", "bfloat16"]).model, ["plain"])
    said = " ".join(capsys.readouterr().out.split())
    assert "tuned on a base in float32, which is in bfloat16 now" in said
    assert "tuned with the template vicuna_v1, asked in plain now" in said


def test_a_configuration_that_says_something_else_than_when_it_was_written_is_refused(tmp_path, adapter):
    method = built(tmp_path)
    check_adapter(adapter, method, V2)
    (adapter / CONFIG_FILE).write_text(json.dumps(dict(reversed(config_of(adapter).items()))))
    check_adapter(adapter, method, V2)  # the order of keys and blanks say nothing
    for change in ({"template": "vicuna_v1"}, {"task_type": "CAUSAL_LN"}, {"more": 1}, {"config_sha256": None}):
        before = (adapter / CONFIG_FILE).read_bytes()
        change_config(adapter, **change)
        with pytest.raises(BadInputError, match="something in it was changed"):
            check_adapter(adapter, method, V2)
        (adapter / CONFIG_FILE).write_bytes(before)


def test_the_digest_is_of_every_key_and_value():
    said = {
        "peft_type": "LORA",
        "arguments": {"rank": 2, "alpha": 4.0},
        "base": {"kind": "files"},
        "config_sha256": "x",
    }
    others = [{**said, "arguments": {"rank": 2, "alpha": 5.0}}, {**said, "base": {}}, {**said, "peft_type": "M2PT"}]
    assert len({config_digest(each) for each in (said, *others)}) == 4
    assert config_digest({**said, "config_sha256": "y"}) == config_digest(said)
