"""`m2pt models show` and `list`: from config.json alone, counts as the library's, refusals in three lines."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.backbones.towers.known import tower_of
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.inspection.model_facts import Load, on_meta
from lightning_m2pt.inspection.model_report import model_report
from lightning_m2pt.main import main
from lightning_m2pt.methods.base import Place
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.tuning.answering_memory import answering_bytes
from lightning_m2pt.tuning.memory_estimate import (
    MemoryEstimate,
    MicroBatchSize,
    estimated_memory,
    text_layer_bytes,
    vision_layer_bytes,
)
from lightning_m2pt.tuning.module_memory import estimate_of
from tests.support.published_configs import LLAVA_7B, SMOLLM2_135M, SMOLVLM2_500M
from tests.support.towers.stored_pairs import store_tower
from tests.support.whole_models import idefics3_config, llava_config, onevision_config, qwen_config, write_whole_model

SHAPE = BackboneShape(
    vision_layers=3, vision_width=4, patches=16, patch_size=4, image_size=16, text_layers=5, text_width=8,
    text_heads=4, text_key_value_heads=2, text_head_width=3, vocabulary_size=50, maximum_positions=99,
    vision_mlp_width=16, vision_quick_gelu=False, text_mlp_width=24,
)  # fmt: skip


def write_config(folder: Path, **keys: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SMOLLM2_135M | keys))
    return folder


def shown(capfd: pytest.CaptureFixture, *words: object) -> tuple[int, str]:
    capfd.readouterr()  # what the library says while it writes a model
    code = main(["models", "show", *map(str, words)])
    captured = capfd.readouterr()
    assert len(captured.err.splitlines()) <= 3
    return code, captured.out + captured.err


def test_a_language_model(tmp_path: Path, capfd) -> None:
    folder = write_config(tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\nlicense: of another\n")
    code, said = shown(capfd, folder, "--json")
    assert code == ExitCode.DONE
    found = json.loads(said)
    assert found["parameters"]["total"] == 134_515_008  # as the hub counts it
    assert found["architecture"] == "LlamaForCausalLM"
    assert found["runs"] == "fast"
    assert found["language"] | {"heads": 9, "key_value_heads": 3, "head_width": 64, "layers": 30} == found["language"]
    assert found["licence"] == "apache-2.0"
    (folder / "README.md").write_text("# A model\n\nlicense: of something in it\n")
    assert json.loads(shown(capfd, folder, "--json")[1])["licence"] is None
    (folder / "tokenizer_config.json").write_text('{"chat_template": [{"name": "a", "template": "b"}]}')
    assert json.loads(shown(capfd, folder, "--json")[1])["template"] is None  # several, and none of them the default
    (folder / "tokenizer_config.json").write_text('{"chat_template": "text"}')
    code, said = shown(capfd, folder)
    assert "134,515,008" in said
    assert "native, of tokenizer_config.json" in said
    assert [path.name for path in folder.iterdir() if path.suffix == ".safetensors"] == []


def test_a_decoder_that_no_list_names(tmp_path: Path, capfd) -> None:
    keys = {"model_type": "starcoder2", "architectures": ["Starcoder2ForCausalLM"], "hidden_act": "gelu_pytorch_tanh"}
    found = json.loads(shown(capfd, write_config(tmp_path / "model", **keys), "--json")[1])
    assert (found["architecture"], found["runs"]) == ("Starcoder2ForCausalLM", "reference")
    assert "a whole sequence for every token" in shown(capfd, tmp_path / "model")[1]
    keys = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}
    code, said = shown(capfd, write_config(tmp_path / "experts", **keys))
    assert code == ExitCode.BAD_INPUT
    assert "experts" in said


def test_a_fetched_model_by_its_name(tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "models--org--name"
    write_config(place / "snapshots" / ("a" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    for name in ("org/name", "hub:org/name"):
        assert shown(capfd, name)[0] == ExitCode.DONE
    code, said = shown(capfd, "org/other")
    assert code == ExitCode.BAD_INPUT
    assert "m2pt models fetch org/other" in said
    code, said = shown(capfd, "org/name", "--revision", "v2")
    assert code == ExitCode.BAD_INPUT
    assert "org/name at v2 is not on this machine" in said
    assert "is not there" in shown(capfd, "./org/name")[1]


def test_llava_7b_on_a_card_of_24_gb(tmp_path: Path, capfd) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAVA_7B))
    code, said = shown(capfd, tmp_path, "--samples", 1, "--text", 512, "--json")
    assert code == ExitCode.DONE
    found = json.loads(said)
    assert found["parameters"] == {  # the total is the hub's own count
        "vision": 303_507_456,
        "connector": 20_979_712,
        "language": 6_738_939_904,
        "total": 7_063_427_072,
    }
    assert found["m2pt"]["parts"] == {
        "visual_prompts": (23 + 1) * 10 * 1024,
        "textual_prompts": 32 * 10 * 4096,
        "interaction": 20_979_712,
    }
    assert found["m2pt"]["percent"] == round(100 * 22_536_192 / (7_063_427_072 + 245_760 + 1_310_720), 4)
    memory = found["memory"]
    assert list(memory) == ["bfloat16", "int8", "nf4"]
    assert memory["bfloat16"]["weights"] == 2 * 7_063_427_072
    assert memory["nf4"]["weights"] < memory["int8"]["weights"] < memory["bfloat16"]["weights"]
    assert memory["nf4"]["training_recomputed"] < 24e9
    for each in memory.values():
        assert each["weights"] < each["answering"] < each["training_recomputed"] < each["training"]


@pytest.mark.parametrize("tower", ["clip_vision_model", "siglip_vision_model"])
def test_counts_are_those_of_the_model_that_loads(tmp_path: Path, tower: str) -> None:
    model = write_whole_model(tmp_path, llava_config(tower, "qwen2"))
    found = model_report(tmp_path, Load(1, 8, 4, (20, 30)))
    counted = {
        "vision": model.model.vision_tower.num_parameters(),
        "connector": sum(each.numel() for each in model.model.multi_modal_projector.parameters()),
        "language": model.model.language_model.num_parameters() + model.lm_head.weight.numel(),
        "total": model.num_parameters(),
    }
    assert found["parameters"] == counted
    assert found["language"]["model_type"] == "qwen2"
    assert found["template"] == "chat_template.jinja"
    assert found["vision"] == {
        "model_type": tower, "blocks_used": 3, "width": 24, "patches": 16, "patch_size": 4, "image_size": 16
    }  # fmt: skip
    assert found["picture"] == {
        "size": [20, 30],
        "rows_of_a_tile": 16,
        "tiles": 1,
        "patches": 16,
        "rows": 16,
        "tokens": 0,
    }


def test_smolvlm_without_its_processor(tmp_path: Path, capfd) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMOLVLM2_500M))
    found = json.loads(shown(capfd, tmp_path, "--json")[1])
    assert found["parameters"]["total"] == 507_482_304  # the hub's own count
    assert found["picture"] == {"size": [640, 480], "rows_of_a_tile": 64}
    assert found["template"] is None
    said = shown(capfd, tmp_path)[1]
    assert "and are not here" in said
    assert "trains 12,195,840 (2.40%)" in said


@pytest.mark.parametrize("config", [onevision_config(), idefics3_config(), idefics3_config("smolvlm", "SmolVLM")])
def test_a_picture_takes_what_the_processor_makes_of_it(tmp_path: Path, capfd, config: dict[str, object]) -> None:
    write_whole_model(tmp_path, config)
    Image.new("RGB", (30, 20)).save(tmp_path / "picture.png")
    picture = VisionLanguageModel(str(tmp_path)).processor().pictures([tmp_path / "picture.png"])[0]
    found = json.loads(shown(capfd, tmp_path, "--size", "30x20", "--json")[1])
    taken = found["picture"]
    assert taken["tiles"] == len(picture.pixels) > 1
    assert taken["patches"] == 16 * taken["tiles"]
    assert taken["rows"] == sum(picture.layout.rows)
    assert taken["tokens"] == len(picture.layout.token_ids) - picture.layout.placeholders
    size = MicroBatchSize(1, 512, 512, taken["tiles"], taken["rows"] + taken["tokens"])
    estimate = estimate_of(on_meta(tmp_path, None), size)
    assert found["memory"]["bfloat16"]["training"] == estimate.total(recomputes=False)
    other = json.loads(shown(capfd, tmp_path, "--size", "8x8", "--json")[1])
    more_tiles = other["picture"]["tiles"] > taken["tiles"]
    assert more_tiles == (other["memory"]["bfloat16"]["training"] > found["memory"]["bfloat16"]["training"])
    assert f"takes {taken['rows']} rows of {taken['tiles']} tiles" in shown(capfd, tmp_path, "--size", "30x20")[1]


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2", "timm", "open_clip"])
def test_a_tower(tmp_path: Path, capfd, kind: str) -> None:
    store_tower(tmp_path, kind)
    code, said = shown(capfd, tmp_path, "--json")
    assert code == ExitCode.DONE, said
    found = json.loads(said)
    assert found["kind"] == "vision tower"
    tower = tower_of(tmp_path)
    loaded = tower.load(torch.float32)
    counted = {name: each.numel() for name, each in loaded.named_parameters()}
    assert found["parameters"]["vision"] == sum(
        number for name, number in counted.items() if not name.startswith(tower.uncounted())
    )
    assert found["vision"]["blocks"] == len(tower.blocks(loaded))


def test_a_picture_of_its_own_size(tmp_path: Path, capfd) -> None:
    model = write_whole_model(tmp_path, qwen_config())
    found = json.loads(shown(capfd, tmp_path, "--size", "40x24", "--json")[1])
    assert found["picture"] == {
        "size": [40, 24], "rows_of_a_tile": None, "tiles": 1, "patches": 60, "rows": 15, "tokens": 2
    }  # fmt: skip
    assert found["vision"] == {"model_type": "qwen2_5_vl_vision", "blocks_used": 3, "width": 24, "patch_size": 4}
    assert set(found["m2pt"]["parts"]) == {"textual_prompts", "interaction"}
    language = model.model.language_model.num_parameters() + model.lm_head.weight.numel()
    assert found["parameters"]["language"] == language
    assert found["parameters"]["connector"] == sum(each.numel() for each in model.model.visual.merger.parameters())
    said = shown(capfd, tmp_path, "--size", "40x24")[1]
    assert "one of 40 x 24 takes 15 rows of 60 patches and 2 tokens around them" in said


def test_more_tiles_and_rows_take_more() -> None:
    def estimate(**picture: int) -> MemoryEstimate:
        places: list[Place] = ["visual prompts", "textual prompts"]
        size = MicroBatchSize(2, 7, 9, **picture)
        return estimated_memory(SHAPE, Attachment(), places, (10, 1), torch.float32, size)

    plain, tiles = estimate(), estimate(tiles=3)
    blocks = (SHAPE.vision_layers - 1) * vision_layer_bytes(SHAPE, ["visual prompts"], 4)
    assert tiles.activations - plain.activations == 2 * 2 * (16 + 1) * blocks
    rows = estimate(picture_rows=16 + 5)
    of_a_row = SHAPE.text_layers * text_layer_bytes(SHAPE, Attachment(), [], 4) + SHAPE.text_width * 8
    assert rows.activations - plain.activations == 2 * 5 * of_a_row


def test_answering_takes_weights_past_rows_and_one_layer() -> None:
    past = 2 * 30 * 5 * 2 * (2 * 3) * 2
    one_layer = 2 * 30 * 2 * (2 * 8 + 2 * 12 + 3 * 24)
    assert answering_bytes(SHAPE, 1000, 2, 2, 30, 16) == 1000 + past + one_layer + 2 * 50 * (2 + 4)
    in_tower = 2 * 90 * 16 * 2 * (6 * 4 + 2 * 16)
    assert answering_bytes(SHAPE, 1000, 2, 2, 30, 90 * 16) == 1000 + past + in_tower + 2 * 50 * (2 + 4)


@pytest.mark.parametrize("words", [["--samples", "0"], ["--text", "-1"], ["--size", "0x5"], ["--size", "640"]])
def test_numbers_are_positive(tmp_path: Path, capfd, words: list[str]) -> None:
    code, said = shown(capfd, write_config(tmp_path / "model"), *words)
    assert code == ExitCode.BAD_INPUT
    assert words[0] in said


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"architectures": ["InstructBlipForConditionalGeneration"], "model_type": "instructblip"}, "InstructBlip"),
        ({"architectures": None, "model_type": None}, "nothing names a class"),
        ({"model_type": ["llama"]}, "is not known"),
        ({"auto_map": {"AutoConfig": "own.Config"}}, "auto_map"),
        ({"rope_scaling": {"rope_type": "nope"}}, "rope"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, capfd, keys: dict[str, object], named: str) -> None:
    code, said = shown(capfd, write_config(tmp_path / "model", **keys))
    assert code == ExitCode.BAD_INPUT
    assert named in said


def test_what_is_no_model_is_refused(tmp_path: Path, capfd) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "config.json").write_text("<html>")
    for name, named in (("empty", "config.json"), ("file", "is a file"), ("html", "not JSON"), ("gone", "not there")):
        code, said = shown(capfd, tmp_path / name)
        assert code == ExitCode.BAD_INPUT
        assert named in said


def test_the_list_names_every_architecture(capfd) -> None:
    assert main(["models", "list"]) == ExitCode.DONE
    said = capfd.readouterr().out
    lines = [line.split(maxsplit=1) for line in said.splitlines()]
    assert ["Gemma2ForCausalLM", "a window in some layers, soft caps"] in lines
    assert ["LlavaForConditionalGeneration", "clip_vision_model or siglip_vision_model"] in lines
    assert "a window in every layer" in said
