"""An aligned projector goes with the models it was aligned between: others of their form are refused by every verb."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_modules.vision_flan import VisionFlan
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from tests.bad_inputs.refusal import assert_refused
from tests.support.stored_backbone import change_bytes, change_json
from tests.support.towers.real_pair import store_real_pair

PAIR, ALIGNED = Path("smollm2_dinov2"), Path("smollm2_dinov2/aligned")
VISION, LANGUAGE = PAIR / "vision/model.safetensors", PAIR / "language/model.safetensors"
PROJECTOR, RECORD = ALIGNED / "projector/model.safetensors", ALIGNED / "training.json"
SHIPPED = EMBEDDED / "smollm2_dinov2"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    store_real_pair(folder)
    VisionFlan.write_fake(folder / "data")
    return folder


@pytest.fixture
def models(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may spoil; nothing of it may be loaded."""

    def load(_: Any) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(TowerAndDecoder, "load", load)
    monkeypatch.setenv("M2PT_MODELS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
    return tmp_path


def words(verb: str, models: Path, projector: Path = PROJECTOR) -> list[str]:
    return [
        *(verb, "--config", "experiments/m2pt_smollm2.yaml", "--model.backbone.projector", str(models / projector)),
        *("--data.root", str(models / "data"), "--data.validation_file", "null", "--data.questions_per_sample", "1"),
        *("--benchmarks", "[]", "--trainer.devices", "1", "--output_root", str(models / "outputs")),
    ]


def check_files(models: Path, projector: Path = PROJECTOR, **arguments: Any) -> None:
    TowerAndDecoder(
        *(str(models / path) for path in (VISION.parent, LANGUAGE.parent, projector)), image_size=112, **arguments
    ).check_files()


def flipped(file: Path) -> Callable[[Path], None]:
    """Changes the last bit of a file, which is one of its last tensor's."""
    return change_bytes(str(file), lambda content: content[:-1] + bytes([content[-1] ^ 1]))


def recorded(models: Path, name: str) -> str:
    return str(json.loads((models / RECORD).read_text())["base"][name])


def test_the_pair_of_the_record_passes(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("check", models)) == 0
    assert "ok  m2pt_smollm2" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["check", "fit"])
