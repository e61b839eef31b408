"""Where a base comes from is said without a path of this machine, and makes the same backbone elsewhere."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.origins.made import backbone_of, origin_in
from lightning_m2pt.backbones.origins.said import BaseOrigin
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from tests.support.stored_backbone import store_backbone, stored
from tests.support.towers.stored_pairs import store_pair, stored_pair
from tests.support.whole_models import llava_config, write_whole_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Own(VisionLanguageModel):
    """A class that nobody else has."""


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hub's cache keeps ``org/name``."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "models--org--name"
    (place / "snapshots").mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return place / "snapshots" / COMMIT


def said_and_made(backbone: Backbone, **arguments: Any) -> tuple[BaseOrigin, Backbone]:
    """Says an origin as an adapter does, reads it and makes the backbone anew; no path is in it."""
    text = json.dumps({"base": backbone.origin().said()})
    assert str(Path.cwd()) not in text
    assert "/tmp" not in text
    origin = origin_in(json.loads(text), "adapter_config.json")
    made = backbone_of(origin, **arguments)
    assert type(made) is type(backbone)
    assert not made.is_loaded
    assert made.origin() == origin
    assert made.fingerprint() == backbone.fingerprint()
    return origin, made


@pytest.mark.parametrize("name", ["testbed", "testbed_patch12"])
def test_an_embedded_backbone_goes_by_its_name(name: str) -> None:
    origin, made = said_and_made(embedded_backbone(name), dtype="float64")
    assert origin == BaseOrigin("embedded", "OpenClipLlama", {"name": name})
    assert origin.readable_name("v2:1") == f"lightning_m2pt/embedded/{name}/language"
    assert made.dtype_name == "float64"


def test_a_whole_model_of_the_hub_goes_by_repository_and_commit(snapshot: Path) -> None:
    write_whole_model(snapshot, llava_config())
    origin, made = said_and_made(VisionLanguageModel("hub:org/name"), dtype="bfloat16", quantization=None)
    place = {"repository": "org/name", "commit": COMMIT}
    assert origin == BaseOrigin("hub", "VisionLanguageModel", {"model": place})
    assert origin.readable_name("whole:1") == "org/name"
    assert made.dtype_name == "bfloat16"
    by_path = VisionLanguageModel(str(snapshot))
    assert by_path.origin() == origin
    packed = backbone_of(origin, dtype="float32", quantization="int8")
    assert (packed.quantization, packed.dtype_name) == ("int8", "float32")


def test_five_files_of_the_hub_go_by_their_places(snapshot: Path) -> None:
    store_backbone(snapshot)
    backbone = stored(snapshot)
    origin, made = said_and_made(backbone, dtype="float64")
    assert made.dtype_name == "float64"
    assert (origin.kind, origin.class_name) == ("hub", "OpenClipLlama")
    assert origin.arguments["language_model"] == {"repository": "org/name", "commit": COMMIT, "file": "language"}


def test_a_pair_keeps_what_else_decides_it(snapshot: Path) -> None:
    store_pair(snapshot.parent.parent / "parts")
    parts = snapshot.parent.parent / "parts"
    shutil.copytree(parts / "tower", snapshot)
    other = snapshot.parents[2] / "models--org--text" / "snapshots" / COMMIT
    shutil.copytree(parts / "language", other)
    shutil.copy(parts / "projector.safetensors", other)
    projector = str(other / "projector.safetensors")
    names = ("hub:org/name", "hub:org/text", projector)
    pair = TowerAndDecoder(*names, feature_layer=-1, language_revision=COMMIT)
    origin, made = said_and_made(pair)
    assert isinstance(made, TowerAndDecoder)
    assert made.used_blocks == pair.used_blocks
    assert origin.arguments["feature_layer"] == -1
    assert origin.readable_name("pair:1") == "org/name + org/text"
    own = TowerAndDecoder(*names[:2], str(parts / "projector.safetensors"), language_revision=COMMIT)
    assert own.origin() == BaseOrigin("files", "TowerAndDecoder")  # one file of this machine is enough


def test_files_go_by_nothing_but_their_content(tmp_path: Path, snapshot: Path) -> None:
    store_backbone(tmp_path / "five")
    store_pair(tmp_path / "pair")
    write_whole_model(snapshot, llava_config())
    shutil.copytree(snapshot, tmp_path / "whole")
    files: dict[str, Backbone] = {
        "OpenClipLlama": stored(tmp_path / "five"),
        "TowerAndDecoder": stored_pair(tmp_path / "pair"),
        "VisionLanguageModel": VisionLanguageModel(str(tmp_path / "whole")),
        "Own": Own(str(snapshot)),
    }
    for name, backbone in files.items():
        assert backbone.origin() == BaseOrigin("files", name)
        assert backbone.origin().readable_name("v2:" + "1" * 64) == f"{name} v2:{'1' * 13}"
        with pytest.raises(BadInputError, match=f"nothing names the base but its content: {name}") as refused:
            backbone_of(origin_in({"base": backbone.origin().said()}, "x"))
        assert "base=FOLDER" in refused.value.hint


def test_one_file_of_this_machine_makes_it_files(tmp_path: Path) -> None:
    backbone = embedded_backbone()
    projector = tmp_path / "model.safetensors"
    shutil.copy(backbone.projector_weights, projector)
    arguments = {**vars(backbone.files), "projector_weights": projector}
    changed = OpenClipLlama(**{name: str(path) for name, path in arguments.items()})
    assert changed.origin() == BaseOrigin("files", "OpenClipLlama")


def test_one_file_beside_the_cache_and_a_branch_in_it_make_it_files(snapshot: Path, tmp_path: Path) -> None:
    store_backbone(snapshot)
    projector = tmp_path / "projector.safetensors"
    backbone = stored(snapshot)
    shutil.copy(backbone.projector_weights, projector)
    arguments = {**vars(backbone.files), "projector_weights": projector}
    mixed = OpenClipLlama(**{name: str(path) for name, path in arguments.items()})
    assert mixed.origin() == BaseOrigin("files", "OpenClipLlama")
    shutil.copytree(snapshot, snapshot.with_name("main"))
    assert stored(snapshot.with_name("main")).origin() == BaseOrigin("files", "OpenClipLlama")
    sets = snapshot.parents[2] / "datasets--org--name" / "snapshots" / COMMIT
    shutil.copytree(snapshot, sets)
    assert stored(sets).origin() == BaseOrigin("files", "OpenClipLlama")


def test_a_class_of_ones_own_is_none_of_the_library_s_by_its_name(snapshot: Path) -> None:
    write_whole_model(snapshot, llava_config())
    own = type("VisionLanguageModel", (VisionLanguageModel,), {"__module__": "somebody.models"})
    assert own(str(snapshot)).origin() == BaseOrigin("files", "VisionLanguageModel")


def test_before_format_3_nothing_is_said() -> None:
    assert origin_in({"format": 2}, "x") == BaseOrigin()


HUB = {"repository": "org/name", "commit": COMMIT}
EMBEDDED = {"kind": "embedded", "class": "OpenClipLlama", "arguments": {"name": "testbed"}}
WHOLE = {"kind": "hub", "class": "VisionLanguageModel", "arguments": {"model": HUB}}
PAIR = {
    "kind": "hub",
    "class": "TowerAndDecoder",
    "arguments": {
        **{name: HUB for name in ("vision_tower", "language_model", "projector")},
        **{"feature_layer": -2, "feature_norm": False, "image_size": None},
    },
}


def with_arguments(said: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    return {**said, "arguments": {**said["arguments"], **arguments}}


HOSTILE: dict[str, tuple[object, str]] = {
    "no object": ("testbed", "is no base"),
    "a key less": ({"kind": "files"}, "is no base"),
    "a key more": ({**EMBEDDED, "path": "/etc"}, "is no base"),
    "another kind": ({**EMBEDDED, "kind": "url"}, "'url' is no kind of base"),
    "a kind that is a list": ({**EMBEDDED, "kind": ["hub"]}, "is no kind of base"),
    "a class of somebody's": ({**WHOLE, "class": "os.system"}, "'os.system' is no backbone"),
    "a class by its module": ({**WHOLE, "class": "lightning_m2pt.main.main"}, "is no backbone"),
    "a class that is none": ({**WHOLE, "class": 3}, "3 is no backbone"),
    "arguments that are none": ({**WHOLE, "arguments": []}, "are no arguments"),
    "an embedded name that leads out": (with_arguments(EMBEDDED, name="../../x"), "is no embedded backbone"),
    "an embedded name without weights": (with_arguments(EMBEDDED, name="vicuna7b"), "is no embedded backbone"),
    "another embedded class": ({**EMBEDDED, "class": "VisionLanguageModel"}, "is no embedded backbone"),
    "an argument more": (with_arguments(EMBEDDED, feature_cache="/x"), "is no embedded backbone"),
    "an unknown argument": (with_arguments(WHOLE, revision="main"), "'revision' is unknown"),
    "a missing argument": ({**WHOLE, "arguments": {}}, "'model' is missing"),
    "a path for a place": (with_arguments(WHOLE, model="/etc"), "is no place in the hub"),
    "a place without commit": (with_arguments(WHOLE, model={"repository": "a/b"}), "is no place in the hub"),
    "a branch": (with_arguments(WHOLE, model={**HUB, "commit": "main"}), "'main' is no commit"),
    "a repository that leads out": (with_arguments(WHOLE, model={**HUB, "repository": "../x"}), "no name of the hub"),
    "a file that leads out": (with_arguments(PAIR, projector={**HUB, "file": "../../x"}), "is no file of a repository"),
    "an absolute file": (with_arguments(PAIR, projector={**HUB, "file": "/etc/x"}), "is no file of a repository"),
    "a file of another system": (with_arguments(PAIR, projector={**HUB, "file": "a\\..\\x"}), "is no file of a repos"),
    "a file with NUL": (with_arguments(PAIR, projector={**HUB, "file": "a\0b"}), "is no file of a repository"),
    "a number for a file": (with_arguments(PAIR, projector={**HUB, "file": 3}), "is no place in the hub"),
    "a text for a number": (with_arguments(PAIR, feature_layer="-2"), "'-2' is no feature_layer"),
    "true for a number": (with_arguments(PAIR, image_size=True), "True is no image_size"),
    "arguments of files": ({"kind": "files", "class": "", "arguments": {"model": "/x"}}, "files have no arguments"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_adapter_says_is_refused(what: str) -> None:
    said, message = HOSTILE[what]
    with pytest.raises(BadInputError, match=message) as refused:
        origin_in({"base": said}, "adapter_config.json")
    assert refused.value.where.startswith("adapter_config.json: base")
    assert len(str(refused.value).splitlines()) <= 3


MISSING: dict[str, tuple[Callable[[], Backbone], str]] = {
    "a model that is not here": (lambda: backbone_of(origin_in({"base": WHOLE}, "x")), "org/name at 0123"),
    "another type": (lambda: backbone_of(BaseOrigin(), dtype="__class__"), "is no type of weights"),
    "another packing": (lambda: backbone_of(BaseOrigin(), quantization="int1"), "packs nothing"),
    "a packed testbed": (
        lambda: backbone_of(BaseOrigin("embedded", "OpenClipLlama", {"name": "testbed"}), quantization="int8"),
        "the weights of OpenClipLlama are not packed",
    ),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_cannot_be_made_is_refused_by_its_reason(snapshot: Path, what: str) -> None:
    make, message = MISSING[what]
    with pytest.raises(BadInputError, match=message):
        make()
