"""The comparison with the libraries' own forward passes: right models pass, every planted fault is refused."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.backbones import causal_decoding
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.errors import BadInputError, DivergedError
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.prompts import decoder_pass, prefix_decoder, prefix_path
from lightning_m2pt.prompts.past_rows import PastRows
from lightning_m2pt.testing.method_contract import everything_of
from lightning_m2pt.testing.random_backbone import VISION_LAYERS, VOCABULARY, WIDTH, random_backbone
from lightning_m2pt.tuning import self_test
from lightning_m2pt.tuning.comparison import Comparison
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.self_test import refuse_unless_like_library
from tests.methods.test_every_method import METHODS
from tests.methods.test_methods_resume import WITH_DROPOUT
from tests.support.small_experiment import small_words

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def with_prompts(backbone: OpenClipLlama, make: Callable[[], Method] = lambda: M2PT(3, 2)) -> Method:
    """Attaches a method whose tensors stand somewhere else than they start."""
    method, generator = make(), torch.Generator().manual_seed(3)
    method.build(backbone, generator)
    with torch.no_grad():
        for tensor in method.named_tensors().values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    method.attach(backbone)
    return method


def compare_everything(backbone: OpenClipLlama) -> None:
    refuse_unless_like_library(backbone, "training", Shortcuts())
    refuse_unless_like_library(backbone, "training", EVERY_ROW)
    refuse_unless_like_library(backbone, "answering", Shortcuts())


@pytest.mark.parametrize("name", ["m2pt", "aprompt", "lora with tower", *WITH_DROPOUT])
def test_methods_pass_and_nothing_is_left_behind(tmp_path: Path, name: str) -> None:
    """No hook, shadowed method, cache, gradient or drawn number; modes are as they were, dropout on."""
    backbone = random_backbone(tmp_path)
    method = with_prompts(backbone, {**METHODS, **WITH_DROPOUT}[name])
    module = TuningModule(backbone, method).train()
    before = everything_of(backbone), set(vars(backbone)), [part.training for part in module.modules()]
    state, attention = torch.get_rng_state(), backbone.language_model.config._attn_implementation
    compare_everything(backbone)
    assert torch.equal(torch.get_rng_state(), state)
    assert (everything_of(backbone), set(vars(backbone)), [part.training for part in module.modules()]) == before
    assert backbone.language_model.config._attn_implementation == attention
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "make",
    [
        lambda: M2PT(3, 2),
        lambda: M2PT(3, 2, path="token"),
        lambda: M2PT(3, 2, visual_layers=[VISION_LAYERS - 1], textual_layers=[1]),
        lambda: M2PT(3, 2, visual_rows_to_text="all", textual_depth="shallow", lm_head=True),
        lambda: M2PT(0, 0),
    ],
    ids=["prefix path", "token path", "few layers", "shallow and head", "projector"],
)
def test_right_models_pass_in_every_type(tmp_path: Path, make: Callable[[], Method], dtype: torch.dtype) -> None:
    backbone = random_backbone(tmp_path, dtype)
    with_prompts(backbone, make)
    compare_everything(backbone)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_rounding_of_many_layers_is_no_fault(tmp_path: Path, dtype: torch.dtype) -> None:
    """Weights six times as wild as trained ones: rounding alone makes several percent in bfloat16."""
    backbone = of_family(tmp_path, "Llama", {"num_hidden_layers": 16}, 0.3, dtype)
    with_prompts(backbone)
    compare_everything(backbone)


def of_family(
    folder: Path, family: str, changed: dict[str, Any], scale: float, dtype: torch.dtype = torch.float32
) -> OpenClipLlama:
    """Returns a backbone whose language model is another one of the library, past every check of files."""
    import transformers

    backbone = random_backbone(folder, dtype)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **changed})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    backbone.language_model = model.to(dtype)
    backbone.shape.text_layers = config.num_hidden_layers
    backbone.finish()
    return backbone


MORE_THAN_LLAMA: dict[str, tuple[str, dict[str, Any]]] = {
    "norms on queries and keys": ("Qwen3", {}),
    "layers without rotation": ("SmolLM3", {"no_rope_layers": [1, 0, 1]}),
    "embedding multiplier": ("Granite", {"embedding_multiplier": 3.0}),
    "logits scaling": ("Granite", {"logits_scaling": 2.0}),
    "all multipliers": ("Granite", {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22}),
    "capped logits": ("Gemma2", {"final_logit_softcapping": 1.0, "attn_logit_softcapping": None}),
    "capped scores": ("Gemma2", {"attn_logit_softcapping": 1.0}),
    "a sliding window": ("Mistral", {"sliding_window": 4}),
}


@pytest.mark.parametrize("what", MORE_THAN_LLAMA)
def test_what_other_models_do_beyond_llama_is_done(tmp_path: Path, what: str) -> None:
    family, changed = MORE_THAN_LLAMA[what]
    backbone = of_family(tmp_path, family, changed, 0.15)
    with_prompts(backbone)
    compare_everything(backbone)


def test_what_our_paths_leave_out_of_a_model_is_refused(tmp_path: Path) -> None:
    """Cohere scales its logits by a key of its own."""
    family, changed = "Cohere", {"logit_scale": 0.5}
    backbone = of_family(tmp_path, family, changed, 0.05)  # about what weights are that were trained a little
    with_prompts(backbone)
    for use in ("training", "answering"):
        with pytest.raises(BadInputError, match=rf"not that of {family}\w+: .* differs by [0-9.e-]+ of the numbers"):
            refuse_unless_like_library(backbone, use, Shortcuts())


def test_bfloat16_hides_no_gross_fault(tmp_path: Path) -> None:
    backbone = of_family(tmp_path, "Cohere", {"logit_scale": 0.5}, 0.15, torch.bfloat16)
    with_prompts(backbone)
    with pytest.raises(BadInputError, match=r"(?s)differs by .* in bfloat16"):
        compare_everything(backbone)


def test_rounding_that_grows_behind_prompts_hides_no_fault_in_front_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "NOISE", 1e9)  # the library's own two attention functions differ by a quarter there
    monkeypatch.setattr(self_test, "LARGEST_BEHIND_PROMPTS", 1e9)
    backbone = of_family(tmp_path, "Cohere", {"logit_scale": 0.5}, 0.15, torch.bfloat16)
    with_prompts(backbone)
    for use in ("training", "answering"):
        with pytest.raises(BadInputError, match=r"(?s)differs by .*at most 0\.2 in bfloat16"):
            refuse_unless_like_library(backbone, use, Shortcuts())
    assert backbone.attachment.textual_prompts is not None


@pytest.mark.parametrize(
    ("dtype", "prompted", "alone"), [(torch.bfloat16, 0.5, 0.2), (torch.float32, 2e-3, 2e-3)], ids=str
)
def test_the_largest_limit_is_wider_in_bfloat16_behind_prompts_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, prompted: float, alone: float
) -> None:
    monkeypatch.setattr(self_test, "NOISE", 1e9)
    backbone = random_backbone(tmp_path, dtype)
    with_prompts(backbone)
    rows = backbone.token_embedding()(torch.arange(6)[None])
    with torch.no_grad():
        passes = self_test.library_passes(backbone, rows)
        assert self_test.limit_of(backbone, rows, None, passes) == prompted
        with self_test.without_textual_prompts(backbone):
            passes = self_test.library_passes(backbone, rows)
            assert self_test.limit_of(backbone, rows, None, passes) == alone


@pytest.mark.parametrize("use", ["training", "answering"])
def test_learned_queries_are_left_out_with_the_prompts_whose_they_are(tmp_path: Path, use: Any) -> None:
    """In bfloat16 the passes are compared without prompts first, where these queries would be other rows'."""
    backbone = random_backbone(tmp_path, torch.bfloat16)
    with_prompts(backbone, lambda: APrompt(3, 2))
    refuse_unless_like_library(backbone, use, Shortcuts())
    assert backbone.attachment.query_rows
    with self_test.without_textual_prompts(backbone):
        assert backbone.attachment.query_rows == ()


