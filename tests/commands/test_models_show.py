"""`m2pt models show` and `list`: from config.json alone, counts as the library's, refusals in three lines."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main

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
