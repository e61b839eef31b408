"""What cannot be converted is refused in three lines, nothing of it is run, and no file has changed or come."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_m2pt.main import main
from lightning_m2pt.storage.foreign.sources import read_source
from tests.storage.foreign_files import write_clip, write_pickled_shards, write_torchscript

WEIGHT, BIAS = torch.randn(6, 4), torch.randn(6)
PROJECTOR = {"model.mm_projector.weight": WEIGHT, "model.mm_projector.bias": BIAS}


class Command:
    """Makes a file when it is unpickled by a reader that calls what it is told."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def saved(content: object, name: str = "source.bin", change: Callable[[bytes], bytes] = lambda content: content):
    def write(folder: Path) -> Path:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        (folder / name).write_bytes(change(buffer.getvalue()))
        return folder / name

    return write


def text(content: bytes, name: str = "source.bin"):
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def with_command(torch_file: bool):
    def write(folder: Path) -> Path:
        content = {"model.mm_projector.weight": Command(folder / "ran")}
        if torch_file:
            torch.save(content, folder / "source.bin")
        else:
            (folder / "source.bin").write_bytes(pickle.dumps(content, protocol=2))
        return folder / "source.bin"

    return write


def torchscript(change: Callable[[bytes], bytes] = lambda content: content, **left_out: str):
    """An archive whose pickle is changed, or whose entries that end in something are left out."""

    def write(folder: Path) -> Path:
        write_torchscript(folder / "whole", {"visual.conv1.weight": torch.randn(2, 3, 4, 4)})
        with zipfile.ZipFile(folder / "whole") as whole, zipfile.ZipFile(folder / "source.pt", "w") as made:
            for entry in whole.infolist():
                content = whole.read(entry)
                if not any(entry.filename.endswith(ending) for ending in left_out.values()):
                    made.writestr(entry.filename, change(content) if entry.filename.endswith("data.pkl") else content)
        (folder / "whole").unlink()
        return folder / "source.pt"

    return write


def flipped(content: bytes) -> bytes:
    place = content.index(WEIGHT.numpy().tobytes())
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def shards(change: Callable[[Path], object]):
    def write(folder: Path) -> Path:
        write_pickled_shards(folder, {"a": torch.ones(2), "b": torch.ones(3)}, 1)
        change(folder)
        return folder

    return write


def layout(change: Callable[[Path], object]):
    def write(folder: Path) -> Path:
        write_clip(folder, "CLIPVisionModel", as_pickle=False)
        change(folder)
        return folder

    return write


def change_config(file: str, **keys: object) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **keys}))


