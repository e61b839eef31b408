"""Adapters that stock PEFT made: as methods of ours they have its logits and its greedy answers."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file

import lightning_m2pt
from experiments.runs.loading import experiment_of, load_tuned
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.runs.adapter_settings import classes_by_name
from lightning_m2pt.storage.adapter_folder import check_adapter, load_adapter, read_adapter_config
from tests.support.adapters.no_paths import paths_said
from tests.support.peft.small_bases import Bases, written_bases

PREFIX: dict[str, Any] = {"num_virtual_tokens": 4}
EVERYWHERE: dict[str, Any] = {
    "r": 4,
    "target_modules": "all-linear",
    "rank_pattern": {"down_proj": 2, r"layers\.[01]\.self_attn\.o_proj": 3},
    "alpha_pattern": {"layers.0.self_attn.q_proj": 3, ".*up_proj": 5},
    "use_rslora": True,
}
NORMS = ["input_layernorm", "post_attention_layernorm", "norm"]
FORMS: dict[str, dict[str, Any]] = {
    "prefix and the projector": {
        "kind": "PREFIX_TUNING",
        "base": "llava",
        "std": 0.5,
        "config": {**PREFIX, "modules_to_save": ["multi_modal_projector"]},
    },
    "prefix of an MLP": {
        "kind": "PREFIX_TUNING",
        "base": "language",
        "std": 0.3,
        "config": {**PREFIX, "prefix_projection": True, "encoder_hidden_size": 8},
    },
    "prompt": {"kind": "PROMPT_TUNING", "base": "llava", "std": 0.5, "config": PREFIX},
    "prompt before rows": {"kind": "PROMPT_TUNING", "base": "language", "std": 0.5, "config": PREFIX},
    "low rank, in the tower too": {
        "kind": "LORA",
        "base": "llava",
        "std": 0.2,
        "config": {"r": 4, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.3},
    },
    "low rank everywhere": {"kind": "LORA", "base": "llava", "std": 0.2, "config": EVERYWHERE},
    "low rank and the projector": {
        "kind": "LORA",
        "base": "llava",
        "std": 0.2,
        "config": {
            "r": 4,
            "target_modules": r".*language_model.*\.(q_proj|v_proj)",
            "modules_to_save": ["multi_modal_projector"],
        },
    },
    "low rank in one layer": {
        "kind": "LORA",
        "base": "language",
        "std": 0.2,
        "config": {"r": 2, "lora_alpha": 3, "target_modules": ["mlp.down_proj", "o_proj"], "layers_to_transform": [1]},
    },
    "norms": {
        "kind": "LN_TUNING",
        "base": "llava",
        "std": 0.2,
        "config": {"target_modules": NORMS, "modules_to_save": ["multi_modal_projector"]},
    },
    "low rank by patterns": {"kind": "LORA", "base": "language", "std": 0.2, "config": EVERYWHERE},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    forms = {name: {**form, "config": {"task_type": "CAUSAL_LM", **form["config"]}} for name, form in FORMS.items()}
    return written_bases(tmp_path_factory.mktemp("peft"), forms)


def converted(bases: Bases, form: str, output: Path) -> Path:
    words = ["convert", str(bases.folder / form), "--base", bases.name_of_base(form), "--output", str(output)]
    assert main(words) == 0
    return output / "adapter"


@pytest.mark.parametrize("form", FORMS)
def test_logits_and_greedy_answers_are_pefts(bases: Bases, tmp_path: Path, form: str) -> None:
    adapter, backbone = converted(bases, form, tmp_path / "made"), bases.backbone(form)
    config = read_adapter_config(adapter)
    method = classes_by_name()[config["peft_type"].lower()](**config["arguments"])
    check_adapter(adapter, method, backbone.fingerprint())
    method.build(backbone, torch.Generator())
    load_adapter(adapter, method)
    batch, (expected, is_real, greedy) = bases.batch(backbone), bases.expected(form)
    with torch.no_grad():
        frozen = backbone.logits(backbone(batch).hidden_states)
        method.double().eval().attach(backbone)
        found = backbone.logits(backbone(batch).hidden_states)
    torch.testing.assert_close(found[is_real], expected[is_real], rtol=1e-9, atol=1e-9)
    assert float((found - frozen)[is_real].abs().max()) > 0.05
    assert [answer.token_ids for answer in greedy_answers(backbone, batch, 5, end_token_id=-1)] == greedy


@pytest.mark.parametrize("form", ["prefix of an MLP", "low rank by patterns"])
def test_evaluation_takes_what_was_converted(bases: Bases, tmp_path: Path, form: str) -> None:
    adapter = converted(bases, form, tmp_path / "made")
    experiment = experiment_of(None, adapter, ("--config", "experiments/frozen.yaml"))
    load_tuned(None, adapter, experiment)
    experiment.model.eval()
    backbone = experiment.model.backbone
    batch, (expected, is_real, _) = bases.batch(backbone), bases.expected(form)
    with torch.no_grad():
        found = backbone.logits(backbone(batch).hidden_states)
    tolerance = 3e-5 * float(expected.abs().max())  # float32 beside float64
    torch.testing.assert_close(found[is_real].double(), expected[is_real], rtol=0, atol=tolerance)


def test_the_folder_says_what_it_was_made_of(bases: Bases, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = converted(bases, "prompt before rows", tmp_path / "made")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["peft_type"] == "M2PT"
    assert config["arguments"]["textual_length"] == 4
    assert config["arguments"]["textual_depth"] == "shallow"
    assert config["converted_from"]["converted_from"] == "adapter_model.safetensors"
    assert config["template"] is None
    assert "it says that it was trained on" not in capsys.readouterr().out  # both folders are called language
    card = (adapter / "README.md").read_text()
    assert "PROMPT_TUNING" in card
    assert "a base in a folder" in card


def test_a_program_loads_it_with_the_template_that_was_said(
    bases: Bases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, folder = numpy.zeros((48, 48, 3), numpy.uint8), bases.folder / "low rank in one layer"
    with pytest.raises(BadInputError, match="an adapter that PEFT wrote") as caught:
        lightning_m2pt.load(folder, base="testbed", device="cpu")
    command = caught.value.hint.partition(" makes ")[0].removeprefix("m2pt ").replace(str(folder), "FOLDER")
    words = {"FOLDER": str(folder), "BASE": "testbed", "NAME": "vicuna_v1", "DIR": str(tmp_path / "made")}
    assert main([words.get(word, word) for word in command.split()]) == 0
    assert "template" not in capsys.readouterr().out
    adapter = tmp_path / "made" / "adapter"
    assert paths_said(adapter, str(bases.folder)) == []
    model = lightning_m2pt.load(adapter, device="cpu")
    assert isinstance(model.ask(picture, "what is this?", max_new_tokens=3), str)
    unsaid = converted(bases, "low rank in one layer", tmp_path / "unsaid")
    assert "needs --template NAME here" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(BadInputError, match="does not say its template"):
        lightning_m2pt.load(unsaid, device="cpu")


def arguments_of(bases: Bases, form: str, output: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_adapter_config(converted(bases, form, output))["arguments"]
    return found


def test_layers_ranks_and_alphas_are_said_in_few_words(bases: Bases, tmp_path: Path) -> None:
    plain = {"rank": 4, "alpha": 8.0, "vision": True, "interaction": False, "targets": ["q_proj", "v_proj"]}
    assert arguments_of(bases, "low rank, in the tower too", tmp_path / "tower") == plain
    found = arguments_of(bases, "low rank everywhere", tmp_path / "everywhere")
    assert "targets" not in found
    assert found["projector"] is True
    layers = "language_model.model.language_model.layers"
    assert found["ranks"] == {"down_proj": 2, f"{layers}.0.self_attn.o_proj": 3, f"{layers}.1.self_attn.o_proj": 3}
    assert found["alphas"]["up_proj"] == 5 * 4**0.5
    assert found["alphas"][f"{layers}.0.self_attn.q_proj"] == 3 * 4**0.5
    one = arguments_of(bases, "low rank in one layer", tmp_path / "one")
    places = [f"language_model.model.layers.1.{name}" for name in ("mlp.down_proj", "self_attn.o_proj")]
    assert one["targets"] == places
    assert (one["rank"], one["alpha"]) == (2, 3.0)


def test_layers_that_nothing_depends_on_are_left_out_and_it_is_said(
    bases: Bases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = converted(bases, "low rank, in the tower too", tmp_path / "made")
    said = " ".join(capsys.readouterr().out.split())
    assert "note: left out 2 layers of the tower that no output depends on" in said
    theirs = bases.folder / "low rank, in the tower too"
    kept, given = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, theirs))
    assert len(given) - len(kept) == 4


def test_what_it_calls_its_base_is_compared_and_said(
    bases: Bases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for path in (bases.folder / "prompt").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "adapter_config.json").read_text())
    other = {**config, "base_model_name_or_path": "somebody/another\x1b[2J", "auto_mapping": {"parent_library": "os"}}
    (folder / "adapter_config.json").write_text(json.dumps(other))
    base = str(bases.folder / "llava")
    assert main(["convert", str(folder), "--base", base, "--output", str(tmp_path / "made")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: it says that it was trained on 'somebody/another" in said
    assert "\x1b" not in said
    assert "only you know" in said
