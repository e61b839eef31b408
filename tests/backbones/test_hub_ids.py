"""What a configuration calls a model leads to one folder, or is refused by name; nothing leads out of the cache."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from experiments.configuration.path_settings import paths_beside_files, portable_paths
from lightning_m2pt.backbones.hub_ids import model_folder
from lightning_m2pt.configuration.paths import FileText
from lightning_m2pt.errors import BadInputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "models--org--name"
    (place / "snapshots" / COMMIT).mkdir(parents=True)
    (place / "refs" / "refs" / "pr").mkdir(parents=True)
    for reference in ("main", "v1", "refs/pr/3"):
        (place / "refs" / reference).write_text(COMMIT)
    return place


@pytest.mark.parametrize("revision", [None, "main", "v1", "refs/pr/3", COMMIT])
def test_a_fetched_revision(place: Path, revision: str | None) -> None:
    assert model_folder("hub:org/name", revision, "key") == place / "snapshots" / COMMIT


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert model_folder(str(tmp_path), None, "key") == tmp_path


@pytest.mark.parametrize(
    ("model", "revision", "what", "hint"),
    [
        ("hub:org/other", None, "org/other is not on this machine", "m2pt models fetch org/other"),
        ("hub:org/name", "v2", "org/name at v2 is not on this machine", "m2pt models fetch org/name --revision v2"),
        ("hub:org/name", "f" * 40, "is not on this machine", "--revision ffff"),
        ("hub:../../etc", None, "is no name of the hub", ""),
        ("hub:org/na--me", None, "is no name of the hub", ""),
        ("hub:" + "a" * 200, None, "is no name of the hub", ""),
        ("hub:org/name", "../../../x", "is no revision", ""),
        ("hub:org/name", "a/../../../x", "is no revision", ""),
        ("hub:org/name\0", None, "is no name of the hub", ""),
        ("org/name", None, "org/name is not there", "hub:OWNER/NAME"),
    ],
)
def test_what_is_not_there_is_refused_with_its_command(place, model, revision, what, hint) -> None:
    with pytest.raises(BadInputError) as caught:
        model_folder(model, revision, "model.backbone.model")
    assert what in caught.value.what
    assert hint in caught.value.hint
    assert caught.value.where == "model.backbone.model"


def test_a_file_is_no_folder_and_a_folder_has_no_revision(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(BadInputError, match="is a file"):
        model_folder(str(tmp_path / "model.safetensors"), None, "key")
    with pytest.raises(BadInputError, match="a folder has no revision"):
        model_folder(str(tmp_path), "main", "key")


@pytest.mark.parametrize("content", ["../../../../etc", "short", "", "é" * 40])
def test_a_reference_that_is_no_commit_leads_nowhere(place: Path, content: str) -> None:
    (place / "refs" / "main").write_text(content, encoding="utf-8")
    with pytest.raises(BadInputError, match="not on this machine"):
        model_folder("hub:org/name", None, "key")


def test_a_hub_id_in_a_file_is_no_path_beside_it(tmp_path: Path) -> None:
    backbone = "lightning_m2pt.backbones.open_clip_llama.OpenClipLlama"
    named = {name: FileText("hub:org/name", tmp_path) for name in ("language_model", "vision_config")}
    tree = {"model": {"backbone": {"class_path": backbone, "init_args": {**named, "language_config": "x"}}}}
    found = paths_beside_files(tree, [])["model"]["backbone"]["init_args"]
    assert found == {"language_model": "hub:org/name", "vision_config": "hub:org/name", "language_config": "x"}
    assert portable_paths(tree, [])["model"]["backbone"]["init_args"]["language_model"] == "hub:org/name"
