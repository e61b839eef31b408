"""``m2pt export peft``: what lies in the folder, and what is refused by name before anything is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.main import main
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.storage.foreign.peft import written_adapter
from tests.support.models.tuned_runs import write_run
from tests.support.whole_models import llava_config, next_config, write_whole_model

METHODS: dict[str, Callable[[], Method]] = {
    "m2pt": lambda: M2PT(3, 2),
    "some": lambda: M2PT(0, 2, textual_layers=[0, 2]),
    "late": lambda: M2PT(0, 2, textual_layers=[1, 2, 3], textual_depth="shallow"),
    "projector": lambda: M2PT(0, 0),
    "both": lambda: Combined([Lora(2, interaction=False), M2PT(0, 2)]),
    "aprompt": APrompt,
    "adapter": Adapter,
    "full": Full,
    "pixels": PixelPrompting,
    "tower": lambda: Lora(2, vision=True),
    "ia3": lambda: PeftTuner("ia3", {}),
    "two starts": lambda: PeftTuner(
        "lora", {"r": 2}, {"r": 3, "lora_alpha": 5, "use_rslora": True}, split_factors=True
    ),
    "factors": lambda: PeftTuner("lora", {"r": 2, "use_dora": True}, split_factors=True),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of several methods, by their folder's name; no test changes one."""
    folder = tmp_path_factory.mktemp("runs")
    for name, make in METHODS.items():
        write_run(folder / name, make(), is_trained=name in ("m2pt", "both", "tower", "two starts"))
    return folder


def exported(run: Path, output: Path, *words: str) -> int:
    return main(["export", "peft", str(run), "--output", str(output), *words])


@pytest.mark.parametrize("source", ["run", "adapter"])
def test_the_rest_of_a_run_and_visual_prompts_beside_it(runs, tmp_path, source):
    run = runs / "m2pt"
    words = ["--config", "experiments/m2pt_base.yaml"] if source == "adapter" else []
    folder = run / "adapter" if source == "adapter" else run
    assert exported(folder, tmp_path / "out", "--leave-out", "visual_prompts", *words) == 0
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"README.md", "adapter_config.json", "adapter_model.safetensors", "visual_prompts.safetensors"}
    trained = load_file(run / "adapter" / "adapter_model.safetensors")
    beside = load_file(tmp_path / "out" / "visual_prompts.safetensors")
    assert {f"visual_prompts.{name}" for name in beside} == {name for name in trained if name.startswith("visual")}
    assert all(torch.equal(tensor, trained[f"visual_prompts.{name}"]) for name, tensor in beside.items())
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["num_virtual_tokens"], config["token_dim"]) == ("PREFIX_TUNING", 2, 128)
    assert config["modules_to_save"] == ["model.multi_modal_projector"]
    assert config["base_model_name_or_path"] is None
    card = (tmp_path / "out" / "README.md").read_text()
    for text in ("m2pt evaluate --knock-out visual_prompts", "m2pt merge RUN", "visual_length: 3", "has position 2"):
        assert text in card
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path.parent).encode() not in path.read_bytes()
        assert str(EMBEDDED.parents[1]).encode() not in path.read_bytes()


def test_a_language_model_alone_gets_its_projector_beside(runs, tmp_path):
    assert exported(runs / "both", tmp_path / "out", "--leave-out", "textual_prompts", "--on", "language") == 0
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["modules_to_save"] is None
    assert "model.layers.0.self_attn.q_proj" in config["target_modules"]
    trained = load_file(runs / "both" / "adapter" / "adapter_model.safetensors")
    beside = load_file(tmp_path / "out" / "projector.safetensors")
    assert torch.equal(beside["weight"], trained["members.m2pt.interaction.weight"])
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    name = "model.layers.1.mlp.up_proj.lora_B.weight"
    assert torch.equal(tensors[f"base_model.model.{name}"], trained[f"members.lora.language_low_rank.{name}"])


def test_the_tower_alone_has_the_settings_of_the_tower(runs, tmp_path):
    left_out = [word for factor in "ab" for word in ("--leave-out", f"language_low_rank_{factor}")]
    assert exported(runs / "two starts", tmp_path / "out", *left_out) == 0
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (3, 5, True)
    assert all("vision" in name for name in config["target_modules"])


