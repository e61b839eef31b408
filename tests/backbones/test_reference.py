"""Decoders that no list names: the library's logits, answers and gradients, by its own forward, or a reason why not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.answering.likelihood import Candidates, candidate_log_probabilities
from lightning_m2pt.answering.own_candidates import own_log_probabilities
from lightning_m2pt.backbones.decoders.reference import check_decoder_config, why_not_legal
from lightning_m2pt.backbones.language_model import check_language_folder, load_language_model, model_on_meta
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.shortcuts import Shortcuts
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.main import main
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.testing.method_contract import method_contract
from lightning_m2pt.testing.passes import batch_for
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch, write_configs
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.self_test import refuse_unless_like_library
from tests.bad_inputs.test_backbones import words_for
from tests.methods.test_every_method import METHODS, START_AS_FROZEN
from tests.support.models.decoders import UNLISTED, unlisted
from tests.support.stored_backbone import store_backbone
from tests.support.towers.float64_islands import float64_islands

FAST = ("starcoder2", "stablelm", "cohere")
of_every_one = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in UNLISTED]
)


def reference_backbone(folder: Path, name: str, dtype: torch.dtype = torch.float64, **changes: Any) -> OpenClipLlama:
    return random_backbone(folder, dtype, language=unlisted(name, **changes))


def attached(backbone: OpenClipLlama) -> M2PT:
    method = M2PT(3, 4, init="normal", init_std=0.5)
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    return method


@contextmanager
def overwritten(layers: nn.ModuleList, prompts: list[Tensor]) -> Iterator[None]:
    """Before every layer the first rows become that layer's prompts: written here, shared with nothing."""

    def hook(rows: Tensor) -> Any:
        def overwrite(_layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return torch.cat([rows.expand(len(given[0]), -1, -1), given[0][:, rows.shape[1] :]], dim=1), *given[1:]

        return overwrite

    handles = [layer.register_forward_pre_hook(hook(rows)) for layer, rows in zip(layers, prompts, strict=True)]
    yield
    for handle in handles:
        handle.remove()


@of_every_one
def test_prompts_have_the_loss_and_gradients_of_rows_overwritten_in_the_librarys_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    backbone, batch = reference_backbone(tmp_path, name), random_batch(dtype=torch.float64)
    with float64_islands(monkeypatch, backbone.language_model):
        method = attached(backbone)
        losses = supervised_rows(backbone, batch, Shortcuts()).losses
        losses.sum().backward()
        ours = {each: tensor.grad.clone() for each, tensor in method.named_parameters()}
        method.zero_grad()
        embeddings, labels, _ = backbone.assemble(batch)
        prompts = [method.textual_prompts.rows[str(layer)] for layer in range(3)]
        rows = torch.cat([torch.zeros(len(batch), 4, embeddings.shape[-1], dtype=torch.float64), embeddings], dim=1)
        with overwritten(backbone.language_model.model.layers, prompts):
            logits = backbone.language_model(inputs_embeds=rows, use_cache=False).logits[:, 4:-1]
        chosen = labels[:, 1:] >= 0
        own = nn.functional.cross_entropy(logits[chosen], labels[:, 1:][chosen], reduction="none")
        own.sum().backward()
    torch.testing.assert_close(losses, own, rtol=1e-12, atol=1e-12)
    for each, tensor in method.named_parameters():
        scale = max(float(tensor.grad.abs().max()), 1e-3)
        torch.testing.assert_close(ours[each], tensor.grad, rtol=0, atol=1e-11 * scale)


@of_every_one
def test_logits_answers_and_candidates_are_the_librarys(tmp_path: Path, name: str) -> None:
    backbone, batch = reference_backbone(tmp_path, name), random_batch(answer=1, dtype=torch.float64)
    model, candidates = backbone.language_model, Candidates(("a", "b"), ((5, 6, 7), (5, 8)))
    assert backbone.shape.runs_reference == name
    assert model.config._attn_implementation == "sdpa"
    assert not backbone.shares_prefix()
    with torch.no_grad():
        embeddings, _, spans = backbone.assemble(batch)
        own = model(inputs_embeds=embeddings, use_cache=False).logits
        torch.testing.assert_close(backbone.logits(backbone(batch).hidden_states), own, rtol=1e-12, atol=1e-12)
        answers = greedy_answers(backbone, batch, 6, end_token_id=-1)
        found = candidate_log_probabilities(backbone, batch, candidates)
        for sample, answer in enumerate(answers):
            rows = embeddings[sample : sample + 1, : int((spans[sample] != Span.PADDING).sum())]
            generated = model.generate(inputs_embeds=rows, max_new_tokens=6, do_sample=False, eos_token_id=None)
            assert answer.token_ids == generated[0].tolist()
            for number, tokens in enumerate(candidates.token_ids):
                fed = torch.cat([rows, backbone.token_embedding()(torch.tensor([tokens]))], dim=1)
                later = model(inputs_embeds=fed, use_cache=False).logits[0, rows.shape[1] - 1 : -1].log_softmax(-1)
                expected = later[torch.arange(len(tokens)), list(tokens)].sum()
                torch.testing.assert_close(found[sample, number].double(), expected, rtol=1e-5, atol=1e-5)


def test_questions_end_at_different_steps_and_have_candidates_of_their_own(tmp_path: Path) -> None:
    backbone, batch = reference_backbone(tmp_path, "starcoder2"), random_batch(answer=1, dtype=torch.float64)
    answers = [answer.token_ids for answer in greedy_answers(backbone, batch, 6, end_token_id=-1)]
    for end in {token for answer in answers for token in answer}:
        found = [answer.token_ids for answer in greedy_answers(backbone, batch, 6, end_token_id=end)]
        assert found == [answer[: answer.index(end)] if end in answer else answer for answer in answers]
    own = [Candidates(("a", "b"), ((5, 6, 7), (5, 8))), Candidates(("a", "b", "c"), ((9,), (5, 6), (7, 8, 9, 4, 5, 6)))]
    own.append(own[0])
    for sample, values in enumerate(own_log_probabilities(backbone, batch, own)):
        expected = candidate_log_probabilities(backbone, batch, own[sample])[sample]
        torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), expected, rtol=1e-6, atol=1e-6)


