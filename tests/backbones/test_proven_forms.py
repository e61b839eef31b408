"""Every form that is accepted is right on every path of ours; every form that is not is refused by its key."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.decoders.rotations import ROTATIONS
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.proven_forms import INSTALLED_CODE_ONLY, VALUES, check_language_config
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch, write_configs
from lightning_m2pt.tuning.losses import supervised_rows

MISTRAL = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
LINEAR = {"type": "linear", "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LONGROPE = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 64,
    "short_factor": [1.0, 1.5, 2.0, 3.0],
    "long_factor": [4.0, 5.0, 6.0, 7.0],
}
ACCEPTED: dict[str, dict[str, Any]] = {
    "llama": {},
    "base frequency": {"rope_theta": 100.0},
    "rope_parameters": {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    "linear": {"rope_scaling": LINEAR, "rope_theta": 100.0},
    "llama3": {"rope_scaling": LLAMA3, "rope_theta": 1000.0},
    "longrope": {"rope_scaling": LONGROPE},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 12},
    "tied": {"tie_word_embeddings": True},
    "eager": {"_attn_implementation": "eager"},
    "mistral": {**MISTRAL, "sliding_window": None},
    "mistral's window over all positions": {**MISTRAL, "sliding_window": 128},
    "of another tool": {"_name_or_path": "x", "transformers_version": "4.31", "max_sequence_length": 2048, "foo": [1]},
}
ACCEPTED_TOWERS: dict[str, dict[str, Any]] = {
    "layer scale": {"ls_init_value": 0.1},
    "no norm before": {"no_ln_pre": True},
    "another epsilon": {"norm_kwargs": {"eps": 1e-3}},
    "what stands behind its features": {"pool_type": "avg", "patch_dropout": 0.5},
}


def assert_right_on_every_path(backbone: OpenClipLlama) -> None:
    """Loss and gradients of the token path, the prefix path and all shortcuts agree; so do decoded answers."""
    batch, found = random_batch(dtype=torch.float64), []
    for path, shortcuts in (("token", EVERY_ROW), ("auto", EVERY_ROW), ("auto", Shortcuts())):
        method = M2PT(3, 4, init="normal", init_std=0.5, path=path)
        method.build(backbone, torch.Generator().manual_seed(7))
        method.attach(backbone)
        rows = supervised_rows(backbone, batch, shortcuts)
        rows.losses.sum().backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in method.parameters()])
        answers = [answer.token_ids for answer in greedy_answers(backbone, batch, 3, end_token_id=-1)]
        found.append((rows.losses.detach(), gradient, answers))
        method.detach(backbone)
    for losses, gradient, answers in found[1:]:
        # The library's norms compute in float32 whatever the model's type is, and rotary tables are float32.
        torch.testing.assert_close(losses, found[0][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-4, atol=1e-5)
        assert answers == found[0][2]


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_accepted_language_model_is_right_on_every_path(tmp_path: Path, name: str):
    backbone = random_backbone(tmp_path, torch.float64, language=ACCEPTED[name])
    batch = random_batch(dtype=torch.float64)
    with torch.no_grad():
        embeddings = backbone.assemble(batch)[0]
        own = backbone.language_model(inputs_embeds=embeddings, use_cache=False).logits
        torch.testing.assert_close(backbone.logits(backbone(batch).hidden_states), own, rtol=1e-6, atol=1e-6)
        ours, labels = backbone.supervised_states(batch, Shortcuts())
        wanted = own[:, :-1][labels[:, 1:] >= 0]
        torch.testing.assert_close(backbone.logits(ours), wanted, rtol=1e-5, atol=1e-5)
    assert_right_on_every_path(backbone)


@pytest.mark.parametrize("name", ACCEPTED_TOWERS)
def test_an_accepted_tower_is_right_on_every_path(tmp_path: Path, name: str):
    assert_right_on_every_path(random_backbone(tmp_path, torch.float64, tower=ACCEPTED_TOWERS[name]))


OTHER_FORMS = (
    "qwen", "qwen3_moe", "gemma3", "granitemoe", "phi", "olmo3", "cohere", "mixtral", "gpt2",
    "llava", "LLAMA", "", None, 5, ["llama"],
)  # fmt: skip


def config_of(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    write_configs(tmp_path, changes)
    return json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("kind", OTHER_FORMS, ids=repr)
def test_another_form_is_refused(tmp_path: Path, kind: Any):
    with pytest.raises(BadInputError, match=r"config\.json: model_type: ") as refusal:
        check_language_config(config_of(tmp_path, model_type=kind), tmp_path / "config.json")
    assert len(str(refusal.value).splitlines()) == 3


REFUSED = [
    ("architectures", ["LlavaLlamaForCausalLM"]),
    ("architectures", "LlamaForCausalLM"),
    ("auto_map", {"AutoConfig": "configuration_x.XConfig"}),
    ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    ("quantization_config", {}),
    ("attn_implementation", "flash_attention_2"),
    ("_attn_implementation", "owner/kernel"),
    ("_attn_implementation_internal", "owner/kernel:main"),
    ("attn_implementation", {"": "owner/kernel"}),
    ("use_kernels", True),
    ("hidden_act", "gelu"),
    ("sliding_window", 127),
    ("sliding_window", "all"),
    ("layer_types", ["sliding_attention"] * 3),
    ("layer_types", ["full_attention"]),
    ("qk_norm", True),
    ("logits_scaling", 8.0),
    ("residual_multiplier", 0.22),
    ("final_logit_softcapping", 30.0),
    ("no_rope_layers", [1, 1, 0]),
    ("partial_rotary_factor", 0.5),
    ("num_local_experts", 8),
    ("is_causal", False),
    ("gradient_checkpointing", True),
    ("output_hidden_states", True),
    ("return_dict", False),
    ("tie_word_embeddings", 1),
    ("attention_bias", "yes"),
    ("num_hidden_layers", 10**9),
    ("num_hidden_layers", 0),
    ("num_hidden_layers", True),
    ("num_hidden_layers", "3"),
    ("num_hidden_layers", 3.0),
    ("num_hidden_layers", None),
    ("hidden_size", -32),
    ("hidden_size", 10**9),
    ("intermediate_size", [48]),
    ("num_attention_heads", 10**9),
    ("num_key_value_heads", 0),
    ("head_dim", 7),
    ("vocab_size", 10**12),
    ("max_position_embeddings", 2**40),
    ("max_position_embeddings", float("inf")),
    ("rms_norm_eps", 0),
    ("rms_norm_eps", "1e-5"),
    ("rms_norm_eps", float("nan")),
    ("rope_scaling", {"type": "dynamic"}),
    ("rope_scaling", {"rope_type": "proportional", "factor": 2.0}),
    ("rope_scaling", {"rope_type": "yarn", "factor": 2.0}),
    ("rope_scaling", {**YARN, "beta_fast": "32"}),
    ("rope_scaling", {**YARN, "truncate": 1}),
    ("rope_scaling", {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0] * 4}),
    ("rope_scaling", {**LONGROPE, "short_factor": [1.0]}),
    ("rope_scaling", {**LONGROPE, "long_factor": [1.0, 1.0, 1.0, 0.0]}),
    ("rope_scaling", {"rope_type": "linear"}),
    ("rope_scaling", {"rope_type": "linear", "factor": "2"}),
    ("rope_scaling", {"rope_type": "linear", "factor": 0}),
    ("rope_scaling", {"rope_type": "linear", "type": "dynamic", "factor": 2.0}),
    ("rope_scaling", {"rope_type": "default", "factor": 2.0}),
    ("rope_scaling", {**LLAMA3, "high_freq_factor": 0.5}),
    ("rope_scaling", {**LLAMA3, "low_freq_factor": None}),
    ("rope_scaling", "linear"),
    ("rope_scaling", {"rope_type": ["linear"]}),
    ("rope_parameters", {"full_attention": {"rope_type": "default"}}),
    ("rope_parameters", {"rope_type": "default", "rope_theta": "big"}),
    ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.5}),
]


@pytest.mark.parametrize(("key", "value"), REFUSED, ids=lambda value: str(value)[:30])
def test_a_key_that_is_not_proven_is_refused_by_name(tmp_path: Path, key: str, value: Any):
    with pytest.raises(BadInputError, match=rf"config\.json: {key}") as refusal:
        check_language_config(config_of(tmp_path, **{key: value}), tmp_path / "config.json")
    assert 2 <= len(str(refusal.value).splitlines()) <= 3


def test_heads_that_do_not_divide_are_refused(tmp_path: Path):
    path = tmp_path / "config.json"
    for changes, message in (
        ({"num_attention_heads": 5}, "hidden_size: 32 is no multiple of num_attention_heads, 5"),
        ({"num_key_value_heads": 3}, "num_attention_heads: 4 is no multiple of num_key_value_heads, 3"),
    ):
        with pytest.raises(BadInputError, match=message):
            check_language_config(config_of(tmp_path, **changes), path)


def test_a_rotation_is_said_once(tmp_path: Path):
    rope = {"rope_type": "default", "rope_theta": 5.0}
    for changes in ({"rope_parameters": rope, "rope_theta": 6.0}, {"rope_parameters": rope, "rope_scaling": LINEAR}):
        with pytest.raises(BadInputError, match="rope_"):
            check_language_config(config_of(tmp_path, **changes), tmp_path / "config.json")


GEMMA = {"hidden_act": "gelu_pytorch_tanh", "head_dim": 8}
GEMMA_CAP = {**GEMMA, "final_logit_softcapping": 30.0}
BY_LAYER_TYPE = {"full_attention": {"rope_type": "default", "rope_theta": 5.0}}
CHUNKED = {"use_sliding_window": True, "sliding_window": 6, "layer_types": ["chunked_attention"] * 3}
OF_FAMILIES = [
    ("Mistral", {"sliding_window": "all"}, "sliding_window"),
    ("Mistral", {"layer_types": ["sliding_attention"] * 3}, "layer_types"),
    ("Qwen2", {"layer_types": ["sliding_attention"] * 3}, "layer_types"),
    ("Qwen2", CHUNKED, "layer_types"),
    ("Qwen3", {}, "head_dim: this key is missing"),
    ("Qwen3", {"head_dim": 8, "logits_scaling": 2.0}, "logits_scaling"),
    ("SmolLM3", {"no_rope_layers": [1, 0]}, "no_rope_layers"),
    ("SmolLM3", {"no_rope_layers": [1, 0, 2]}, "no_rope_layers"),
    ("SmolLM3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval"),
    ("SmolLM3", {"layer_types": ["sliding_attention"] * 3}, "layer_types"),
    ("Olmo2", {"sliding_window": 6, "layer_types": ["sliding_attention"] * 3}, "sliding_window"),
    ("Olmo2", {"layer_types": ["sliding_attention"] * 3}, "layer_types"),
    ("Granite", {"residual_multiplier": -1}, "residual_multiplier"),
    ("Granite", {"embedding_multiplier": "12"}, "embedding_multiplier"),
    ("Granite", {"no_rope_layers": [1, 1, 0]}, "no_rope_layers"),
    ("Gemma2", {"head_dim": 8}, "hidden_act: 'silu'"),
    ("Gemma2", {"hidden_act": "gelu_pytorch_tanh"}, "head_dim"),
    ("Gemma2", {**GEMMA, "final_logit_softcapping": 0}, "final_logit_softcapping"),
    ("Gemma2", {**GEMMA, "use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("Gemma2", {**GEMMA, "sliding_window": None}, "sliding_window: null"),
    ("Gemma2", {**GEMMA, "rope_parameters": BY_LAYER_TYPE}, "rope_parameters.full_attention"),
    ("Gemma", GEMMA_CAP, "final_logit_softcapping"),
    ("Gemma3_Text", {**GEMMA, "attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
    ("Gemma3_Text", {**GEMMA, "rope_scaling": YARN}, "rope_scaling.rope_type: 'yarn'"),
    ("Gemma3_Text", {**GEMMA, "rope_parameters": {"full_attention": YARN}}, "rope_parameters.full_attention.rope_type"),
    ("Gemma3_Text", {**GEMMA, "rope_parameters": {"full_attention": {}, "rope_theta": 5.0}}, "no type of layer"),
    ("Gemma3_Text", {**GEMMA, "rope_parameters": {"full_attention": 5}}, "rope_parameters.full_attention: 5"),
    ("Phi3", {"rope_scaling": LINEAR}, "rope_scaling.rope_type"),
    ("Phi3", {"partial_rotary_factor": 1.5}, "partial_rotary_factor"),
    ("Phi3", {"partial_rotary_factor": 0.7}, "0.7 of 8 numbers are odd"),
    ("Phi3", {"partial_rotary_factor": 0.5, "rope_scaling": LONGROPE}, "short_factor: .* does not fit"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "changes", "message"), OF_FAMILIES, ids=str)
def test_what_is_proven_of_one_architecture_is_not_of_others(
    tmp_path: Path, family: str, changes: dict[str, Any], message: str
):
    architecture = f"{family.removesuffix('_Text')}ForCausalLM"
    named = {"model_type": family.lower(), "architectures": [architecture], "hidden_act": "silu"}
    with pytest.raises(BadInputError, match=message):
        check_language_config(config_of(tmp_path, **{**named, **changes}), tmp_path / "config.json")


def test_every_accepted_value_of_the_table_is_one_the_library_takes_too(tmp_path: Path):
    """The table must not promise what transformers then refuses."""
    from lightning_m2pt.backbones.language_model import model_on_meta

    for key, (accepted, _) in VALUES.items():
        for value in accepted:
            if key in INSTALLED_CODE_ONLY or value is None:
                continue
            check_language_config(config_of(tmp_path, **{key: value}), tmp_path / "config.json")
            model_on_meta(tmp_path)
    assert set(ROTATIONS) == {"default", "linear", "dynamic", "yarn", "llama3", "longrope"}
