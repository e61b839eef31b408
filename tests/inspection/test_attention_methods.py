"""Attention maps of every method: the library's own eager attention, learned keys included, and no dropout."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inspection.activation import activations, column_activation
from lightning_m2pt.inspection.attention import capture_attention, token_path
from lightning_m2pt.methods.base import Method
from lightning_m2pt.prompts.past_rows import OVER_PAST_ROWS
from lightning_m2pt.testing.random_backbone import PATCHES, TEXT_LAYERS, random_backbone, random_batch
from tests.methods.test_every_method import METHODS, built
from tests.methods.test_methods_resume import WITH_DROPOUT

LEARNED_KEYS = {"ptum prefix": 4, "ptum prefix reparameterised": 4, "aprompt": 4, "aprompt without query prompts": 4}
LEARNED_KEYS |= {"aprompt and visual prompts": 4}
FRONT_ROWS = {"m2pt": 4, "pixels and prompts": 4, "ptum": 4, "aprompt": 3, "aprompt without query prompts": 3}
FRONT_ROWS |= {"aprompt without keys and values": 3, "aprompt and visual prompts": 3}
FRONT_ROWS |= {"lora and m2pt": 4, "full and prompts": 4}


def eager_attention(backbone: OpenClipLlama, batch: Batch) -> list[Tensor]:
    """Returns (B, H, R, C) of every decoder layer, as transformers' eager attention hands them out."""
    found: list[Tensor] = []
    layers = backbone.language_model.model.layers
    handles = [
        layer.self_attn.register_forward_hook(lambda _m, _a, output: found.append(output[1])) for layer in layers
    ]
    fast = backbone.language_model.config._attn_implementation
    backbone.language_model.set_attn_implementation(OVER_PAST_ROWS["eager"])
    with token_path(backbone), torch.no_grad():
        backbone(batch)
    backbone.language_model.set_attn_implementation(fast)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", [name for name in METHODS if name != "pixels around"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6)], ids=["f32", "f64"])
def test_every_method_equals_the_librarys_eager_attention(tmp_path, name, dtype, tolerance):
    backbone, batch = random_backbone(tmp_path, dtype), random_batch(dtype=dtype)
    built(name, backbone).attach(backbone)
    spans = backbone(batch).spans
    captured, eager = capture_attention(backbone, batch), eager_attention(backbone, batch)
    assert len(eager) == TEXT_LAYERS
    learned, prompts = LEARNED_KEYS.get(name, 0), FRONT_ROWS.get(name, 0)
    for row, sample in enumerate(captured):
        real = int((spans[row] != Span.PADDING).sum())
        for layer, expected in zip(sample.language, eager, strict=True):
            rows, columns = prompts + real, learned + prompts + real
            assert layer.probabilities.shape == (4, rows, columns)
            wanted = expected[row, :, :rows, :columns].to(layer.probabilities.dtype)
            torch.testing.assert_close(layer.probabilities, wanted, rtol=0, atol=tolerance)
            torch.testing.assert_close(layer.probabilities.sum(-1).float(), torch.ones(4, rows))
            front = [Span.LEARNED_KEY] * learned + [Span.TEXTUAL_PROMPT] * prompts
            assert layer.spans.tolist() == front + spans[row, :real].tolist()
            assert layer.prompts == prompts
            assert not layer.probabilities.triu(diagonal=learned + 1).any()
    assert len(captured[-1].language[0].spans) == len(captured[0].language[0].spans) - 1  # its padding is left out


def test_a_picture_that_is_shrunk_gets_no_maps(tmp_path):
    """They would lie on other parts of the picture than those that were looked at."""
    backbone, batch = random_backbone(tmp_path), random_batch()
    built("pixels around", backbone).attach(backbone)
    with pytest.raises(BadInputError, match="shrinks the picture"):
        capture_attention(backbone, batch)


@pytest.mark.parametrize("name", ["ptum prefix", "aprompt"])
def test_learned_keys_get_attention_of_their_own_columns(tmp_path, name):
    backbone, batch = random_backbone(tmp_path), random_batch()
    method = built(name, backbone)
    method.attach(backbone)
    with_keys = capture_attention(backbone, batch)[0].language[0]
    found = activations([with_keys])
    columns = (found.spans == Span.LEARNED_KEY).nonzero().flatten().tolist()
    assert columns == list(range(LEARNED_KEYS[name]))
    assert float(found.values[0, columns].sum()) > 0.01
    torch.testing.assert_close(column_activation(with_keys).sum(), torch.tensor(1.0))
    assert int((found.spans == Span.PATCH).sum()) == PATCHES
    method.attach(backbone, without={method.part_names()[0] if name == "ptum prefix" else "key_value_prompts"})
    assert Span.LEARNED_KEY not in capture_attention(backbone, batch)[0].language[0].spans.tolist()


@pytest.mark.parametrize("name", ["ptum prefix", "aprompt", "adapter", "lora"])
def test_reading_changes_no_answer(tmp_path, name):
    backbone, batch = random_backbone(tmp_path), random_batch(answer=1)
    built(name, backbone).attach(backbone)
    answers = greedy_answers(backbone, batch, max_new_tokens=4, end_token_id=0)
    capture_attention(backbone, batch)
    assert greedy_answers(backbone, batch, max_new_tokens=4, end_token_id=0) == answers
    hooks = [len(layer.self_attn._forward_hooks) for layer in backbone.language_model.model.layers]
    assert hooks == [1 if name == "adapter" else 0] * TEXT_LAYERS


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_in_training_maps_are_those_of_evaluation_and_the_generator_is_left_alone(tmp_path, name):
    backbone, batch = random_backbone(tmp_path), random_batch()
    method = moved(WITH_DROPOUT[name], backbone)
    method.attach(backbone)
    method.eval()
    expected = capture_attention(backbone, batch)[0]
    method.train()
    state = torch.get_rng_state()
    found = capture_attention(backbone, batch)[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in method.modules())
    for one, other in zip((*found.language, *found.vision[0]), (*expected.language, *expected.vision[0]), strict=True):
        assert torch.equal(one.probabilities, other.probabilities)


def moved(make: Callable[[], Method], backbone: OpenClipLlama) -> Method:
    """Returns a built method whose tensors have left their start, so that dropout shows."""
    method, generator = make(), torch.Generator().manual_seed(5)
    method.build(backbone, generator)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return method