@of_every_one
def test_the_self_test_holds_with_prompts_of_all_and_of_later_layers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    backbone = reference_backbone(tmp_path, name)
    attached(backbone)
    for use in ("training", "answering"):
        refuse_unless_like_library(backbone, use, Shortcuts())
    assert f"{name} is no proven form: the library's own forward runs" in caplog.text
    method = M2PT(0, 4, init="normal", init_std=0.5, textual_layers=[1, 2], lm_head=True)
    method.build(backbone, torch.Generator().manual_seed(7))
    with torch.no_grad():
        for parameter in method.lm_head.parameters():
            parameter.mul_(1.5)
    method.double().attach(backbone)
    for use in ("training", "answering"):
        refuse_unless_like_library(backbone, use, Shortcuts())


def test_a_model_that_sees_what_stands_behind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = reference_backbone(tmp_path, "starcoder2")
    layer = type(backbone.decoder().layers[0])
    own = layer.forward

    def sees_all(self: nn.Module, states: Tensor, *given: Any, **named: Any) -> Any:
        return own(self, states + 0.1 * states.mean(dim=1, keepdim=True), *given, **named)

    monkeypatch.setattr(layer, "forward", sees_all)
    with pytest.raises(BadInputError, match="a sequence that ends earlier differs"):
        refuse_unless_like_library(backbone, "training", Shortcuts())


def test_a_model_that_reads_tokens_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = reference_backbone(tmp_path, "starcoder2")
    decoder = type(backbone.decoder())
    own = decoder.forward

    def scales_tokens(self: Any, input_ids: Tensor | None = None, **named: Any) -> Any:
        if input_ids is not None:
            named |= {"inputs_embeds": 2 * self.embed_tokens(input_ids)}
        return own(self, **named)

    monkeypatch.setattr(decoder, "forward", scales_tokens)
    with pytest.raises(BadInputError, match="reading embeddings in the place of tokens differs"):
        refuse_unless_like_library(backbone, "training", Shortcuts())


@of_every_one
def test_a_folder_that_the_library_wrote_is_read(tmp_path: Path, name: str) -> None:
    model, folder = reference_backbone(tmp_path, name).language_model.float(), tmp_path / "language"
    model.save_pretrained(folder)
    check_language_folder(folder, by_reference=True)
    read, tokens = load_language_model(folder, torch.float32), torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(read(tokens).logits, model(tokens).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (PrefixTuning(2), "learned keys and values do not go with cohere"),
        (APrompt(2, 2), "learned keys, values and queries do not go with cohere"),
        (M2PT(0, 2, path="prefix"), "textual prompts as keys and values do not go with cohere"),
    ],
    ids=["prefix", "aprompt", "path"],
)
def test_methods_that_need_ways_of_their_own_are_refused_before_weights_load(
    tmp_path: Path, method: Any, message: str
) -> None:
    write_configs(tmp_path, unlisted("cohere"))
    backbone = OpenClipLlama(str(tmp_path / "open_clip_config.json"), "none", str(tmp_path), "none", "none")
    with pytest.raises(BadInputError, match=message):
        method.check(backbone.shape)