@pytest.mark.parametrize("file", [VISION, LANGUAGE], ids=["tower", "decoder"])
def test_one_bit_of_a_model_is_another_model(
    verb: str, file: Path, models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flipped(file)(models)
    name = f"{file.parent.name}/{file.name}"
    named = [
        f"error: {models / file}: the projector {models / PROJECTOR} was aligned with other weights",
        f"  expected: SHA-256 {recorded(models, name)}, as {models / RECORD} says",
        "  hint: m2pt models fetch smollm2_dinov2 makes that pair; "
        "m2pt backbone --name smollm2_dinov2 --output FOLDER aligns",
    ]
    assert_refused(capfd, words(verb, models), named, models)


def test_the_shipped_projector_goes_with_no_stand_in(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = json.loads((SHIPPED / "training.json").read_text())["base"]
    shipped = [*words("check", models), "--model.backbone.projector", str(SHIPPED / "projector/model.safetensors")]
    assert_refused(capfd, shipped, [str(models / VISION), base["vision/model.safetensors"]], models)


def test_packed_weights_are_compared_as_they_lie(models: Path) -> None:
    check_files(models, quantization="int8", dtype="bfloat16")
    flipped(LANGUAGE)(models)
    with pytest.raises(BadInputError, match="was aligned with other weights"):
        check_files(models, quantization="int8", dtype="bfloat16")


def test_a_weight_file_that_the_record_does_not_name_is_refused(models: Path) -> None:
    known = {"vision/model.safetensors": recorded(models, "vision/model.safetensors")}
    change_json(str(RECORD), "base", value=known)(models)
    with pytest.raises(BadInputError, match="the pair's weights are language/model") as refused:
        check_files(models)
    assert refused.value.expected.startswith("vision/model.safetensors: ")


def without(*keys: str) -> Callable[[Path], None]:
    def spoil(models: Path) -> None:
        content = json.loads((models / RECORD).read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        (models / RECORD).write_text(json.dumps(content))

    return spoil


DAMAGED: dict[str, Callable[[Path], None]] = {
    "cut": change_bytes(str(RECORD), lambda content: content[:-40]),
    "no object": change_bytes(str(RECORD), lambda _: b"[]"),
    "no hashes": change_json(str(RECORD), "base", value={}),
    "none of the base": without("base"),
    "none of the projector": without("files", "projector/model.safetensors"),
    "a hash of 63 digits": change_json(str(RECORD), "base", "vision/model.safetensors", value="0" * 63),
    "a hidden state that is a text": change_json(str(RECORD), "pair", "feature_layer", value="-2"),
    "a hidden state in no mapping": change_json(str(RECORD), "pair", value=[-2]),
    "a hash that is a number": change_json(str(RECORD), "base", "language/model.safetensors", value=7),
}


@pytest.mark.parametrize("spoil", DAMAGED.values(), ids=list(DAMAGED))
def test_a_damaged_record_is_refused(
    spoil: Callable[[Path], None], models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(models)
    assert_refused(capfd, words("check", models), ["model.backbone.projector", str(models / RECORD)], models)


def test_another_hidden_state_of_the_tower_is_refused(models: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = [*words("check", models), "--model.backbone.feature_layer", "-1"]
    assert_refused(capfd, other, ["block 2 of 2", "model.backbone.feature_layer: ", "feature_layer: -2 and "], models)
    with pytest.raises(BadInputError, match=r"block 2 of 2 and its norm"):
        check_files(models, feature_layer=-1, feature_norm=True)
    check_files(models, feature_layer=1)  # what is -2 of a tower of two blocks
    content = json.loads((models / RECORD).read_text())
    content["pair"] = {"feature_layer": 2, "feature_norm": True}
    (models / RECORD).write_text(json.dumps(content))
    check_files(models, feature_layer=-1, feature_norm=True)
    with pytest.raises(BadInputError, match="another hidden state") as refused:
        check_files(models, feature_layer=-1)
    assert refused.value.where == "model.backbone.feature_norm"
    assert refused.value.expected.startswith("feature_layer: 2 and feature_norm: true")
    del content["pair"]
    (models / RECORD).write_text(json.dumps(content))
    check_files(models, feature_layer=-1)  # a record that says nothing of it


def test_a_projector_that_its_record_does_not_describe_is_refused(
    models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flipped(PROJECTOR)(models)
    named = [f"error: {models / PROJECTOR}: this is not the projector", str(models / RECORD), "a folder without that"]
    assert_refused(capfd, words("check", models), named, models)


def test_without_a_record_a_projector_goes_with_any_pair(models: Path) -> None:
    flipped(LANGUAGE)(models)
    own = Path("own/projector/model.safetensors")
    (models / own).parent.mkdir(parents=True)
    shutil.copyfile(models / PROJECTOR, models / own)
    assert main(words("check", models, own)) == 0
    # Records of another kind say nothing of a pair: an embedded backbone's, another tool's.
    for content in ((EMBEDDED / "testbed/training.json").read_text(), '{"base": "a model"}'):
        (models / "own/training.json").write_text(content)
        check_files(models, own)
    # A file of another name is not the one that the record beside it describes.
    other = PROJECTOR.with_name("mine.safetensors")
    shutil.copyfile(models / PROJECTOR, models / other)
    check_files(models, other)


def test_a_link_to_an_aligned_projector_is_that_projector(models: Path) -> None:
    link = Path("linked.safetensors")
    (models / link).symlink_to(models / PROJECTOR)
    check_files(models, link)
    flipped(VISION)(models)
    with pytest.raises(BadInputError, match="was aligned with other weights"):
        check_files(models, link)
