"""LoRA in PEFT's layout: names of other models, files of LLaVA's trainer, and what has no form here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightning_m2pt.main import main
from lightning_m2pt.storage.foreign.peft.patterns import is_target, may_run, names_layer
from tests.support.peft.written_folders import BEFORE_LAYERS, LORA, SHAPE, low_rank_tensors, write_peft

FIRST = f"{BEFORE_LAYERS}.0.self_attn.q_proj"
TOWER = "base_model.model.model.vision_tower.vision_tower.vision_model.encoder.layers"
Spoil = Callable[[Path], object]


def with_config(**keys: Any) -> Spoil:
    return lambda folder: write_peft(folder, {**LORA, **keys}, low_rank_tensors())


def with_tensors(**tensors: torch.Tensor | None) -> Spoil:
    """Adds tensors whose names have ``__`` for a dot, or takes them away."""

    def write(folder: Path) -> Path:
        changed = {**low_rank_tensors(), **{name.replace("__", "."): one for name, one in tensors.items()}}
        return write_peft(folder, LORA, {name: one for name, one in changed.items() if one is not None})

    return write


def named(name: str) -> str:
    return name.replace(".", "__")


def in_tower(name: str, outside: int) -> dict[str, torch.Tensor]:
    begin = named(f"{TOWER}.0.{name}")
    return {f"{begin}__lora_A__weight": torch.ones(2, 96), f"{begin}__lora_B__weight": torch.ones(outside, 2)}


def without_layer(folder: Path) -> None:
    write_peft(folder, LORA, {name: one for name, one in low_rank_tensors().items() if ".1.mlp." not in name})


def in_two_models(folder: Path) -> None:
    tensors = low_rank_tensors().items()
    write_peft(
        folder, LORA, {name.replace("model.model.layers.1.", "model.draft.layers.1."): one for name, one in tensors}
    )


HEAD = {f"{named('base_model.model.lm_head')}__lora_{factor}__weight": torch.ones(2, 2) for factor in "AB"}
EMBEDDING = {named("base_model.model.model.embed_tokens.lora_embedding_A"): torch.ones(2, 2)}
SLOW = r"((a+)+)+\.(q_proj|up_proj)"
REFUSED: dict[str, tuple[Spoil, str]] = {
    "dora": (with_config(use_dora=True), "use_dora is True, which no method here does"),
    "pissa": (with_config(init_lora_weights="pissa"), "init_lora_weights is 'pissa'"),
    "olora": (with_config(init_lora_weights="olora"), "init_lora_weights is 'olora'"),
    "a start that is 1": (with_config(init_lora_weights=1), "init_lora_weights is 1"),
    "transposed": (with_config(fan_in_fan_out=True), "fan_in_fan_out is True"),
    "layers twice": (with_config(layer_replication=[[0, 2]]), "layer_replication is [[0, 2]]"),
    "trained tokens": (with_config(trainable_token_indices=[3]), "trainable_token_indices is [3]"),
    "parameters": (with_config(target_parameters=["x"]), "target_parameters is ['x']"),
    "biases": (with_config(bias="lora_only"), "bias is 'lora_only'"),
    "biases of its own": (with_config(lora_bias=True), "lora_bias is True"),
    "a negative rank": (with_config(r=-2), "r is -2"),
    "an absurd rank": (with_config(r=10**9), "r is 1000000000"),
    "another rank": (with_config(r=3), "has matrices of [2, 128]"),
    "a negative alpha": (with_config(lora_alpha=-1), "lora_alpha is -1"),
    "an alpha beyond fractions": (with_config(lora_alpha=10**400), "lora_alpha is 1000000"),
    "a layer's alpha beyond fractions": (with_config(alpha_pattern={"q_proj": 10**400}), "alpha_pattern is"),
    "no alpha": (with_config(lora_alpha=None), "lora_alpha is None"),
    "a scale that is no choice": (with_config(use_rslora="no"), "use_rslora is 'no'"),
    "ranks that are none": (with_config(rank_pattern={"q_proj": -1}), "rank_pattern is {'q_proj': -1}"),
    "a pattern that blows up": (with_config(alpha_pattern={SLOW: 3}), "a regular expression that is not run here"),
    "a pattern of two repetitions": (
        with_config(alpha_pattern={".*layers.*q_proj": 3}),
        "a regular expression that is not run here",
    ),
    "a name without end": (with_tensors(**{"x" * 5000: torch.ones(1)}), "the name of a tensor has 5,000 characters"),
    "a pattern that is none": (with_config(rank_pattern={"(q": 3}), "a regular expression that is not run here"),
    "no targets": (with_config(target_modules=None), "target_modules is None"),
    "a target without tensors": (with_config(target_modules=["q_proj", "up_proj", "v_proj"]), "no tensors of"),
    "all layers, and tensors of some": (with_config(target_modules="all-linear"), "no tensors of"),
    "tensors without a target": (with_config(target_modules=["q_proj"]), "tensors besides, of"),
    "a layer is missing": (without_layer, "no tensors of model.layers.1.mlp.up_proj"),
    "tensors of a layer that is not chosen": (with_config(layers_to_transform=1), "tensors besides, of model.layers.0"),
    "layers that are no numbers": (with_config(layers_to_transform=["a"]), "layers_to_transform is ['a']"),
    "half a pair": (with_tensors(**{named(FIRST) + "__lora_B__weight": None}), "tensors missing"),
    "a bias": (with_tensors(**{named(FIRST) + "__bias": torch.ones(128)}), "biases were trained, too"),
    "a magnitude": (
        with_tensors(**{named(FIRST) + "__lora_magnitude_vector": torch.ones(128)}),
        "tensors of another form",
    ),
    "embeddings": (with_tensors(**EMBEDDING), "tensors of another form"),
    "the head": (with_tensors(**HEAD), "it wraps lm_head"),
    "another width": (
        lambda folder: write_peft(
            folder,
            LORA,
            {name: one.repeat(2, 2)[:2, :] if "lora_A" in name else one for name, one in low_rank_tensors().items()},
        ),
        "was it tuned on another one?",
    ),
    "layers of two models": (in_two_models, "its layers stand in several decoders: draft.layers., model.layers."),
    "more layers": (
        lambda folder: write_peft(folder, LORA, low_rank_tensors(layers=SHAPE.text_layers + 1)),
        "which is no linear layer of its own in this base",
    ),
    "attention of a packed tower": (
        with_tensors(**in_tower("self_attn.q_proj", 96)),
        "open_clip's attention is one packed",
    ),
    "nan": (with_tensors(**{named(FIRST) + "__lora_A__weight": torch.full((2, 128), torch.nan)}), "NaN or infinity in"),
    "a vector": (
        with_tensors(**{named(FIRST) + "__lora_A__weight": torch.ones(2)}),
        "has matrices of [2] and [128, 2]",
    ),
    "no pair": (
        lambda folder: write_peft(folder, LORA, {"base_model.model.x": torch.ones(2)}),
        "there is no pair of lora_A and lora_B",
    ),
    "one layer under two names": (
        lambda folder: write_peft(
            folder,
            {**LORA, "target_modules": SLOW},
            {**low_rank_tensors(), **low_rank_tensors("base_model.model.language_model.model.layers")},
        ),
        "two of its layers are one and the same layer",
    ),
    "a pickle beside it": (
        lambda folder: (folder / "non_lora_trainables.bin").write_bytes(b"\x80\x02"),
        "non_lora_trainables.bin has what was trained besides",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_three_lines(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, expected = REFUSED[name]
    folder = write_peft(tmp_path / "adapter", LORA, low_rank_tensors())
    spoil(folder)
    before = sorted(tmp_path.rglob("*"))
    assert main(["convert", str(folder), "--base", "testbed", "--output", str(tmp_path / "made")]) == 2
    said = capsys.readouterr()
    assert expected in " ".join(said.err.split())
    assert len(said.err.strip().splitlines()) <= 4
    assert sorted(tmp_path.rglob("*")) == before


def converted(folder: Path, output: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    assert main(["convert", str(folder), "--base", "testbed", "--output", str(output)]) == 0
    config = json.loads((output / "adapter" / "adapter_config.json").read_text())
    return load_file(output / "adapter" / "adapter_model.safetensors"), config["arguments"]


@pytest.mark.parametrize(
    "begin",
    [
        BEFORE_LAYERS,
        "base_model.model.model.language_model.layers",
        "base_model.model.language_model.model.layers",
        "base_model.model.layers",
    ],
)
def test_a_decoder_goes_by_the_names_of_any_model(begin: str, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "adapter", LORA, low_rank_tensors(begin))
    found, arguments = converted(folder, tmp_path / "made")
    assert arguments["targets"] == ["q_proj", "up_proj"]
    assert len(found) == 4 * SHAPE.text_layers
    for name, tensor in low_rank_tensors("language_low_rank.model.layers").items():
        assert torch.equal(found[name], tensor)


def test_what_llavas_trainer_wrote_is_read_with_its_projector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = {
        f"{TOWER}.1.mlp.fc1.lora_A.weight": torch.ones(2, SHAPE.vision_width),
        f"{TOWER}.1.mlp.fc1.lora_B.weight": torch.ones(SHAPE.vision_mlp_width, 2),
    }
    config = {**LORA, "target_modules": ["q_proj", "up_proj", "fc1"]}
    folder = write_peft(tmp_path / "adapter", config, {**low_rank_tensors(), **extra})
    projector = {"weight": torch.randn(SHAPE.text_width, SHAPE.vision_width), "bias": torch.randn(SHAPE.text_width)}
    torch.save(
        {f"base_model.model.model.mm_projector.{name}": one for name, one in projector.items()},
        folder / "non_lora_trainables.bin",
    )
    assert main(["convert", str(folder), "--base", "testbed", "--output", str(tmp_path / "made")]) == 2
    command = " ".join(capsys.readouterr().err.split()).partition("`m2pt ")[2].partition("`")[0].split()
    assert main(command) == 0
    found, arguments = converted(folder, tmp_path / "made")
    assert arguments["interaction"] is True
    assert arguments["vision"] is True
    for name, tensor in projector.items():
        assert torch.equal(found[f"interaction.{name}"], tensor)
    assert torch.equal(
        found["vision_low_rank.transformer.resblocks.1.mlp.c_fc.lora_A.weight"], torch.ones(2, SHAPE.vision_width)
    )


def test_a_target_that_would_take_years_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_peft(tmp_path / "adapter", {**LORA, "target_modules": SLOW}, low_rank_tensors())
    found, _ = converted(folder, tmp_path / "made")
    assert len(found) == 4 * SHAPE.text_layers
    assert "is a regular expression that is not run here" in " ".join(capsys.readouterr().out.split())


def test_what_leaves_layers_out_is_said_and_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_peft(tmp_path / "adapter", {**LORA, "exclude_modules": SLOW}, low_rank_tensors())
    found, _ = converted(folder, tmp_path / "made")
    assert len(found) == 4 * SHAPE.text_layers
    assert "exclude_modules is not followed here" in " ".join(capsys.readouterr().out.split())


PATTERNS: dict[str, bool] = {
    "q_proj": True,
    r"layers\.[01]\.self_attn\.o_proj": True,
    r".*language_model.*\.(q_proj|v_proj)": True,
    r"(?:q|v)_proj": True,
    r"(a+)+b": False,
    r"(a|a)*b": False,
    r"(?:a|a){5,}b": False,
    r".*.*.*.*x": False,
    r"(a)\1": False,
    r"(?=a)b": False,
    r"(?P<x>a)": False,
    "(": False,
    "a" * 2000: False,
}


def test_names_are_matched_by_whole_steps() -> None:
    assert names_layer("q_proj", "layers.0.q_proj")
    assert not names_layer("proj", "layers.0.q_proj")
    assert is_target(["q_proj"], "layers.0.q_proj")
    assert not is_target(["proj"], "layers.0.q_proj")
    assert is_target(r".*q_proj", "layers.0.q_proj")
    assert not is_target("q_proj", "layers.0.q_proj")


def test_layers_that_are_excluded_need_no_tensors(tmp_path: Path) -> None:
    tensors = {name: one for name, one in low_rank_tensors().items() if ".1.mlp." not in name}
    folder = write_peft(tmp_path / "adapter", {**LORA, "exclude_modules": ["layers.1.mlp.up_proj"]}, tensors)
    found, _ = converted(folder, tmp_path / "made")
    assert len(found) == len(tensors)


def test_names_are_matched_by_few_repetitions() -> None:
    assert may_run(".*up_proj", most=1)
    assert not may_run(".*layers.*up_proj", most=1)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_only_patterns_that_end_soon_are_run(pattern: str) -> None:
    assert may_run(pattern) is PATTERNS[pattern]
