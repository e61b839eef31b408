"""What a program may get wrong: one error of ours each, in three lines, and the model answers as before."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

import lightning_m2pt
from lightning_m2pt.application.model import Model
from lightning_m2pt.application.sources import base_of, named_source
from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.adapter_manifest import CONFIG_DIGEST, config_digest
from tests.support.answers.saved_adapters import TOKENS, save_invented, write_pictures

QUESTION = "What is this?"
GREY = numpy.zeros((20, 30, 3), numpy.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("adapters")
    (picture, *_) = write_pictures(made / "pictures", 1)
    save_invented(made / "adapter", M2PT(visual_length=2, textual_length=2), [(picture, QUESTION)])
    (made / "text.png").write_text("no picture\n")
    (made / "page.png").write_text("<!doctype html>")
    (made / "empty.png").write_bytes(b"")
    Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (90, 90, 3), numpy.uint8)).save(made / "whole.jpg")
    (made / "cut.jpg").write_bytes((made / "whole.jpg").read_bytes()[:-2000])
    Image.new("1", (8000, 8000)).save(made / "bomb.png")
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return lightning_m2pt.load(folder / "adapter", base="testbed", device="cpu")


def refused(called: Callable[[], object]) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        called()
    assert 1 <= len(str(caught.value).splitlines()) <= 3
    return caught.value


PICTURES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no file": (lambda at: at / "none.png", "the image is missing"),
    "a text": (lambda at: at / "text.png", "not an image but something else"),
    "a page": (lambda at: at / "page.png", "an HTML page"),
    "an empty file": (lambda at: at / "empty.png", "empty"),
    "a folder": (lambda at: at, "a directory"),
    "cut off": (lambda at: at / "cut.jpg", "damaged or cut off"),
    "cut off and opened": (lambda at: Image.open(at / "cut.jpg"), "damaged or cut off"),
    "a bomb": (lambda at: at / "bomb.png", "too many pixels"),
    "an opened bomb": (lambda at: Image.open(at / "bomb.png"), "too many pixels"),
    "a name with NUL": (lambda at: "a\0b", "no picture"),
    "nothing": (lambda at: None, "NoneType is no picture"),
    "bytes": (lambda at: (at / "whole.jpg").read_bytes(), "bytes is no picture"),
    "a path of bytes": (lambda at: bytes(at), "bytes is no picture"),
    "a tensor": (lambda at: torch.zeros(3, 20, 30), "Tensor is no picture"),
    "numbers of floats": (lambda at: GREY / 255, "float64 is no picture"),
    "channels first": (lambda at: GREY.transpose(2, 0, 1), "is no picture"),
    "four channels": (lambda at: numpy.zeros((20, 30, 4), numpy.uint8), "is no picture"),
    "a batch": (lambda at: GREY[None], "is no picture"),
    "no pixels": (lambda at: GREY[:0], "is no picture"),
    "32 bits": (lambda at: Image.fromarray(numpy.zeros((9, 9), numpy.int32)), "32 bits a channel"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_no_picture(model: Model, folder: Path, name: str) -> None:
    make, what = PICTURES[name]
    assert what in refused(lambda: model.ask(make(folder), QUESTION)).what
    error = refused(lambda: model.ask_all([(folder / "whole.jpg", QUESTION), (make(folder), QUESTION)]))
    assert what in error.what
    assert error.where.startswith("questions[1]: image")
    assert what in refused(lambda: model.score(make(folder), QUESTION, ["yes", "no"])).what


QUESTIONS: dict[str, tuple[Any, str]] = {
    "empty": ("", "the question is empty"),
    "spaces": (" \n\t", "the question is empty"),
    "the picture's mark": ("What is <image> this?", "<image> stands in the question"),
    "half a letter": ("What is \ud83d this?", "half a letter"),
    "bytes": (b"What is this?", "bytes is no question"),
    "nothing": (None, "NoneType is no question"),
    "beyond the context": ("word " * 5000, "rows with its picture"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_no_question(model: Model, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, what = QUESTIONS[name]
    asked = [(folder / "whole.jpg", QUESTION), (folder / "whole.jpg", text)]
    before = model.ask(*asked[0], max_new_tokens=TOKENS)
    with monkeypatch.context() as nothing_runs:
        nothing_runs.setattr(model._base.backbone, "append_rows", None)
        nothing_runs.setattr(model._base.backbone, "visual_rows", None)
        assert what in refused(lambda: model.ask(*asked[1])).what
        assert what in refused(lambda: model.score(*asked[1], ["yes", "no"])).what
        error = refused(lambda: model.ask_all(asked))
    assert what in error.what
    assert error.where == "questions[1]: question"
    assert model.ask(*asked[0], max_new_tokens=TOKENS) == before


def test_the_answer_needs_room_too(model: Model, folder: Path) -> None:
    positions = model._base.backbone.shape.maximum_positions
    error = refused(lambda: model.ask(folder / "whole.jpg", QUESTION, max_new_tokens=positions))
    assert "no later position" in error.expected
    assert "max_new_tokens" in error.hint


@pytest.mark.parametrize("pairs", ["ab", [("a", "b", "c")], ["ab"], [{"image": 1}], [None], 3, None])
def test_what_are_no_questions(model: Model, pairs: Any) -> None:
    refused(lambda: model.ask_all(pairs))


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", None, True])
def test_numbers_that_are_none(model: Model, folder: Path, value: Any) -> None:
    picture = folder / "whole.jpg"
    assert refused(lambda: model.ask(picture, QUESTION, max_new_tokens=value)).where == "max_new_tokens"
    assert refused(lambda: model.ask_all([(picture, QUESTION)], max_new_tokens=value)).where == "max_new_tokens"
    assert refused(lambda: model.ask_all([(picture, QUESTION)], batch_size=value)).where == "batch_size"


@pytest.mark.parametrize(
    "candidates",
    [[], ["yes"], ["yes", "yes"], ["yes", ""], "yes", ["yes", 1], None, ["yes", "\udc00"], {"yes": 1}, ["yes", "Yes"]],
)
def test_candidates_that_are_none(model: Model, folder: Path, candidates: Any) -> None:
    assert refused(lambda: model.score(folder / "whole.jpg", QUESTION, candidates)).where == "candidates"


SOURCES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda at: at / "outputs" / "m2pt" / "run", "there is no folder"),
    "nothing of the kind": (lambda at: at / "pictures", "no run and no adapter here"),
    "a file": (lambda at: at / "whole.jpg", "there is no folder"),
    "a name of the hub": (lambda at: "nobody/none-such", "nobody/none-such is not on this machine"),
    "the hub's by name": (lambda at: "hub:nobody/none-such", "not on this machine"),
    "an empty text": (lambda at: "", "there is no folder ''"),
    "NUL": (lambda at: "a\0b/c", "there is no folder"),
    "bytes": (lambda at: bytes(at), "bytes is no source"),
    "a number": (lambda at: 3, "int is no source"),
    "longer than any path": (lambda at: 5000 * "x", "there is no folder"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_what_names_no_adapter(model: Model, folder: Path, name: str) -> None:
    make, what = SOURCES[name]
    assert what in refused(lambda: lightning_m2pt.load(make(folder))).what
    assert what in refused(lambda: model.add("other", make(folder))).what
    assert model.names == ("default",)


ARGUMENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a base that is none": ({"base": "testbett"}, "base", "testbett is not there"),
    "no base at all": ({"base": 3}, "base", "int is no base"),
    "another type": ({"base": "testbed", "dtype": "float8"}, "dtype", "float8"),
    "another packing": ({"base": "testbed", "quantization": "nf3"}, "quantization", "nf3"),
    "a packed embedded base": ({"base": "testbed", "quantization": "nf4"}, "base", "not packed"),
    "a device that is none": ({"base": "testbed", "device": "gpu"}, "device", "gpu"),
    "a device that is not here": ({"base": "testbed", "device": "cuda:77"}, "device", "cuda:77"),
    "a device of no numbers": ({"base": "testbed", "device": "meta"}, "device", "there is no device 'meta' here"),
    "a device that torch leaves to others": ({"base": "testbed", "device": "hpu"}, "device", "'hpu'"),
    "a revision that is none": ({"base": "testbed", "revision": 3}, "revision", "3 is no revision"),
    "a folder's revision": ({"base": "testbed", "revision": "main"}, "revision", "a folder has no revision"),
    "another base": ({"base": "testbed_patch12"}, "adapter_config.json", "another backbone"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_do_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    given, where, what = ARGUMENTS[name]
    monkeypatch.setattr(OpenClipLlama, "load", None)  # all of it is known before
    error = refused(lambda: lightning_m2pt.load(folder / "adapter", **given))
    assert what in error.what
    assert where in error.where


def test_files_of_ones_own_are_known_by_their_content_alone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    change(tmp_path / "adapter", base={"kind": "files", "class": "OpenClipLlama", "arguments": {}})
    error = refused(lambda: lightning_m2pt.load(tmp_path / "adapter"))
    assert "nothing names the base but its content" in error.what
    assert "base=" in error.hint
    answer = lightning_m2pt.load(tmp_path / "adapter", base="testbed").ask(folder / "whole.jpg", QUESTION)
    assert lightning_m2pt.load(folder / "adapter").ask(folder / "whole.jpg", QUESTION) == answer


def test_a_made_base_has_its_own_type(folder: Path) -> None:
    base = embedded_backbone("testbed", "float64")
    assert "float32" in refused(lambda: lightning_m2pt.load(folder / "adapter", base=base, dtype="float32")).what
    model = lightning_m2pt.load(folder / "adapter", base=base, device="cpu")
    assert model._base.backbone is base
    assert base.dtype_name == "float64"


def test_a_made_base_is_of_one_load(folder: Path) -> None:
    """Two locks on one base would be none, and what a model that is gone put into it would stay."""
    base = embedded_backbone("testbed")
    model = lightning_m2pt.load(folder / "adapter", base=base, device="cpu")
    answer = model.ask(folder / "whole.jpg", QUESTION)
    for _ in range(2):
        error = refused(lambda: lightning_m2pt.load(folder / "adapter", base=base, device="cpu"))
        assert error.what == "another model stands on this base"
    model.add("again", folder / "adapter")
    model.use("again")
    assert model.ask(folder / "whole.jpg", QUESTION) == answer


@pytest.mark.parametrize("name", ["nobody", "", None, 3, ["default"]])
def test_no_adapter_of_this_name(model: Model, name: Any) -> None:
    assert "no adapter is called" in refused(lambda: model.use(name)).what
    assert model.name == "default"


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (lambda at: flip(at / "adapter_model.safetensors"), "not what was saved"),
    "a cut file": (lambda at: cut(at / "adapter_model.safetensors"), ""),
    "no tensors": (lambda at: (at / "adapter_model.safetensors").unlink(), ""),
    "no JSON": (lambda at: (at / "adapter_config.json").write_text("{"), ""),
    "a list": (lambda at: (at / "adapter_config.json").write_text("[]"), "unknown adapter format"),
    "a later format": (lambda at: change(at, format=99), "unknown adapter format"),
    "a switch for a format": (lambda at: change(at, format=True), "unknown adapter format"),
    "a configuration without end": (
        lambda at: (at / "adapter_config.json").write_text(" " * 4_000_000 + "{}"),
        "far too large",
    ),
    "weights that cannot be packed": (lambda at: change(at, base_quantization="int8"), "not packed"),
    "prompts beyond all positions": (
        lambda at: change(at, arguments={**config_of(at)["arguments"], "textual_length": 4000}),
        "leave no room",
    ),
    "an unknown method": (lambda at: change(at, peft_type="MAGIC"), "magic"),
    "a class of somebody's": (lambda at: change(at, peft_type="os.system"), "os.system"),
    "other arguments": (lambda at: change(at, arguments={"visual_length": "2; import os"}), "visual_length"),
    "a template's file": (lambda at: change(at, template="/etc/passwd"), "/etc/passwd"),
    "no template": (lambda at: change(at, template=None), "template"),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return found


def change(folder: Path, **changes: Any) -> None:
    config = {**config_of(folder), **changes}
    (folder / "adapter_config.json").write_text(json.dumps({**config, CONFIG_DIGEST: config_digest(config)}))


def test_what_was_changed_by_hand_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    for key, value in (("template", "plain"), ("tuned", {"steps": 1, "seed": 7})):
        path.write_text(json.dumps({**config_of(folder / "adapter"), key: value}))
        assert "something in it was changed" in refused(lambda: lightning_m2pt.load(tmp_path / "adapter")).what


def test_the_type_that_it_was_tuned_on_is_the_base_s(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    change(tmp_path / "adapter", base_dtype="float64")
    named = named_source(tmp_path / "adapter", None)
    for base in (None, "testbed"):
        assert base_of(named, base, None, None).dtype_name == "float64"
        assert base_of(named, base, "bfloat16", None).dtype_name == "bfloat16"


def test_a_folder_comes_before_an_embedded_base_of_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "testbed").mkdir()
    error = refused(lambda: lightning_m2pt.load(folder / "adapter", base="testbed"))
    assert "base" in error.where


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_adapter_is_refused_before_weights_load(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    harm, what = DAMAGES[name]
    shutil.copytree(folder / "adapter", tmp_path / "adapter")
    harm(tmp_path / "adapter")
    monkeypatch.setattr(OpenClipLlama, "load", None)
    error = refused(lambda: lightning_m2pt.load(tmp_path / "adapter", base="testbed"))
    assert what.lower() in f"{error.what} {error.where}".lower()


def test_a_folder_comes_before_the_hub_and_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache" / "models--somebody--tuned"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(40 * "a")
    shutil.copytree(folder / "adapter", cache / "snapshots" / (40 * "a"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    answer = lightning_m2pt.load("somebody/tuned", base="testbed").ask(folder / "whole.jpg", QUESTION)
    shutil.copytree(folder / "adapter", tmp_path / "somebody" / "tuned")
    change(tmp_path / "somebody" / "tuned", format=99)
    capsys.readouterr()
    refused(lambda: lightning_m2pt.load("somebody/tuned", base="testbed"))
    assert "hub:somebody/tuned" in capsys.readouterr().err
    named = lightning_m2pt.load("hub:somebody/tuned", base="testbed", revision=40 * "a")
    assert named.ask(folder / "whole.jpg", QUESTION) == answer
