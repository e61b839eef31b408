"""The shipped backbone: files as recorded, loadable by the libraries, and a tokenizer that knows every word."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIPVisionCfg
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from experiments.backbone_recipe.settings import RECIPE_VERSION, RECIPES
from experiments.backbone_recipe.stage_files import read_tensors
from experiments.backbone_recipe.tokenizer import build_tokenizer
from experiments.commands.backbone import OUTPUT_FOLDER
from experiments.testbed.evaluation_questions import EVALUATION_PHRASINGS
from experiments.testbed.questions import QUESTION_TYPES
from experiments.testbed.vocabulary import COLOURS, NAMES, SIZES, article
from experiments.testbed.world_version import WORLD_VERSION
from lightning_m2pt.inputs.named_templates import PUBLISHED
from lightning_m2pt.inputs.samples import Turn

LARGEST_BYTES = 25_000_000
SHIPPED = ("testbed", "testbed_patch12")
"""The recipes whose backbones are in the repository; the others are built by ``make backbone BACKBONE=NAME``."""


@pytest.fixture(scope="module", params=SHIPPED)
def folder(request: pytest.FixtureRequest) -> Path:
    return OUTPUT_FOLDER / request.param


@pytest.fixture(scope="module")
def record(folder: Path) -> dict:
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder / "language", trust_remote_code=False)


def shipped_files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_all_embedded_backbones_are_small() -> None:
    files = [path for name in SHIPPED for path in shipped_files(OUTPUT_FOLDER / name).values()]
    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES


def test_every_recipe_is_shipped_or_says_how_it_is_built() -> None:
    assert set(SHIPPED) <= set(RECIPES)
    for name in set(RECIPES) - set(SHIPPED):
        assert f"make backbone BACKBONE={name}" in (OUTPUT_FOLDER / name / "README.md").read_text(encoding="utf-8")


def test_the_record_is_of_the_recipe(folder: Path, record: dict) -> None:
    assert record["settings"] == json.loads(json.dumps(asdict(RECIPES[folder.name])))
    assert record["recipe_version"] == RECIPE_VERSION
    assert record["world_version"] == WORLD_VERSION


def test_the_files_are_those_recorded(folder: Path, record: dict) -> None:
    files = shipped_files(folder)
    assert set(files) == {*record["files"], "training.json"}
    for name, expected in record["files"].items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == expected, name


def test_the_card_lists_every_weights_hash_stage_supervision_and_gate(record: dict, card: str) -> None:
    for name, value in record["files"].items():
        if name != "README.md":
            assert f"| `{name}` | `{value}` |" in card
    for stage in record["stages"]:
        assert f"| {stage['stage']} | {stage['step']} |" in card
    for words in ("labels of every cell", "no image", "captions of the same pictures", "dense loss", "ln_post"):
        assert words in card
    for gate in record["gates"]["gates"]:
        line = f"| {gate['name']} | {gate['threshold']:.2f} | {gate['figure']:.3f} | {gate['questions']} |"
        assert f"{line} {gate['verdict']} |" in card
    assert ("**This backbone misses gates: " in card) == any(
        gate["verdict"] == "open" for gate in record["gates"]["gates"]
    )


def test_the_gates_verdicts_follow_from_their_figures(record: dict) -> None:
    names = {gate["name"] for gate in record["gates"]["gates"]}
    assert {"visual relation", "visual presence", "whole captions"} < names
    for gate in record["gates"]["gates"]:
        assert gate["verdict"] == ("passed" if gate["figure"] >= gate["threshold"] else "open")


def test_the_record_holds_losses_of_the_full_and_the_shortened_recipe(record: dict) -> None:
    assert {stage["stage"] for stage in record["stages"]} == set(record["shortened"])
    for stage in record["stages"]:
        assert stage["losses"][-1]["step"] == stage["step"] == record["settings"][stage["stage"]]["steps"]


def test_open_clip_loads_the_vision_tower(folder: Path) -> None:
    configuration = json.loads((folder / "vision" / "open_clip_config.json").read_text())
    vision = CLIPVisionCfg(**configuration["model_cfg"]["vision_cfg"])
    tower = VisionTransformer(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        width=vision.width,
        layers=vision.layers,
        heads=vision.width // vision.head_width,
        mlp_ratio=vision.mlp_ratio,
        output_dim=configuration["model_cfg"]["embed_dim"],
    )
    tensors, _ = read_tensors(folder / "vision" / "open_clip_model.safetensors")
    tower.load_state_dict({name.removeprefix("visual."): tensor for name, tensor in tensors.items()})
    assert all(name.startswith("visual.") for name in tensors)
    assert set(configuration["preprocess_cfg"]) == {"mean", "std", "interpolation", "resize_mode"}


def test_transformers_loads_the_language_model_and_the_projector_fits(folder: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(folder / "language", trust_remote_code=False)
    projector = load_file(folder / "projector" / "model.safetensors")
    configuration = json.loads((folder / "vision" / "open_clip_config.json").read_text())
    width = configuration["model_cfg"]["vision_cfg"]["width"]
    assert projector["weight"].shape == (model.config.hidden_size, width)
    assert projector["bias"].shape == (model.config.hidden_size,)
    assert not model.config.tie_word_embeddings
    assert model.dtype == torch.float32


def test_the_shipped_tokenizer_is_the_recipes(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.get_vocab() == build_tokenizer(512).get_vocab()
    specials = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert specials == ("<s>", "</s>", "<pad>", "<unk>")


@pytest.mark.parametrize(
    "text",
    [
        *(template.system + template.before_question + template.before_answer for template in PUBLISHED),
        "Please answer yes or no.",
        "Answer the question using a single word or phrase.",
        "Is there an eight in the image? Is there a ring in the image?",
        "Options: (a) yes (b) no (c) not sure (d) true, false",
        "0 1 2 3 4 5 6 7 8 9 10 42",
        " ".join((*NAMES, *COLOURS, *SIZES)),
        "The ring is left of the bar. Is this statement true? Please answer yes or no.",
    ],
)
def test_official_words_are_known(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.unk_token_id not in tokenizer(text).input_ids


def test_every_word_of_the_world_is_known(tokenizer: PreTrainedTokenizerBase) -> None:
    slots = {
        "name": "ring",
        "first": "one",
        "second": "two",
        "article": article("eight"),
        "colour": "white",
        "row": "top",
        "column": "center",
        "number": "4",
        "relation": "left of",
        "choice": "above or below",
        "direction": "leftmost",
    }
    phrasings = [form.text for kind in QUESTION_TYPES for form in kind.phrasings] + list(EVALUATION_PHRASINGS)
    for phrasing in phrasings:
        assert tokenizer.unk_token_id not in tokenizer(phrasing.format(**slots)).input_ids, phrasing


def test_a_whole_conversation_of_each_template_is_known(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [Turn("What color is the ring?", "red"), Turn("Is there a bar?", "not sure")]
    for template in PUBLISHED:
        for piece in template.pieces(turns):
            if piece.text != "<image>":
                assert tokenizer.unk_token_id not in tokenizer(piece.text, add_special_tokens=False).input_ids


def test_text_comes_back_readable(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "small red ring top left, large blue bar bottom right</s>"
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded == "small red ring top left , large blue bar bottom right"
