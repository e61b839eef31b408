"""Attention maps against the libraries' own attention, and that reading them changes nothing."""

from dataclasses import dataclass, fields, make_dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inspection.activation import activations, column_activation, span_means
from lightning_m2pt.inspection.attention import capture_attention
from lightning_m2pt.methods.full import Full
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.system.tensor_hashes import hash_tensors
from lightning_m2pt.testing.random_backbone import PATCHES, TEXT_LAYERS, VISION_LAYERS, random_backbone, random_batch
from tests.prompts.test_parity import TEXTUAL_LENGTH, VISUAL_LENGTH, built_method, overwritten

METHODS = [
    {},
    {"visual_rows_to_text": "none", "visual_layers": [1, 2]},
    {"visual_rows_to_text": "none", "visual_depth": "shallow"},
    {"textual_depth": "shallow"},
    {"textual_layers": [1, 2]},
    {"textual_layers": [0, 2]},
    {"textual_length": 0},
    {"visual_length": 0},
    {"visual_length": 0, "textual_length": 0, "interaction": False},
]


@dataclass
class LibraryAttention:
    """What the stock classes compute with prompts put in by hand: (B, H, R, R) by layer."""

    vision: list[Tensor]
    language: list[Tensor]


def library_attention(backbone: OpenClipLlama, method, batch: Batch) -> LibraryAttention:
    tower, language_model = backbone.vision_tower, backbone.language_model
    visual = [method.visual_prompts.rows[str(i)] for i in range(VISION_LAYERS)]
    vision = []
    with overwritten(list(tower.transformer.resblocks[:-1]), visual[:-1], prepend_at_first=True):
        states = tower._embeds(batch.pixel_values)
        for block, prompt in zip(tower.transformer.resblocks[:-1], visual, strict=False):
            rows = torch.cat([prompt.expand(len(batch), -1, -1), states[:, VISUAL_LENGTH if vision else 0 :]], dim=1)
            normed = block.ln_1(rows)
            weights = block.attn(normed, normed, normed, need_weights=True, average_attn_weights=False)[1]
            vision.append(weights)
            states = block(states)
    features = torch.cat([visual[-1].expand(len(batch), -1, -1), states[:, VISUAL_LENGTH:]], dim=1)[:, 1:]
    text = language_model.model.embed_tokens(batch.input_ids.clamp(min=0))
    room = torch.zeros(len(batch), TEXTUAL_LENGTH, text.shape[-1], dtype=text.dtype)
    rows = torch.cat([room, text[:, :1], method.interaction(features), text[:, 2:]], dim=1)
    textual = [method.textual_prompts.rows[str(i)] for i in range(TEXT_LAYERS)]
    fast = language_model.config._attn_implementation
    language_model.set_attn_implementation("eager")
    with overwritten(list(language_model.model.layers), textual, prepend_at_first=False):
        language = language_model(inputs_embeds=rows, use_cache=False, output_attentions=True).attentions
    language_model.set_attn_implementation(fast)
    return LibraryAttention(vision, list(language))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-7)], ids=["f32", "f64"])
def test_equals_the_libraries_own_probabilities_with_prompt_columns(tmp_path, dtype, tolerance):
    backbone, batch = random_backbone(tmp_path, dtype), random_batch(dtype=dtype)
    method = built_method(backbone, dtype)
    with torch.no_grad():
        library = library_attention(backbone, method, batch)
    method.attach(backbone)
    captured = capture_attention(backbone, batch)
    for row, sample in enumerate(captured):
        assert [layer.layer for layer in sample.language] == list(range(TEXT_LAYERS))
        assert [layer.layer for layer in sample.vision[0]] == list(range(VISION_LAYERS - 1))
        for layer, expected in zip(sample.vision[0], library.vision, strict=True):
            torch.testing.assert_close(layer.probabilities, expected[row], rtol=0, atol=tolerance)
        for layer, expected in zip(sample.language, library.language, strict=True):
            size = layer.probabilities.shape[-1]
            expected_here = expected[row, :, :size, :size].to(dtype)
            torch.testing.assert_close(layer.probabilities, expected_here, rtol=0, atol=tolerance)
    # The last sample is one token shorter: its padding is neither a row nor a column.
    assert len(captured[-1].language[0].spans) == len(captured[0].language[0].spans) - 1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["f32", "f64"])