@pytest.mark.parametrize("family", ["Mistral", "Qwen2"])
def test_models_of_the_same_form_pass(tmp_path: Path, family: str) -> None:
    backbone = of_family(tmp_path, family, {"sliding_window": None} if family == "Mistral" else {}, 0.15)
    with_prompts(backbone)
    compare_everything(backbone)


def prompts_one_further(decoder: Any, rows: Any) -> PastRows:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_pass, "run", lambda decoder, room, places: ORIGINAL_RUN(decoder, room, places + 1))
        return ORIGINAL_PROMPTS(decoder, rows)


def rows_one_further(decoder: Any, past: PastRows, rows: Tensor, places: Tensor, **others: Any) -> Any:
    return ORIGINAL_APPEND(decoder, past, rows, places + 1, **others)


def without_input_norm(block: Any, *given: Any) -> Any:
    block.input_layernorm, norm = torch.nn.Identity(), block.input_layernorm
    try:
        return ORIGINAL_KEYS(block, *given)
    finally:
        block.input_layernorm = norm


ORIGINAL_RUN, ORIGINAL_PROMPTS = decoder_pass.run, decoder_pass.prompt_rows
ORIGINAL_APPEND, ORIGINAL_KEYS = decoder_pass.append_rows, decoder_pass.read_keys
FAULTS_OF_OURS: dict[str, tuple[Callable[[pytest.MonkeyPatch], object], str]] = {
    "rotation of prompt keys": (
        lambda patch: patch.setattr(causal_decoding, "prompt_rows", prompts_one_further),
        "training answering",
    ),
    "rotation of real rows": (
        lambda patch: patch.setattr(prefix_decoder, "append_rows", rows_one_further),
        "training",
    ),
    "norm in front of prompt keys": (
        lambda patch: patch.setattr(decoder_pass, "read_keys", without_input_norm),
        "training answering",
    ),
    "positions of the next token": (
        lambda patch: patch.setattr(OpenClipLlama, "prefill", one_position_further(OpenClipLlama.prefill)),
        "answering",
    ),
    "a shared row too many": (
        lambda patch: patch.setattr("lightning_m2pt.backbones.causal_decoding.shared_rows", lambda *_: 7),
        "training",
    ),
    "visual prompts in the tower": (
        lambda patch: patch.setattr(prefix_path, "attend_with_prefix", lambda block, x, _rows: block.attn(x, x, x)[0]),
        "training answering",
    ),
    "a scale in front of the head": (
        lambda patch: patch.setattr(OpenClipLlama, "logits", scaled(OpenClipLlama.logits)),
        "training answering",
    ),
}


