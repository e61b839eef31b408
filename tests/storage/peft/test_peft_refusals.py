"""Adapters in PEFT's layout that have no form here, or are damaged or hostile: three lines, and no folder has come."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_m2pt.main import main
from lightning_m2pt.storage.foreign.peft.reading import read_peft_folder
from tests.support.peft.written_folders import KEY_WIDTH, LENGTH, PREFIX, PROMPT, SHAPE, prefix_tensors, write_peft

TOTAL = SHAPE.text_layers * 2 * KEY_WIDTH
Spoil = Callable[[Path], object]


class Dangerous:
    """Its pickle makes a folder when it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def with_config(**keys: Any) -> Spoil:
    return lambda folder: write_peft(folder, {**PREFIX, **keys}, prefix_tensors())


def with_tensors(**tensors: torch.Tensor) -> Spoil:
    return lambda folder: write_peft(folder, PREFIX, {**prefix_tensors(), **tensors})


def with_text(text: str) -> Spoil:
    return lambda folder: (folder / "adapter_config.json").write_text(text)


def cut_file(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def huge_shape(folder: Path) -> None:
    header = {"prompt_embeddings": {"dtype": "F32", "shape": [LENGTH, 2**50], "data_offsets": [0, LENGTH * 2**52]}}
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))


def pickle_alone(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Dangerous()))


def pickle_under_the_name(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(pickle.dumps(Dangerous()))


def of_prompt(tensor: torch.Tensor) -> Spoil:
    return lambda folder: write_peft(folder, PROMPT, {"prompt_embeddings": tensor})


REFUSED: dict[str, tuple[Spoil, str]] = {
    "p-tuning": (with_config(peft_type="P_TUNING"), "an adapter of PEFT's type 'P_TUNING'"),
    "ia3": (with_config(peft_type="IA3"), "an adapter of PEFT's type 'IA3'"),
    "a type that is none": (with_config(peft_type={"a": 1}), "an adapter of PEFT's type {'a': 1}"),
    "a classifier": (with_config(task_type="SEQ_CLS"), "task_type is 'SEQ_CLS'"),
    "an encoder": (with_config(num_transformer_submodules=2), "num_transformer_submodules is 2"),
    "negative length": (with_config(num_virtual_tokens=-3), "num_virtual_tokens is -3"),
    "length that is no number": (with_config(num_virtual_tokens=True), "num_virtual_tokens is True"),
    "absurd length": (with_config(num_virtual_tokens=10**12), "prompt_embeddings is [3, "),
    "other layers": (with_config(num_layers=32), "num_layers is 32"),
    "other heads": (with_config(num_attention_heads=64), "num_attention_heads is 64"),
    "another width": (with_config(token_dim=4096), "token_dim is 4096"),
    "a key of tomorrow": (with_config(use_magic=True), "use_magic is True, which no method here does"),
    "a zero of tomorrow": (with_config(use_magic=0), "use_magic is 0, which no method here does"),
    "a shape of another base": (with_tensors(prompt_embeddings=torch.ones(LENGTH, 7)), "prompt_embeddings is [3, 7]"),
    "nan": (with_tensors(prompt_embeddings=torch.full((LENGTH, TOTAL), torch.nan)), "NaN or infinity in"),
    "double": (
        with_tensors(prompt_embeddings=torch.ones(LENGTH, TOTAL).double()),
        "of another type: prompt_embeddings F64",
    ),
    "a module trained besides": (
        with_tensors(**{"base_model.lm_head.weight": torch.ones(2)}),
        "lm_head.weight was trained",
    ),
    "half a projector": (
        with_tensors(**{"base_model.mm_projector.bias": torch.ones(2)}),
        "of the projector weight is missing",
    ),
    "a prompt of another width": (of_prompt(torch.ones(LENGTH, 5)), "prompt_embeddings is [3, 5]"),
    "no tensor": (lambda folder: write_peft(folder, PREFIX, {}), "there is no tensor in it"),
    "another tensor": (lambda folder: write_peft(folder, PREFIX, {"x": torch.ones(1)}), "x was trained, too"),
    "no json": (with_text('{"peft_type": '), "not valid JSON"),
    "a key twice": (with_text('{"peft_type": "LORA", "peft_type": "IA3"}'), "there twice"),
    "a cut file": (cut_file, "the file is cut or damaged"),
    "a huge shape": (huge_shape, "is cut or damaged"),
    "a pickle alone": (pickle_alone, "which is never opened"),
    "a pickle under the name": (pickle_under_the_name, "which is never opened"),
    "no file": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "the file is missing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_three_lines(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, expected = REFUSED[name]
    folder = write_peft(tmp_path / "adapter", PREFIX, prefix_tensors())
    spoil(folder)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(folder), "--base", "testbed", "--output", str(tmp_path / "made")]) == 2
    said = capsys.readouterr()
    assert expected in " ".join(said.err.split())
    assert len(said.err.strip().splitlines()) <= 4
    assert sorted(tmp_path.rglob("*")) == before
    assert said.out == ""


WORDS: dict[str, tuple[list[str], str]] = {
    "no base": ([], "--base BASE or --config FILE"),
    "two bases": (["--base", "testbed", "--config", "experiments/frozen.yaml"], "--base BASE or --config FILE"),
    "a layout": (["--base", "testbed", "--layout", "open_clip"], "no other flag but --template"),
    "a template that is none": (["--base", "testbed", "--template", "chat"], "unknown conversation template 'chat'"),
    "a template that this base has not": (["--base", "testbed", "--template", "native"], "template"),
    "a base that is not there": (["--base", "nowhere"], "or testbed or testbed_patch12"),
    "a base of the hub that was not fetched": (["--base", "hub:nobody/nothing"], "m2pt models fetch nobody/nothing"),
}


@pytest.mark.parametrize("name", WORDS)
def test_words_that_do_not_go_together(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, expected = WORDS[name]
    folder = write_peft(tmp_path / "adapter", PREFIX, prefix_tensors())
    assert main(["convert", str(folder), *words, "--output", str(tmp_path / "made")]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "made").exists()


def test_a_pickle_beside_tensors_is_left_alone(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "adapter", PREFIX, prefix_tensors())
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Dangerous()))
    assert set(read_peft_folder(folder).stored) == set(prefix_tensors())


def test_a_base_of_what_is_no_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "some.bin")
    assert main(["convert", str(tmp_path / "some.bin"), "--base", "testbed"]) == 2
    assert "is no adapter that PEFT wrote" in " ".join(capsys.readouterr().err.split())
    assert main(["convert", str(tmp_path / "some.bin"), "--template", "vicuna_v1"]) == 2
    assert "and --template is of one" in " ".join(capsys.readouterr().err.split())


def test_a_pickle_of_tensors_becomes_safetensors_as_the_hint_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_peft(tmp_path / "adapter", PREFIX, prefix_tensors())
    (folder / "adapter_model.safetensors").unlink()
    torch.save(prefix_tensors(), folder / "adapter_model.bin")
    words = ["convert", str(folder), "--base", "testbed", "--output", str(tmp_path / "made")]
    assert main(words) == 2
    said = " ".join(capsys.readouterr().err.split())
    command = said.partition("`m2pt ")[2].partition("`")[0].split()
    assert main(command) == 0
    assert main(words) == 0
    assert (tmp_path / "made" / "adapter" / "adapter_model.safetensors").is_file()
