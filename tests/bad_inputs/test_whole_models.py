"""Bad folders of whole vision-language models, as `check` meets them: three lines, nothing loaded, fetched or run."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from lightning_m2pt.backbones.filling import unfilled
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from tests.backbones.test_broken import HTML, LFS, PICKLE, remove, write
from tests.bad_inputs.refusal import Spoil, assert_refused, snapshot
from tests.support.small_experiment import small_words
from tests.support.stored_backbone import change_bytes, change_json, change_tensors, put
from tests.support.whole_models import llava_config, write_whole_model

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
PICTURES = "preprocessor_config.json"
TEXT, TOWER = ("text_config",), ("vision_config",)
BACKBONE = "lightning_m2pt.backbones.vision_language_model.VisionLanguageModel"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def keys(within: tuple[str, ...], key: str, *values: object) -> dict[str, tuple[Spoil, tuple[str, ...]]]:
    """Returns a case for every value of a key of ``config.json``."""
    place = "".join(f"{part}: " for part in within)
    return {
        f"{place}{key}: {value!r:.30}": (change_json(CONFIG, *within, key, value=value), (key,)) for value in values
    }


def sharded(then: Spoil) -> Spoil:
    """Returns what replaces the weights by two shards and their index before it spoils them."""

    def spoil(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = list(load_file(folder / WEIGHTS).items())
        (folder / WEIGHTS).unlink()
        places = {}
        for name, part in zip(SHARDS, (dict(tensors[:10]), dict(tensors[10:])), strict=True):
            save_file(part, folder / name)
            places |= dict.fromkeys(part, name)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
        then(folder)

    return spoil


def leading_out(folder: Path) -> None:
    """Moves a shard out of the folder and lets the index name it there."""
    (folder / SHARDS[1]).rename(folder.parent / SHARDS[1])
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace(SHARDS[1], f"../{SHARDS[1]}"))


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("not a folder")


def loop(file: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).symlink_to(folder / file)

    return spoil


def missing(folder: Path) -> None:
    shutil.rmtree(folder)


def hidden(name: str) -> Spoil:
    """Returns what takes away all tensors whose names hold a text."""
    return change_tensors(WEIGHTS, lambda all_: {key: one for key, one in all_.items() if name not in key})


PROJECTOR = "multi_modal_projector.linear_1.weight"
HUGE = 10**12
CASES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    **keys(
        (), "architectures", ["NopeForConditionalGeneration"], [], None, 3, ["InstructBlipForConditionalGeneration"]
    ),
    **keys((), "model_type", "nope", None, 7, [1], "llama"),
    **keys((), "auto_map", {"AutoConfig": "own.Config"}),
    **keys((), "trust_remote_code", True),
    **keys((), "quantization_config", {"quant_method": "bitsandbytes"}),
    **keys((), "vision_feature_layer", 0, 99, "x", [-2, -5], True, None),
    **keys((), "vision_feature_select_strategy", "full", "nope", 3),
    **keys((), "projector_hidden_act", "nope", 3),
    **{
        f"image_token_index: {value!r}": (change_json(CONFIG, "image_token_index", value=value), ("image_token_id",))
        for value in (HUGE, -1, 60)
    },
    **{
        f"{key}: {value!r}": (change_json(PICTURES, key, value=value), (PICTURES, key))
        for key, value in (("do_rescale", False), ("do_normalize", False), ("do_normalize", None))
    },
    **keys((), "text_config", None, [], "llama"),
    **keys((), "vision_config", None, [], 5),
    **keys(TEXT, "hidden_size", 0, -1, "32", True, HUGE),
    "a width that is no multiple": (change_json(CONFIG, *TEXT, "hidden_size", value=33), ("hidden size (33)",)),
    **keys(TEXT, "num_hidden_layers", 0, "3", HUGE, True),
    **keys(TEXT, "num_attention_heads", 0, "4", -1),
    **keys(TEXT, "vocab_size", 0, -1, HUGE),
    **keys(TEXT, "intermediate_size", -1, HUGE),
    **keys(TEXT, "max_position_embeddings", 0, "x"),
    **keys(TEXT, "model_type", "nope", 3, "gpt2"),
    "a rotation that is a text": (change_json(CONFIG, *TEXT, "rope_scaling", value="x"), (CONFIG, "rope_")),
    "a rotation of no kind": (
        change_json(CONFIG, *TEXT, "rope_scaling", value={"rope_type": "nope"}),
        ("text_config: rope", "'nope' is not supported"),
    ),
    **keys(TEXT, "auto_map", {"AutoModel": "own.Model"}),
    **keys(TOWER, "hidden_size", 0, -1, "24", HUGE),
    **keys(TOWER, "num_hidden_layers", 0, "4", HUGE),
    **keys(TOWER, "num_attention_heads", 0, -3),
    **keys(TOWER, "intermediate_size", 0, HUGE),
    **keys(TOWER, "image_size", 0, -16, "16", HUGE),
    **keys(TOWER, "patch_size", 0, "4", 17),
    **keys(TOWER, "model_type", "nope", 3, "pixtral"),
    **keys(TOWER, "hidden_act", "nope"),
    **keys(TOWER, "num_channels", 1),
    "a configuration that lies about layers": (
        change_json(CONFIG, *TEXT, "num_hidden_layers", value=4),
        ("missing model.language_model.layers.3.",),
    ),
    "a configuration that lies about the tower": (
        change_json(CONFIG, *TOWER, "intermediate_size", value=48),
        ("another shape",),
    ),
    "a configuration that lies about patches": (change_json(CONFIG, *TOWER, "patch_size", value=8), ("another shape",)),
    **{
        f"pictures' {key}: {value!r:.30}": (change_json(PICTURES, key, value=value), (PICTURES, key))
        for key, values in {
            "image_mean": (1.5, [0.5], "x", [0.5, 0.5, None]),
            "image_std": (0.5, [0, 1, 1], [-1, 1, 1], {}),
            "image_processor_type": (None, "NopeImageProcessor", 3, "PixtralImageProcessor"),
            "auto_map": ({"AutoImageProcessor": "own.P"},),
        }.items()
        for value in values
    },
    "pictures: another size": (change_json(PICTURES, "crop_size", value={"height": 8, "width": 8}), (PICTURES,)),
    "pictures: no settings": (remove(PICTURES), (PICTURES,)),
    "pictures: HTML": (write(PICTURES, HTML), (PICTURES,)),
    "no configuration": (remove(CONFIG), (CONFIG,)),
    "configuration: HTML": (write(CONFIG, HTML), (CONFIG,)),
    "configuration: LFS": (write(CONFIG, LFS), (CONFIG,)),
    "configuration: deep": (write(CONFIG, '{"a":' * 100_000), (CONFIG,)),
    "configuration: a list": (write(CONFIG, "[]"), (CONFIG,)),
    "configuration: twice": (write(CONFIG, '{"model_type": "llava", "model_type": "llama"}'), (CONFIG, "twice")),
    "configuration: infinite": (write(CONFIG, '{"model_type": NaN}'), (CONFIG,)),
    "configuration: a loop of links": (loop(CONFIG), (CONFIG,)),
    "no weights": (remove(WEIGHTS), (WEIGHTS,)),
    "weights: cut": (change_bytes(WEIGHTS, lambda data: data[:-100]), (WEIGHTS, "cut or damaged")),
    "weights: empty": (write(WEIGHTS, b""), (WEIGHTS,)),
    "weights: a pickle": (write(WEIGHTS, PICKLE), (WEIGHTS, "pickle")),
    "weights: LFS": (write(WEIGHTS, LFS), (WEIGHTS, "Git LFS")),
    "weights: HTML": (write(WEIGHTS, HTML), (WEIGHTS, "web page")),
    "weights: a loop of links": (loop(WEIGHTS), (WEIGHTS,)),
    "weights: a header of 2^63": (write(WEIGHTS, (2**63).to_bytes(8, "little") + b"{}"), (WEIGHTS,)),
    "weights as a pickle alone": (
        lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"),
        ("pytorch_model.bin",),
    ),
    "projector: another width": (
        change_tensors(WEIGHTS, put(PROJECTOR, lambda _: torch.ones(32, 16))),
        (PROJECTOR, "[32, 16], not [32, 24]"),
    ),
    "projector: missing": (hidden("linear_1"), ("missing", "linear_1")),
    "a surplus tensor": (change_tensors(WEIGHTS, put("own.weight", lambda _: torch.ones(2))), ("own.weight",)),
    "a shard missing": (sharded(remove(SHARDS[1])), (SHARDS[1],)),
    "a shard cut": (sharded(change_bytes(SHARDS[1], lambda data: data[:-7])), (SHARDS[1], "cut")),
    "an index that leads out": (sharded(leading_out), (INDEX,)),
    "an index of something else": (sharded(write(INDEX, "{}")), (INDEX,)),
    "an adapter beside the weights": (write("adapter_config.json", "{}"), ("adapter_config.json",)),
    "a file of code": (write("modeling_own.py", "raise SystemExit(9)"), ("modeling_own.py",)),
    "no tokenizer": (remove(TOKENIZER), (TOKENIZER,)),
    "tokenizer.model alone": (
        lambda folder: (folder / TOKENIZER).rename(folder / "tokenizer.model"),
        (TOKENIZER, "tokenizer.model"),
    ),
    "tokenizer: cut": (change_bytes(TOKENIZER, lambda data: data[: len(data) // 2]), (TOKENIZER,)),
    "tokenizer: code": (
        change_json(SETTINGS, "auto_map", value={"AutoTokenizer": ["own.T", None]}),
        ("auto_map",),
    ),
    "an empty folder": (emptied, (CONFIG,)),
    "a file instead of a folder": (a_file, ("a file",)),
    "no folder": (missing, ("not there",)),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "whole"
    write_whole_model(folder, llava_config())
    return folder


def words_for(folder: Path) -> list[str]:
    """Returns the words of a check of this model with small data."""
    backbone = [f"--model.backbone={BACKBONE}", f"--model.backbone.model={folder}", "--model.backbone.dtype=float32"]
    lengths = ["--model.method.visual_length=2", "--model.method.textual_length=2", "--data.template=plain"]
    return ["check", *small_words(folder.parent), *backbone, *lengths]


def test_the_whole_folder_is_right(whole, capfd) -> None:
    assert main(words_for(whole)) == 0, capfd.readouterr().err
    capfd.readouterr()


@pytest.mark.parametrize("name", CASES)
def test_a_broken_folder_is_refused_by_its_file(whole, tmp_path, monkeypatch, name) -> None:
    spoil, named = CASES[name]
    shutil.copytree(whole, tmp_path / "broken")
    spoil(tmp_path / "broken")
    before = snapshot(tmp_path)
    monkeypatch.setattr(unfilled, "read_portions", lambda *_: pytest.fail("tensors were read"))
    with pytest.raises(BadInputError) as refusal:
        VisionLanguageModel(str(tmp_path / "broken"), dtype="float32").check_files()
    message = str(refusal.value)
    assert len(message.splitlines()) <= 3
    assert len(message) < 1000
    for text in named:
        assert text.lower() in message.lower(), message
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["no weights", "weights: a pickle", "a shard missing", "an empty folder", "a file instead of a folder"]
)
def test_commands_say_it_in_three_lines(whole, tmp_path, capfd, name) -> None:
    spoil, named = CASES[name]
    shutil.copytree(whole, tmp_path / "broken")
    words = words_for(tmp_path / "broken")
    spoil(tmp_path / "broken")
    assert_refused(capfd, words, named, tmp_path)


def test_numbers_that_are_none_are_refused_where_they_are_read(whole, tmp_path) -> None:
    shutil.copytree(whole, tmp_path / "broken")
    change_tensors(WEIGHTS, put(PROJECTOR, lambda all_: all_[PROJECTOR] * float("nan")))(tmp_path / "broken")
    backbone = VisionLanguageModel(str(tmp_path / "broken"), dtype="float32")
    backbone.check_files()
    with pytest.raises(BadInputError, match="NaN or infinity in multi_modal_projector"):
        backbone.load()