SECOND = "pytorch_model-00002-of-00002.bin"
REFUSED: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "nothing": (lambda folder: folder / "nowhere.bin", ["nowhere.bin", "No such file"]),
    "an empty folder": (lambda folder: folder, ["there are no weights"]),
    "several files": (
        lambda folder: (saved(PROJECTOR, "a.bin")(folder), saved(PROJECTOR, "b.pt")(folder), folder)[-1],
        ["several files: a.bin, b.pt"],
    ),
    "a command": (with_command(torch_file=True), ["more than tensors: it names posix.mkdir", "nothing in it was"]),
    "a command in a plain pickle": (with_command(torch_file=False), ["it names posix.mkdir"]),
    "a module": (saved(torch.nn.Linear(2, 2)), ["it names torch.nn.modules.linear.Linear"]),
    "cut": (saved(PROJECTOR, change=lambda content: content[:-40]), ["cut or damaged"]),
    "cut in the middle": (saved(PROJECTOR, change=lambda content: content[: len(content) // 2]), ["cut or damaged"]),
    "one wrong bit": (saved(PROJECTOR, change=flipped), ["does not have its checksum"]),
    "a web page": (text(b"<html></html>"), ["a web page"]),
    "a pointer": (text(b"version https://git-lfs.github.com/spec/v1\n"), ["Git LFS"]),
    "empty": (text(b""), ["no safetensors file", "0 bytes"]),
    "a list": (saved([WEIGHT]), ["no tensors in it"]),
    "an optimizer": (saved({"optimizer": {"step": 3}, "epoch": 1}), ["no tensors: optimizer, epoch"]),
    "shapes without numbers": (saved({"a": WEIGHT.to("meta")}), ["no tensors: a"]),
    "not a number": (
        saved({**PROJECTOR, "model.mm_projector.bias": torch.full((6,), torch.nan)}),
        ["NaN or infinity in bias"],
    ),
    "infinity": (saved({"a": torch.tensor([1.0, -torch.inf])}), ["NaN or infinity in a"]),
    "a projector of other sizes": (
        saved({**PROJECTOR, "model.mm_projector.bias": torch.ones(5)}),
        ["no fitting pair", "[6, 4]", "[5]"],
    ),
    "a projector without a weight": (saved({"mm_projector.bias": BIAS}), ["no fitting pair"]),
    "a projector of layers with a bias and without": (
        saved({"mm_projector.0.weight": WEIGHT, "mm_projector.0.bias": BIAS, "mm_projector.2.weight": BIAS[None]}),
        ["layer 2 has no fitting pair"],
    ),
    "a projector of another form": (
        saved({**PROJECTOR, "model.mm_projector.readout.scale": BIAS}),
        ["a projector of another form: readout.scale"],
    ),
    "a projector whose second layer takes another width": (
        saved(
            {
                f"mm_projector.{layer}.{name}": one
                for layer in (0, 2)
                for name, one in (("weight", WEIGHT), ("bias", BIAS))
            }
        ),
        ["layer 2 takes 4 numbers and gets 6"],
    ),
    "prompts": (
        saved({"model.prompts.0": torch.ones(1, 2, 4)}),
        ["of M2PT's published code", "--output DIR"],
    ),
    "safetensors": (layout(lambda folder: None), ["safetensors already"]),
    "something in the way": (
        lambda folder: (
            saved(PROJECTOR)(folder),
            text(b"mine", "projector.safetensors")(folder),
            folder / "source.bin",
        )[2],
        ["projector.safetensors: something stands there already", "--output"],
    ),
    "a link in the way": (
        lambda folder: (
            saved(PROJECTOR)(folder),
            (folder / "projector.safetensors").symlink_to("nowhere"),
            folder / "source.bin",
        )[2],
        ["something stands there already"],
    ),
    "a shard is missing": (shards(lambda folder: (folder / SECOND).unlink()), ["missing", SECOND]),
    "a shard is cut": (shards(lambda folder: os.truncate(folder / SECOND, 300)), [SECOND, "cut or damaged"]),
    "a shard holds NaN": (
        shards(lambda folder: torch.save({"b": torch.full((3,), torch.nan)}, folder / SECOND)),
        [SECOND, "NaN or infinity in b"],
    ),
    "a shard holds another tensor": (
        shards(lambda folder: torch.save({"c": torch.ones(3)}, folder / SECOND)),
        [SECOND, "missing b", "left over c"],
    ),
    "an index that leaves the folder": (
        shards(change_config("pytorch_model.bin.index.json", weight_map={"a": "../a.bin"})),
        ["no index of weights"],
    ),
    "an archive that names a command": (
        torchscript(lambda content: b"\x80\x02cposix\nmkdir\n(X\x03\x00\x00\x00rantR."),
        ["'posix.mkdir' is called in an unexpected way", "nothing in it was executed"],
    ),
    "an archive with an instruction nobody needs": (
        torchscript(lambda content: b"\x80\x02(iposix\nmkdir\n."),
        ["INST", "not allowed"],
    ),
    "an archive of no module": (torchscript(lambda content: b"\x80\x02}."), ["it holds no module"]),
    "an archive without its numbers": (torchscript(numbers="data/0"), ["missing or compressed"]),
    "an archive whose tensor is larger than its numbers": (
        torchscript(lambda content: content.replace(b"K\x02K\x03K\x04K\x04t", b"K\x09K\x03K\x04K\x04t")),
        ["fewer than a tensor needs"],
    ),
}
LAYOUTS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "no CLIP tower": (saved(PROJECTOR), ["no CLIP vision tower"]),
    "no preprocessing": (layout(lambda folder: (folder / "preprocessor_config.json").unlink()), ["is missing"]),
    "another number of layers": (
        layout(change_config("config.json", num_hidden_layers=2)),
        ["config.json: num_hidden_layers: 2 is not supported", "3"],
    ),
    "another activation": (layout(change_config("config.json", hidden_act="relu")), ["hidden_act"]),
    "heads that do not divide": (layout(change_config("config.json", num_attention_heads=5)), ["num_attention_heads"]),
    "pictures of another size": (
        layout(change_config("preprocessor_config.json", size={"shortest_edge": 24})),
        ["preprocessor_config.json: size"],
    ),
    "pictures that are not scaled": (
        layout(change_config("preprocessor_config.json", do_rescale=False)),
        ["do_rescale"],
    ),
    "a tensor too few": (
        layout(
            lambda folder: (
                torch.save(
                    {
                        name: one
                        for name, one in read_source(folder / "model.safetensors").tensors.items()
                        if name != "encoder.layers.1.self_attn.k_proj.bias"
                    },
                    folder / "pytorch_model.bin",
                ),
                (folder / "model.safetensors").unlink(),
            )
        ),
        ["missing encoder.layers.1.self_attn.k_proj.bias"],
    ),
    "keys of another width": (
        layout(
            lambda folder: (
                torch.save(
                    {
                        name: one[:5] if name == "encoder.layers.1.self_attn.k_proj.weight" else one
                        for name, one in read_source(folder / "model.safetensors").tensors.items()
                    },
                    folder / "pytorch_model.bin",
                ),
                (folder / "model.safetensors").unlink(),
            )
        ),
        ["layer 1 have different shapes"],
    ),
}


def content_of(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def refused(words: list[str], named: list[str], capsys) -> None:
    capsys.readouterr()  # what libraries said while the sources were written
    assert main(["convert", *words]) == 2
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == ""
    assert 1 <= len(lines) <= 3
    assert all(len(line) < 700 for line in lines)
    for part in named:
        assert part in shown.err


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_nothing_has_changed(tmp_path, capsys, name):
    write, named = REFUSED[name]
    source = write(tmp_path)
    before = content_of(tmp_path)
    refused([str(source)], named, capsys)
    assert content_of(tmp_path) == before
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_that_cannot_be_had(tmp_path, capsys, name):
    write, named = LAYOUTS[name]
    (tmp_path / "source").mkdir()
    source = write(tmp_path / "source")
    before = content_of(tmp_path)
    refused([str(source), "--layout", "open_clip", "--output", str(tmp_path / "made")], named, capsys)
    assert content_of(tmp_path) == before


def test_a_layout_needs_a_folder(tmp_path, capsys):
    source = saved(PROJECTOR)(tmp_path)
    refused([str(source), "--layout", "open_clip"], ["--output DIR"], capsys)


def test_a_disk_that_is_full_leaves_nothing(tmp_path, capsys, monkeypatch):
    source = saved(PROJECTOR)(tmp_path)
    monkeypatch.setattr("lightning_m2pt.storage.foreign.written.free_bytes", lambda _: 10)
    before = content_of(tmp_path)
    assert main(["convert", str(source)]) == 3
    assert "projector.safetensors" in capsys.readouterr().err
    assert content_of(tmp_path) == before
