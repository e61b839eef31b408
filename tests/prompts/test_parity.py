"""Token path = an independent reference = prefix path, in outputs and in every gradient.

The reference below shares no code with the project's injection: plain hooks on the stock classes overwrite the first
rows of every layer's input, as the published code does in its copies of the modelling files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.answering.decoding_steps import advance
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.system.tensor_hashes import hash_tensors
from lightning_m2pt.testing.random_backbone import PATCHES, TEXT_LAYERS, VISION_LAYERS, random_backbone, random_batch
from lightning_m2pt.tuning.losses import supervised_rows

VISUAL_LENGTH, TEXTUAL_LENGTH = 5, 4


def built_method(backbone: OpenClipLlama, dtype: torch.dtype, **arguments) -> M2PT:
    settings = {"visual_length": VISUAL_LENGTH, "textual_length": TEXTUAL_LENGTH, "init": "normal", "init_std": 0.5}
    method = M2PT(**{**settings, **arguments})
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(7))
    return method.to(dtype)


@contextmanager
def overwritten(layers: list[nn.Module], prompts: list[Tensor], prepend_at_first: bool) -> Iterator[None]:
    """The reference: before layer i the first rows of its input become prompts[i]."""

    def hook(number: int):
        def overwrite(_module, arguments, keywords):
            states = arguments[0]
            rows = prompts[number].expand(states.shape[0], -1, -1)
            keep = states if prepend_at_first and number == 0 else states[:, rows.shape[1] :]
            return (torch.cat([rows, keep], dim=1), *arguments[1:]), keywords

        return overwrite

    handles = [layer.register_forward_pre_hook(hook(i), with_kwargs=True) for i, layer in enumerate(layers)]
    yield
    for handle in handles:
        handle.remove()


def reference_logits(backbone: OpenClipLlama, method: M2PT, batch: Batch) -> Tensor:
    """Runs the stock classes with overwritten rows; returns (B, S, V) without the textual prompts' rows."""
    tower, language_model = backbone.vision_tower, backbone.language_model
    visual = [method.visual_prompts.rows[str(i)] for i in range(VISION_LAYERS)]
    with overwritten(list(tower.transformer.resblocks[:-1]), visual[:-1], prepend_at_first=True):
        states = tower._embeds(batch.pixel_values)
        for block in tower.transformer.resblocks[:-1]:
            states = block(states)
    # hidden_states[-2] after the overwrite, then [:, 1:], as the published feature selection does.
    features = torch.cat([visual[-1].expand(len(batch), -1, -1), states[:, VISUAL_LENGTH:]], dim=1)[:, 1:]
    image = method.interaction(features)
    text = language_model.model.embed_tokens(batch.input_ids.clamp(min=0))
    textual = [method.textual_prompts.rows[str(i)] for i in range(TEXT_LAYERS)]
    room = torch.zeros(len(batch), TEXTUAL_LENGTH, text.shape[-1], dtype=text.dtype)
    rows = torch.cat([room, text[:, :1], image, text[:, 2:]], dim=1)
    with overwritten(list(language_model.model.layers), textual, prepend_at_first=False):
        return language_model(inputs_embeds=rows, use_cache=False).logits[:, TEXTUAL_LENGTH:]


def loss_and_gradients(method: M2PT, loss: Tensor) -> dict[str, Tensor]:
    method.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in method.named_parameters()}


def largest_relative(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max() / one[name].abs().max()) for name in one)


def three_paths(folder: Path, dtype: torch.dtype):
    """Returns logits and gradients of the reference, the token path and the prefix path."""
    backbone, batch, results = random_backbone(folder, dtype), random_batch(dtype=dtype), {}
    method = built_method(backbone, dtype)
    weights = torch.randn(1000, 50, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)

    def scalar(logits: Tensor) -> Tensor:
        flat = logits.reshape(-1, logits.shape[-1])
        return (flat * weights[: len(flat)]).sum()

    logits = reference_logits(backbone, method, batch)
    results["reference"] = (logits.detach(), loss_and_gradients(method, scalar(logits)))
    for path in ("token", "prefix"):
        method.path = path
        method.attach(backbone)
        logits = backbone.logits(backbone(batch).hidden_states)
        results[path] = (logits.detach(), loss_and_gradients(method, scalar(logits)))
        method.detach(backbone)
    return results


@contextmanager
def float64_islands(monkeypatch) -> Iterator[None]:
    """transformers computes RMSNorm and rotary angles in float32 whatever the dtype; here they are float64."""
    from transformers.models.llama import modeling_llama

    def norm(self, states):
        scale = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * states * scale

    def rotary(self, states, position_ids):
        angles = position_ids[..., None].double() * self.inv_freq.double()
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()

    with monkeypatch.context() as patch:
        patch.setattr(modeling_llama.LlamaRMSNorm, "forward", norm)
        patch.setattr(modeling_llama.LlamaRotaryEmbedding, "forward", rotary)
        yield