def test_untouched_model_equals_the_libraries_own(tmp_path, dtype, tolerance):
    """Nothing attached; in the tower, where nothing is rounded to float32, float64 agrees to its own precision."""
    backbone, batch = random_backbone(tmp_path, dtype), random_batch(dtype=dtype)
    captured = capture_attention(backbone, batch)
    with torch.no_grad():
        states = backbone.vision_tower._embeds(batch.pixel_values)
        for number, block in enumerate(backbone.vision_tower.transformer.resblocks[:-1]):
            normed = block.ln_1(states)
            weights = block.attn(normed, normed, normed, need_weights=True, average_attn_weights=False)[1]
            for row, sample in enumerate(captured):
                layer = sample.vision[0][number]
                assert float((layer.probabilities - weights[row]).abs().max()) < tolerance
                assert layer.spans.tolist() == [Span.CLS] + [Span.PATCH] * PATCHES
            states = block(states)
        embeddings, _, _ = backbone.assemble(batch)
        backbone.language_model.set_attn_implementation("eager")
        output = backbone.language_model.model(inputs_embeds=embeddings, output_attentions=True, use_cache=False)
    for number, expected in enumerate(output.attentions):
        maps = captured[0].language[number].probabilities
        # The library's eager attention rounds its softmax to float32 even in a float64 model.
        assert float((maps - expected[0]).abs().max()) < max(tolerance, 1e-7)


@pytest.mark.parametrize("arguments", METHODS, ids=str)
def test_rows_sum_to_one_and_columns_are_named(tmp_path, arguments):
    backbone, batch = random_backbone(tmp_path), random_batch()
    method = built_method(backbone, torch.float32, **arguments)
    method.attach(backbone)
    spans = backbone(batch).spans
    for row, sample in enumerate(capture_attention(backbone, batch)):
        real = int((spans[row] != Span.PADDING).sum())
        textual = method.textual_prompts.layers if method.textual_prompts else [TEXT_LAYERS]
        visual = method.visual_prompts.layers if method.visual_prompts else [VISION_LAYERS]
        for layer in (*sample.language, *sample.vision[0]):
            assert layer.probabilities.shape[1:] == (len(layer.spans), len(layer.spans))
            torch.testing.assert_close(layer.probabilities.sum(-1), torch.ones(4, len(layer.spans)))
        for layer in sample.language:
            prompts = TEXTUAL_LENGTH if layer.layer >= textual[0] else 0
            assert layer.spans.tolist() == [Span.TEXTUAL_PROMPT] * prompts + spans[row, :real].tolist()
            assert not layer.probabilities.triu(diagonal=1).any()
        for layer in sample.vision[0]:
            prompts = VISUAL_LENGTH if layer.layer >= visual[0] else 0
            assert layer.spans.tolist() == [Span.VISUAL_PROMPT] * prompts + [Span.CLS] + [Span.PATCH] * PATCHES


def test_one_by_one_equals_the_batch(tmp_path):
    backbone, batch = random_backbone(tmp_path, torch.float64), random_batch(dtype=torch.float64)
    built_method(backbone, torch.float64).attach(backbone)
    for row, together in enumerate(capture_attention(backbone, batch)):
        one = slice(row, row + 1)
        length = int((batch.spans[row] != Span.PADDING).sum())
        tokens = [tensor[one, :length] for tensor in (batch.input_ids, batch.labels, batch.spans)]
        alone = capture_attention(backbone, Batch(batch.pixel_values[one], *tokens, ["s"], [("t",)]))[0]
        for mine, other in zip(
            (*together.language, *together.vision[0]), (*alone.language, *alone.vision[0]), strict=True
        ):
            torch.testing.assert_close(mine.probabilities, other.probabilities, rtol=0, atol=1e-7)
            assert torch.equal(mine.spans, other.spans)