REFUSED: dict[str, tuple[str, list[str], list[str]]] = {
    "visual prompts": ("m2pt", [], ["visual_prompts of m2pt is not carried", "--leave-out visual_prompts"]),
    "a part that is none": ("m2pt", ["--leave-out", "head"], ["m2pt has no part 'head'", "visual_prompts or"]),
    "everything left out": (
        "m2pt",
        ["--leave-out", "visual_prompts", "--leave-out", "textual_prompts"],
        ["of m2pt interaction is left", "m2pt merge"],
    ),
    "prompts in some layers": ("some", [], ["textual_prompts stand in layers 0, 2 of 4"]),
    "a prompt in a later layer": ("late", [], ["textual_prompts stand in layers 1 of 4"]),
    "a projector alone": ("projector", [], ["of m2pt interaction is left", "m2pt merge"]),
    "two of PEFT's forms": ("both", [], ["language_low_rank and textual_prompts are LORA and PREFIX_TUNING"]),
    "learned queries": ("aprompt", [], ["of aprompt is not carried"]),
    "adapters": ("adapter", [], ["of adapter is not carried"]),
    "a whole model": ("full", [], ["vision of full is not carried: it is a model by itself", "m2pt merge"]),
    "pixels": ("pixels", [], ["is not carried"]),
    "another tuner of PEFT": (
        "ia3",
        [],
        ["language_ia3 of peft_tuner is not carried", "LoRA is written, and this is ia3"],
    ),
    "two scales": (
        "two starts",
        [],
        [
            "use_rslora is False in settings and True in vision",
            "--leave-out vision_low_rank_a --leave-out vision_low_rank_b",
        ],
    ),
    "a factor without the other": (
        "factors",
        ["--leave-out", "language_low_rank_a"],
        ["language_low_rank_b and language_low_rank_magnitude would be left without the rest"],
    ),
    "layers without their lengths": (
        "factors",
        ["--leave-out", "language_low_rank_magnitude"],
        ["language_low_rank_a and language_low_rank_b would be left", "--leave-out language_low_rank_b"],
    ),
    "a tower that is not there": (
        "tower",
        ["--on", "language"],
        ["vision_low_rank of lora is not carried: a language model alone has no vision tower and no projector"],
    ),
    "no run": ("nothing", [], ["neither a run nor an adapter"]),
    "another form of model": ("m2pt", ["--on", "tower"], ["invalid choice: 'tower'"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_carried_is_named_and_nothing_is_written(runs, tmp_path, capsys, monkeypatch, name):
    run, words, expected = REFUSED[name]
    monkeypatch.setattr(written_adapter, "read_tensors", None)  # no number is read before
    assert exported(runs / run, tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) <= 3
    for part in expected:
        assert part in error
    assert not list(tmp_path.iterdir())


WINDOW = {"sliding_window": 6}
DYNAMIC = {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}}
BASES = {
    "a window": (llava_config(text="mistral", **WINDOW), {}, "see 6 positions back"),
    "a rotation by length": (llava_config(**DYNAMIC), {}, "(dynamic) depends on the length"),
    "another family": (next_config(), {}, "LlavaNextForConditionalGeneration is not known to be ours"),
    "packed weights": (llava_config(), {"quantization": "int8"}, "packed here (int8)"),
}


def test_a_model_that_scales_its_embeddings_takes_no_prompt(tmp_path, capsys):
    write_whole_model(tmp_path / "base", llava_config(text="granite", embedding_multiplier=3, pad_token_id=0))
    method = M2PT(0, 2, textual_depth="shallow", interaction=False)
    write_run(tmp_path / "run", method, tmp_path / "base", dtype="float32")
    capsys.readouterr()
    assert exported(tmp_path / "run", tmp_path / "out") == 2
    assert "granite multiplies the rows" in capsys.readouterr().err
    assert exported(tmp_path / "run", tmp_path / "out", "--as-prefix") == 0


@pytest.mark.parametrize("name", BASES)
def test_bases_with_which_a_prefix_would_be_another_are_refused(tmp_path, capsys, name):
    config, settings, expected = BASES[name]
    write_whole_model(tmp_path / "base", config)
    method = M2PT(0, 2, interaction=False)
    write_run(tmp_path / "run", method, tmp_path / "base", **{"dtype": "float32", **settings})
    capsys.readouterr()
    assert exported(tmp_path / "run", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) <= 3
    assert {path.name for path in tmp_path.iterdir()} == {"base", "run"}


def other_base(run: Path) -> None:
    path = run / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_fingerprint": "v2:0"}))


def flipped(run: Path) -> None:
    path = run / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


HARMED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another base": (other_base, "adapter of another backbone"),
    "a flipped bit": (flipped, "its content is not what was saved"),
    "no adapter": (lambda run: shutil.rmtree(run / "adapter"), "no adapter here"),
    "a folder that is there": (lambda run: (run.parent / "out").mkdir(), "something stands there already"),
}


@pytest.mark.parametrize("name", HARMED)
def test_a_harmed_run_is_refused(runs, tmp_path, capsys, name):
    harm, expected = HARMED[name]
    run = Path(shutil.copytree(runs / "tower", tmp_path / "run"))
    harm(run)
    before = {path.name for path in tmp_path.iterdir()}
    assert exported(run, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) <= 3
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_full_disk_ends_as_the_machines_failure(runs, tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(written_adapter, "write_tensors", full)
    assert exported(runs / "tower", tmp_path / "out") == 3
    assert "free some space" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