def test_float64_without_float32_islands(tmp_path, monkeypatch):
    with float64_islands(monkeypatch):
        results = three_paths(tmp_path, torch.float64)
    logits, gradients = results["reference"]
    for path in ("token", "prefix"):
        assert float((results[path][0] - logits).abs().max() / logits.abs().max()) < 1e-12
        # Row 0 of the last visual prompt is dead by declaration: zero in all three, which the ratio does not see.
        assert largest_relative(gradients, results[path][1]) < 1e-12


@pytest.mark.parametrize(
    ("dtype", "outputs", "gradient"), [(torch.float64, 1e-12, 1e-6), (torch.float32, 1e-4, 1e-4)], ids=["f64", "f32"]
)
def test_untouched_library_classes(tmp_path, dtype, outputs, gradient):
    results = three_paths(tmp_path, dtype)
    logits, gradients = results["reference"]
    for path in ("token", "prefix"):
        assert float((results[path][0] - logits).abs().max() / logits.abs().max()) < outputs
        assert largest_relative(gradients, results[path][1]) < gradient


@pytest.mark.parametrize(
    ("rows_to_text", "names"),
    [
        ("official", [Span.VISUAL_PROMPT] * (VISUAL_LENGTH - 1) + [Span.CLS] + [Span.PATCH] * PATCHES),
        ("all", [Span.VISUAL_PROMPT] * VISUAL_LENGTH + [Span.PATCH] * PATCHES),
        ("none", [Span.PATCH] * PATCHES),
    ],
)
def test_rows_are_named(tmp_path, rows_to_text, names):
    backbone, batch = random_backbone(tmp_path), random_batch()
    built_method(backbone, torch.float32, visual_rows_to_text=rows_to_text).attach(backbone)
    spans = backbone(batch).spans
    assert spans[0].tolist() == [Span.QUESTION, *names, *[Span.QUESTION] * 4, *[Span.ANSWER] * 3]
    assert int(spans[-1, -1]) == Span.PADDING


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"visual_rows_to_text": "all"},
        {"visual_rows_to_text": "none", "visual_layers": [1, 2]},
        {"visual_rows_to_text": "none", "visual_depth": "shallow"},
        {"textual_depth": "shallow"},
        {"textual_layers": [1, 2]},
        {"textual_layers": [0, 2]},
        {"textual_length": 0},
        {"visual_length": 0},
    ],
    ids=str,
)
def test_greedy_answers_with_cache_equal_full_forwards(tmp_path, arguments):
    """Decoding from the cache, right-padded and batched, gives what feeding everything again gives, one by one."""
    backbone, batch = random_backbone(tmp_path), random_batch(answer=1)
    method = built_method(backbone, torch.float32, **arguments)
    method.attach(backbone)
    answers = greedy_answers(backbone, batch, max_new_tokens=4, end_token_id=0)
    for row in range(len(batch)):
        length = int((batch.spans[row] != Span.PADDING).sum())
        ids, spans = batch.input_ids[row : row + 1, :length], batch.spans[row : row + 1, :length]
        expected: list[int] = []
        for _ in range(4):
            single = Batch(batch.pixel_values[row : row + 1], ids, torch.full_like(ids, -100), spans, ["s"], [("t",)])
            token = int(backbone.logits(backbone(single).hidden_states[:, -1]).argmax())
            if token == 0:
                break
            expected.append(token)
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
            spans = torch.cat([spans, torch.full((1, 1), int(Span.ANSWER))], dim=1)
        assert answers[row].token_ids == expected
        assert answers[row].margin > 0