@pytest.mark.parametrize("path", ["token", "auto"])
@pytest.mark.parametrize("ran_before", [False, True])
def test_reading_changes_nothing(tmp_path, path, ran_before):
    """Tensors, attachment, hooks, modes, the global generator, outputs and answers are the same before and after."""
    backbone, batch = random_backbone(tmp_path), random_batch(answer=1)
    backbone.language_model.train()
    method = built_method(backbone, torch.float32, path=path, dropout=0.3)
    method.attach(backbone)
    method.eval()
    expected = backbone(batch).hidden_states.detach()
    answers = greedy_answers(backbone, batch, max_new_tokens=4, end_token_id=0)
    if not ran_before:
        method.attach(backbone)
    method.train()
    attachment, blocks = backbone.attachment, every_block(backbone)
    modes = [module.training for module in (*backbone.modules(), *method.modules())]
    tensors, generator = hash_tensors(backbone.state_dict()), torch.get_rng_state()
    first, second = capture_attention(backbone, batch)[0], capture_attention(backbone, batch)[0]
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(first.language[0].probabilities, second.language[0].probabilities)  # no dropout
    assert backbone.attachment is attachment
    assert attachment.path == path
    assert hash_tensors(backbone.state_dict()) == tensors
    assert [module.training for module in (*backbone.modules(), *method.modules())] == modes
    assert not any(hooks for block in blocks for hooks in (block._forward_hooks, block._forward_pre_hooks))
    assert not any("attention" in vars(block) for block in blocks)
    method.eval()
    assert torch.equal(backbone(batch).hidden_states, expected)
    assert greedy_answers(backbone, batch, max_new_tokens=4, end_token_id=0) == answers


def every_block(backbone: OpenClipLlama) -> list[nn.Module]:
    blocks, layers = backbone.vision_tower.transformer.resblocks, backbone.language_model.model.layers
    return [*blocks, *layers, *(block.attn for block in blocks), *(layer.self_attn for layer in layers)]


def test_activation_is_the_mean_over_heads_and_queries(tmp_path):
    backbone, batch = random_backbone(tmp_path), random_batch()
    built_method(backbone, torch.float32, textual_layers=[1, 2]).attach(backbone)
    sample = capture_attention(backbone, batch)[0]
    layer = sample.language[1]
    by_hand = [float(layer.probabilities[:, :, column].mean()) for column in range(len(layer.spans))]
    torch.testing.assert_close(column_activation(layer), torch.tensor(by_hand))
    content = layer.probabilities[:, TEXTUAL_LENGTH:].mean(dim=(0, 1))
    torch.testing.assert_close(column_activation(layer, "content"), content)
    found = activations(sample.language)
    assert bool(found.values[0, :TEXTUAL_LENGTH].isnan().all())
    torch.testing.assert_close(found.average[:TEXTUAL_LENGTH], found.values[1:, :TEXTUAL_LENGTH].mean(dim=0))
    torch.testing.assert_close(found.average[-1], found.values[:, -1].mean())
    means = span_means(found.average, found.spans)
    torch.testing.assert_close(means[Span.TEXTUAL_PROMPT], float(found.average[:TEXTUAL_LENGTH].mean()))
    assert Span.PADDING not in means


def test_layers_can_be_chosen(tmp_path):
    backbone, batch = random_backbone(tmp_path), random_batch()
    everything, chosen = capture_attention(backbone, batch)[0], capture_attention(backbone, batch, layers=[1])[0]
    assert [layer.layer for layer in chosen.language] == [layer.layer for layer in chosen.vision[0]] == [1]
    assert torch.equal(chosen.language[0].probabilities, everything.language[1].probabilities)
    with pytest.raises(BadInputError, match="layer 7 does not exist"):
        capture_attention(backbone, batch, layers=[7])


