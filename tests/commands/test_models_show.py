"""`m2pt models show` and `list`: from config.json alone, counts as the library's, refusals in three lines."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from lightning_m2pt.backbones.base import BackboneShape
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.inspection.model_facts import Load
from lightning_m2pt.inspection.model_report import model_report
from lightning_m2pt.main import main
from lightning_m2pt.tuning.answering_memory import answering_bytes
from tests.support.whole_models import llava_config, write_whole_model

SMOLLM2 = {  # HuggingFaceTB/SmolLM2-135M-Instruct
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
}


def write_config(folder: Path, **keys: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SMOLLM2 | keys))
    return folder


def shown(capfd: pytest.CaptureFixture, *words: object) -> tuple[int, str]:
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
    assert found["language"] | {"heads": 9, "key_value_heads": 3, "head_width": 64, "layers": 30} == found["language"]
    assert found["licence"] == "apache-2.0"
    code, said = shown(capfd, folder)
    assert "134,515,008" in said
    assert [path.name for path in folder.iterdir() if path.suffix != ".md"] == ["config.json"]


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


LLAVA = {  # llava-hf/llava-1.5-7b-hf; what it leaves out are the library's defaults, a Llama of 7B
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "image_token_index": 32000,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu",
    "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064},
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    },
}


def test_llava_7b_on_a_card_of_24_gb(tmp_path: Path, capfd) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAVA))
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
    code, said = shown(capfd, tmp_path)
    assert "trains 22,536,192 (0.32%)" in said


@pytest.mark.parametrize("tower", ["clip_vision_model", "siglip_vision_model"])
def test_counts_are_those_of_the_model_that_loads(tmp_path: Path, tower: str) -> None:
    model = write_whole_model(tmp_path, llava_config(tower, "qwen2"))
    found = model_report(tmp_path, Load(1, 8, 4))
    counted = {
        "vision": model.model.vision_tower.num_parameters(),
        "connector": sum(each.numel() for each in model.model.multi_modal_projector.parameters()),
        "language": model.model.language_model.num_parameters() + model.lm_head.weight.numel(),
        "total": model.num_parameters(),
    }
    assert found["parameters"] == counted
    assert found["language"]["model_type"] == "qwen2"
    assert found["vision"] == {
        "model_type": tower, "blocks_used": 3, "width": 24, "patches": 16, "patch_size": 4, "image_size": 16
    }  # fmt: skip


def test_answering_takes_weights_past_rows_and_one_layer() -> None:
    shape = BackboneShape(
        vision_layers=3, vision_width=4, patches=16, patch_size=4, image_size=16, text_layers=5, text_width=8,
        text_heads=4, text_key_value_heads=2, text_head_width=3, vocabulary_size=50, maximum_positions=99,
        vision_mlp_width=16, vision_quick_gelu=False, text_mlp_width=24,
    )  # fmt: skip
    past = 2 * 30 * 5 * 2 * (2 * 3) * 2
    one_layer = 2 * 30 * 2 * (2 * 8 + 2 * 12 + 3 * 24)
    assert answering_bytes(shape, 1000, 2, 2, 30) == 1000 + past + one_layer + 2 * 50 * (2 + 4)


@pytest.mark.parametrize("words", [["--samples", "0"], ["--text", "-1"]])
def test_numbers_are_positive(tmp_path: Path, capfd, words: list[str]) -> None:
    code, said = shown(capfd, write_config(tmp_path / "model"), *words)
    assert code == ExitCode.BAD_INPUT
    assert words[0] in said


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"architectures": ["InstructBlipForConditionalGeneration"], "model_type": "instructblip"}, "InstructBlip"),
        ({"architectures": None, "model_type": None}, "nothing names a class"),
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
    assert "  Gemma2ForCausalLM   a window in some layers, soft caps" in said
    assert "a window in every layer" in said