@pytest.mark.parametrize("layers", [[0, 1, 2], [1, 2], [2], [0, 2]], ids=str)
def test_logits_from_the_cache_equal_a_full_forward(tmp_path, layers):
    backbone, batch = random_backbone(tmp_path), random_batch(answer=1)
    built_method(backbone, torch.float32, textual_layers=layers, path="token").attach(backbone)
    first = Batch(batch.pixel_values[:1], batch.input_ids[:1], batch.labels[:1], batch.spans[:1], ["s"], [("t",)])
    token = torch.tensor([7])
    with torch.no_grad():
        state = advance(backbone, advance(backbone, backbone.prefill(first), token), token)
        ids = torch.cat([first.input_ids, token[None], token[None]], dim=1)
        spans = torch.cat([first.spans, torch.full((1, 2), int(Span.ANSWER))], dim=1)
        longer = Batch(first.pixel_values, ids, torch.full_like(ids, -100), spans, ["s"], [("t",)])
        expected = backbone.logits(backbone(longer).hidden_states[:, -1])
    torch.testing.assert_close(state.logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", ["token", "prefix"])
@pytest.mark.parametrize("part", ["visual_prompts", "textual_prompts", "interaction"])
def test_knocking_out_after_a_forward_equals_a_fresh_backbone(tmp_path, path, part):
    batch, outputs = random_batch(), []
    for ran_before in (True, False):
        backbone = random_backbone(tmp_path)
        method = built_method(backbone, torch.float32, path=path)
        if ran_before:
            method.attach(backbone)
            backbone(batch)
        method.attach(backbone, without={part})
        outputs.append(backbone(batch).hidden_states.detach())
    assert torch.equal(*outputs)


def test_layers_below_the_first_prompt_do_not_see_it(tmp_path):
    """With rows from layer 1 on, layer 0 must give exactly what it gives without any prompt."""
    backbone, batch = random_backbone(tmp_path), random_batch()
    seen: dict[str, Tensor] = {}

    def remember(name):
        return lambda _module, _arguments, output: seen.__setitem__(name, output)

    method = built_method(backbone, torch.float32, visual_length=0, interaction=False, textual_layers=[1, 2])
    with torch.no_grad():
        embeddings, _, _ = backbone.assemble(batch)
        positions = torch.arange(embeddings.shape[1])[None] + TEXTUAL_LENGTH
        handle = backbone.language_model.model.layers[0].register_forward_hook(remember("plain"))
        backbone.language_model.model(inputs_embeds=embeddings, position_ids=positions)
        handle.remove()
        method.attach(backbone)
        handle = backbone.language_model.model.layers[0].register_forward_hook(remember("prompted"))
        backbone(batch)
        handle.remove()
    torch.testing.assert_close(seen["prompted"][:, TEXTUAL_LENGTH:], seen["plain"], rtol=1e-5, atol=1e-6)


def test_all_toggles_off_is_the_untouched_backbone(tmp_path):
    backbone, batch = random_backbone(tmp_path), random_batch()
    tower = backbone.vision_tower
    with torch.no_grad():
        states = tower.forward_intermediates(
            batch.pixel_values, indices=[VISION_LAYERS - 2], intermediates_only=True, output_fmt="NLC"
        )["image_intermediates"][0]
        text = backbone.language_model.model.embed_tokens(batch.input_ids.clamp(min=0))
        rows = torch.cat([text[:, :1], backbone.projector(states), text[:, 2:]], dim=1)
        stock = backbone.language_model(inputs_embeds=rows, use_cache=False).logits
        built_method(backbone, torch.float32, visual_length=0, textual_length=0, interaction=False).attach(backbone)
        assert torch.equal(backbone.logits(backbone(batch).hidden_states), stock)


@pytest.mark.parametrize("path", ["token", "prefix"])
def test_detach_restores_outputs_and_weights_bit_for_bit(tmp_path, path):
    backbone, batch = random_backbone(tmp_path), random_batch()
    before_hash, before = hash_tensors(backbone.state_dict()), backbone(batch).hidden_states.detach()
    method = built_method(backbone, torch.float32, path=path, lm_head=True)
    method.attach(backbone)
    attached = backbone(batch)
    supervised_rows(backbone, random_batch()).losses.sum().backward()
    assert not torch.equal(attached.hidden_states[:, -1], before[:, -1])
    method.detach(backbone)
    assert torch.equal(backbone(batch).hidden_states, before)
    assert hash_tensors(backbone.state_dict()) == before_hash
    blocks = [*backbone.vision_tower.transformer.resblocks, *backbone.language_model.model.layers]
    assert not any(block._forward_pre_hooks or "attention" in vars(block) for block in blocks)


def test_activation_checkpointing_gives_the_same_gradients(tmp_path):
    results = []
    for checkpointing in (False, True):
        backbone, batch = random_backbone(tmp_path), random_batch()
        backbone.activation_checkpointing = checkpointing
        backbone.finish()
        backbone.train()
        method = built_method(backbone, torch.float32, path="token")
        method.attach(backbone)
        loss = supervised_rows(backbone, batch).losses.sum()
        results.append(loss_and_gradients(method, loss))
    assert largest_relative(results[0], results[1]) < 1e-5


def test_loss_equals_cross_entropy_over_all_rows(tmp_path):
    """The loss on supervised rows alone is the library's shifted cross-entropy over every row."""
    backbone, batch = random_backbone(tmp_path), random_batch()
    built_method(backbone, torch.float32).attach(backbone)
    output = backbone(batch)
    rows = supervised_rows(backbone, batch)
    logits = backbone.logits(output.hidden_states)
    expected = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), output.labels[:, 1:].flatten())
    torch.testing.assert_close(rows.losses.mean(), expected)
    assert len(rows.losses) == batch.step_supervised_tokens