def test_several_pictures_have_maps_of_their_own(tmp_path):
    backbone, batch = random_backbone(tmp_path), random_batch(size=1)
    pixels = torch.cat([batch.pixel_values, -batch.pixel_values])
    ids = torch.cat([batch.input_ids[:, :2], batch.input_ids[:, 1:]], dim=1)
    spans = torch.cat([batch.spans[:, :2], batch.spans[:, 1:]], dim=1)
    sample = capture_attention(backbone, replace(batch, pixel_values=pixels, input_ids=ids, labels=ids, spans=spans))[0]
    assert len(sample.vision) == 2
    assert int((sample.language[0].spans == Span.PATCH).sum()) == 2 * PATCHES
    assert not torch.equal(sample.vision[0][0].probabilities, sample.vision[1][0].probabilities)


def test_an_attachment_nobody_can_name_is_refused(tmp_path):
    backbone, batch = random_backbone(tmp_path), random_batch()
    unknown = make_dataclass("Wider", [("something_new", object, None)], bases=(Attachment,))
    backbone.attachment = unknown(something_new=torch.zeros(1))
    with pytest.raises(BadInputError, match="something_new"):
        capture_attention(backbone, batch)
    backbone.attachment = unknown()
    assert len(capture_attention(backbone, batch)) == len(batch)
    assert {field.name for field in fields(Attachment)} >= {"visual_prompts", "textual_prompts"}


def test_trained_weights_take_part_and_leave_again(tmp_path):
    backbone, batch = random_backbone(tmp_path), random_batch()
    untouched, method = capture_attention(backbone, batch)[0], Full()
    method.build(backbone, torch.Generator())
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.mul_(1.3)
    method.attach(backbone)
    tuned = capture_attention(backbone, batch)[0]
    method.detach(backbone)
    again = capture_attention(backbone, batch)[0]
    for part in ("language", "vision"):
        layers = [getattr(sample, part) for sample in (untouched, tuned, again)]
        maps = [of[0][0] if part == "vision" else of[0] for of in layers]
        assert not torch.allclose(maps[0].probabilities, maps[1].probabilities, atol=1e-3)
        assert torch.equal(maps[0].probabilities, maps[2].probabilities)


class LowRank(nn.Module):
    """A projection with a low-rank update beside it, as LoRA puts in its place."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(base.in_features, 2), nn.Linear(2, base.out_features)

    def forward(self, rows: Tensor) -> Tensor:
        return self.base(rows) + self.up(self.down(rows))


def test_stand_ins_for_projections_take_part(tmp_path):
    backbone, batch = random_backbone(tmp_path), random_batch()
    for layer in backbone.language_model.model.layers:
        layer.self_attn.q_proj, layer.self_attn.v_proj = map(LowRank, (layer.self_attn.q_proj, layer.self_attn.v_proj))
    captured = capture_attention(backbone, batch)[0]
    backbone.language_model.set_attn_implementation("eager")
    with torch.no_grad():
        embeddings, _, _ = backbone.assemble(batch)
        output = backbone.language_model.model(inputs_embeds=embeddings, output_attentions=True, use_cache=False)
    for layer, expected in zip(captured.language, output.attentions, strict=True):
        torch.testing.assert_close(layer.probabilities, expected[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", ["vision", "language"])
def test_attention_that_is_more_than_queries_and_keys_is_refused(tmp_path, monkeypatch, part):
    """Whatever takes part behind the class's back shows in the module's output."""
    backbone, batch = random_backbone(tmp_path), random_batch()
    module = (
        backbone.vision_tower.transformer.resblocks[1].attn
        if part == "vision"
        else backbone.language_model.model.layers[1].self_attn
    )
    computed = module.forward
    monkeypatch.setattr(module, "forward", lambda *given, **named: scaled(computed(*given, **named)))
    with pytest.raises(BadInputError, match=f"{part} layer 1"):
        capture_attention(backbone, batch)
    assert not backbone.language_model.model.layers[0].self_attn._forward_hooks


def scaled(output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return output[0] * 1.1, *output[1:]