def test_check_and_params_say_it_and_a_run_trains(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "stored"
    store_backbone(folder, unlisted("starcoder2", max_position_embeddings=512, sliding_window=None))
    words = [*words_for(folder)[1:], "--trainer.max_steps=1"]
    for verb in ("check", "params", "fit"):
        assert main([verb, *words]) == 0, capfd.readouterr()
        assert "starcoder2 is no proven form" in "".join(capfd.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stablelm", "cohere"])
@pytest.mark.parametrize("method", ["m2pt", "lora", "adapter", "layernorm", "full", "lora and visual prompts"])
def test_methods_keep_the_contract(tmp_path: Path, name: str, method: str) -> None:
    def small(dtype: torch.dtype) -> OpenClipLlama:
        return reference_backbone(tmp_path, name, dtype, tie_word_embeddings=False)

    method_contract(METHODS[method], small, starts_as_frozen=method in START_AS_FROZEN)


REFUSED = [
    ("starcoder2", {"architectures": ["LlamaForCausalLM"]}, "architectures"),
    ("starcoder2", {"auto_map": {"AutoConfig": "x.Y"}}, "auto_map"),
    ("starcoder2", {"quantization_config": {}}, "quantization_config"),
    ("starcoder2", {"is_causal": False}, "is_causal"),
    ("starcoder2", {"logits_scaling": 2.0}, "logits_scaling: 2.0 is unknown to Starcoder2ForCausalLM"),
    ("starcoder2", {"sliding_window": "all"}, "sliding_window"),
    ("starcoder2", {"hidden_size": 10**9}, "hidden_size"),
    ("starcoder2", {"rope_scaling": {"rope_type": "proportional"}}, "rope_scaling.rope_type"),
    ("starcoder2", {"rope_scaling": {"rope_type": "longrope"}}, "rope_scaling.original_max_position_embeddings"),
    ("starcoder2", {"rope_scaling": "linear"}, "rope_scaling"),
    ("olmo3", {"layer_types": ["linear_attention"] * 3}, "layer_types"),
]


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_configuration_that_is_not_legal_is_refused_by_its_key(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    write_configs(tmp_path, unlisted(name, **changes))
    path = tmp_path / "config.json"
    with pytest.raises(BadInputError, match=rf"config\.json: {message}") as refusal:
        check_decoder_config(json.loads(path.read_text()), path)
    assert 2 <= len(str(refusal.value).splitlines()) <= 3


def fails(*_given: Any, **_named: Any) -> Any:
    raise KeyError("nothing there")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda model: None, ""),
        (lambda model: setattr(model, "_is_stateful", True), "it keeps a state"),
        (lambda model: setattr(model, "_supports_sdpa", False), "attention functions of its own"),
        (
            lambda model: model.register_parameter("kernel", nn.Parameter(torch.empty(2, 2, 2, device="meta"))),
            "it has tensors of more than two dimensions",
        ),
        (lambda model: setattr(model.model.layers[1], "forward", fails), "a pass ends in KeyError: 'nothing there'"),
        (
            lambda model: model.model.layers.__setitem__(1, model.model.layers[0]),
            "its layers are not called once each, one behind the other",
        ),
    ],
)
def test_what_a_model_must_be_is_looked_at_without_memory(tmp_path: Path, spoil: Any, reason: str) -> None:
    write_configs(tmp_path, unlisted("starcoder2"))
    model = model_on_meta(tmp_path)
    spoil(model)
    assert reason in why_not_legal(model)
    assert bool(reason) == bool(why_not_legal(model))


def test_a_backbone_that_does_not_say_so_gets_no_form_that_is_not_proven(tmp_path: Path) -> None:
    write_configs(tmp_path, unlisted("starcoder2"))
    with pytest.raises(BadInputError, match="model_type: 'starcoder2' is not a proven form"):
        check_language_folder(tmp_path)


@pytest.mark.parametrize(
    ("kind", "architecture", "message"),
    [
        ("mixtral", "MixtralForCausalLM", "has experts"),
        ("qwen3_moe", "Qwen3MoeForCausalLM", "has experts"),
        ("gpt_neox", "GPTNeoXForCausalLM", "its layers do not stand in model.layers"),
        ("mamba", "MambaForCausalLM", "model.layers|keeps a state"),
        ("lfm2", "Lfm2ForCausalLM", "its layers are not self_attn and mlp"),
        ("nope", "NopeForCausalLM", "model_type: 'nope' is not a proven form"),
        ("bert", "BertLMHeadModel", "model_type: 'bert' is not a proven form"),
    ],
)
def test_an_architecture_that_is_not_legal_is_refused_before_weights_are_opened(
    tmp_path: Path, kind: str, architecture: str, message: str
) -> None:
    write_configs(tmp_path, {"model_type": kind, "architectures": [architecture]})
    with pytest.raises(BadInputError, match=message) as refusal:
        check_language_folder(tmp_path, by_reference=True)
    assert len(str(refusal.value).splitlines()) <= 3


def test_answers_end_at_the_last_position_prompt_rows_counted(tmp_path: Path) -> None:
    backbone = reference_backbone(tmp_path, "stablelm", max_position_embeddings=40)
    attached(backbone)
    questions = batch_for(backbone, answers=False)
    rows = backbone.assembled(questions).embeddings.shape[1] + backbone.attachment.rows_before_text()
    greedy_answers(backbone, questions, 40 - rows + 1, -5)  # the last token is not read any more
    with pytest.raises(BadInputError, match="a sequence has 41 rows"):
        greedy_answers(backbone, questions, 40 - rows + 2, -5)
    candidates = Candidates(("a", "b"), tuple((token,) * (40 - rows + 2) for token in (5, 6)))
    with pytest.raises(BadInputError, match="a sequence has 41 rows"):
        candidate_log_probabilities(backbone, questions, candidates)