def one_position_further(original: Callable[..., Any]) -> Callable[..., Any]:
    def prefill(backbone: OpenClipLlama, batch: Any) -> Any:
        state = original(backbone, batch)
        state.next_position = state.next_position + 1
        return state

    return prefill


def scaled(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda backbone, states: 1.01 * original(backbone, states)


@pytest.mark.parametrize("what", FAULTS_OF_OURS)
def test_a_fault_planted_in_our_own_passes_is_refused(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = random_backbone(tmp_path)
    with_prompts(backbone)
    compare_everything(backbone)
    plant, uses = FAULTS_OF_OURS[what]
    plant(monkeypatch)
    for use in uses.split():
        with pytest.raises(BadInputError, match="our forward pass is not that of LlamaModel"):
            refuse_unless_like_library(backbone, use, Shortcuts())  # type: ignore[arg-type]


def test_numbers_that_are_none_do_not_pass(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    with_prompts(backbone)
    with torch.no_grad():
        backbone.language_model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(DivergedError, match="what is no number"):
        refuse_unless_like_library(backbone, "training", Shortcuts())
    ours = torch.tensor([1.0, float("nan")])
    with pytest.raises(BadInputError, match="a pass differs by nan"):
        Comparison(backbone, 1.0).refuse_difference("a pass", ours, torch.ones(2))


def test_parts_of_weights_are_not_compared_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = random_backbone(tmp_path)
    with_prompts(backbone)
    monkeypatch.setattr(OpenClipLlama, "library_visual_rows", lambda *_: pytest.fail("compared"))
    backbone.projector.weight.data = torch.zeros(0)
    refuse_unless_like_library(backbone, "training", Shortcuts())
    assert "not compared with the library's" in caplog.text


def test_what_a_backbone_offers_no_pass_for_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = random_backbone(tmp_path)
    with_prompts(backbone)
    monkeypatch.setattr(OpenClipLlama, "library_visual_rows", Backbone.library_visual_rows)
    refuse_unless_like_library(backbone, "training", Shortcuts())
    assert "the vision tower is not compared: OpenClipLlama" in caplog.text
    assert "decoder" not in caplog.text
    monkeypatch.setattr(OpenClipLlama, "library_decoder", Backbone.library_decoder)
    refuse_unless_like_library(backbone, "answering", Shortcuts())
    assert "the decoder's passes are not compared: OpenClipLlama" in caplog.text


def test_nothing_is_trained_or_answered_that_was_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for training and once for answering, and again for what is attached later; a fit's numbers do not see it."""
    calls: list[str] = []
    compared = self_test.refuse_unless_like_library

    def counted(backbone: OpenClipLlama, use: self_test.Use, shortcuts: Shortcuts) -> None:
        calls.append(use)
        compared(backbone, use, shortcuts)

    monkeypatch.setattr("lightning_m2pt.tuning.module.refuse_unless_like_library", counted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        experiment = parse_experiment(small_words(tmp_path, steps=2))
        fit(experiment, folder=tmp_path / "compared")
        model = experiment.model
        assert calls == ["training"]
        model.on_validation_start()
        model.on_predict_start()
        model.on_predict_start()
        assert calls == ["training", "answering"]
        model.method.attach(model.backbone)
        model.on_predict_start()
        assert calls == ["training", "answering", "answering"]
        monkeypatch.setattr("lightning_m2pt.tuning.module.refuse_unless_like_library", lambda *_: None)
        fit(parse_experiment(small_words(tmp_path, steps=2)), folder=tmp_path / "not compared")
    first, second = (tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("compared", "not compared"))
    assert first.read_bytes() == second.read_bytes()
