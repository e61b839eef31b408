"""What a whole model is asked to do and cannot: refused in three lines before weights load."""

import json
from pathlib import Path

import pytest
from PIL import Image

from lightning_m2pt.backbones.filling import unfilled
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from tests.bad_inputs.refusal import assert_refused, snapshot
from tests.support.small_experiment import small_words
from tests.support.stored_backbone import change_json
from tests.support.whole_models import idefics3_config, llava_config, write_whole_model

BACKBONE = "lightning_m2pt.backbones.vision_language_model.VisionLanguageModel"
MODELS = {"llava": llava_config(), "smolvlm": idefics3_config("smolvlm", "SmolVLM")}


@pytest.fixture(autouse=True)
def no_tensor_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfilled, "read_portions", lambda *_: pytest.fail("tensors were read"))


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    write_whole_model(folder, MODELS[request.param])
    return folder


def words_for(verb: str, folder: Path, model: Path, *more: str) -> list[str]:
    """Returns the words of a verb on small data; the template is one that no model brings."""
    backbone = [f"--model.backbone={BACKBONE}", f"--model.backbone.model={model}", "--model.backbone.dtype=float32"]
    method = ["--model.method.visual_length=2", "--model.method.textual_length=2"]
    method += ["--model.method.visual_rows_to_text=none"]
    return [verb, *small_words(folder), *backbone, *method, "--data.template=plain", *more]


def copied(model: Path, folder: Path) -> Path:
    (folder / "model").mkdir()
    for path in model.iterdir():
        (folder / "model" / path.name).write_bytes(path.read_bytes())
    return folder / "model"


@pytest.mark.parametrize("verb", ["check", "fit"])
def test_a_model_without_a_chat_template_has_no_native_one(model, tmp_path, capfd, verb) -> None:
    own = copied(model, tmp_path)
    (own / "chat_template.jinja").unlink()
    assert_refused(capfd, words_for(verb, tmp_path, own, "--data.template=native"), ["template", "vicuna_v1"], tmp_path)


@pytest.mark.parametrize("positions", [12, 30])
def test_a_question_beyond_the_context(model, tmp_path, capfd, positions) -> None:
    own = copied(model, tmp_path)
    change_json("config.json", "text_config", "max_position_embeddings", value=positions)(own)
    words = words_for("fit", tmp_path, own)
    before = snapshot(tmp_path)
    assert main(words) == ExitCode.BAD_INPUT
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 3
    assert lines[0].startswith("error: ")
    assert any(f"{room} " in lines[1].replace(":", " ") for room in (positions, positions - 2))  # two are prompts
    assert "knows no later position" in lines[1]
    assert snapshot(tmp_path) == before


def test_a_picture_of_a_hundred_megapixels(model, tmp_path, capfd) -> None:
    words = words_for("check", tmp_path, model)
    pictures = sorted((tmp_path / "vision_flan").rglob("*.png")) + sorted((tmp_path / "vision_flan").rglob("*.jpg"))
    Image.new("1", (20_000, 20_000)).save(pictures[0], format="PNG")
    assert_refused(capfd, words, [pictures[0].name], tmp_path, may_report=True)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("--model.backbone.model=hub:org/never_fetched", ["m2pt models fetch org/never_fetched"]),
        ("--model.backbone.model=hub:../../etc", ["is no name of the hub"]),
        ("--model.backbone.revision=main", ["a folder has no revision"]),
        ("--model.backbone.dtype=float8", ["dtype"]),
        ("--model.backbone.quantization=nf3", ["quantization"]),
        ("--model.method.visual_layers=[99]", ["visual_layers"]),
    ],
)
def test_settings_that_lead_nowhere(model, tmp_path, capfd, setting, named) -> None:
    assert_refused(capfd, [*words_for("check", tmp_path, model), setting], named, tmp_path)


def test_a_model_of_a_file_stands_beside_it(model, tmp_path, capfd) -> None:
    backbone = {"class_path": BACKBONE, "init_args": {"model": "models/gone"}}
    (tmp_path / "own.yaml").write_text(json.dumps({"model": {"backbone": backbone}}))
    words = [*small_words(tmp_path), "--config", str(tmp_path / "own.yaml")]
    named = [str(tmp_path / "models" / "gone"), "not there", "hub:OWNER/NAME"]
    assert_refused(capfd, ["check", *words], named, tmp_path)
