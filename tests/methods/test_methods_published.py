"""Published facts of the methods M2PT is compared with: counts at 7B, order, starts, gradient flow, equal forms."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from experiments.commands.params import count
from experiments.configuration.cli import parse_experiment
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.prompts.decoder_pass import prompt_rows
from lightning_m2pt.prompts.token_path import VisionTokenPath
from lightning_m2pt.testing.random_backbone import TEXT_LAYERS, VISION_LAYERS, WIDTH, random_backbone, random_batch
from lightning_m2pt.tuning.module import TuningModule

FOLDER = "lightning_m2pt/embedded/vicuna7b"
PROJECTOR = 4_198_400


def counted(method: Method) -> dict:
    backbone = OpenClipLlama(f"{FOLDER}/vision/open_clip_config.json", "none", f"{FOLDER}/language", "none", "none")
    return count(TuningModule(backbone, method))


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        (Lora(16), 39_976_960 + PROJECTOR),
        (Lora(16, interaction=False), 39_976_960),
        (Lora(8, interaction=False), 19_988_480),
        (Lora(64, interaction=False), 159_907_840),
        (M2PT(10, 0), 24_576 * 10 + PROJECTOR),
        (M2PT(10, 0, visual_rows_to_text="none"), 23 * 1_024 * 10 + PROJECTOR),
        (M2PT(10, 0, visual_rows_to_text="none", visual_depth="shallow"), 1_024 * 10 + PROJECTOR),
        (M2PT(0, 10), 131_072 * 10 + PROJECTOR),
        (M2PT(0, 0), PROJECTOR),
        (PrefixTuning(64), 262_144 * 64 + PROJECTOR),
        # 32 layers of keys and values, 31 of queries (the last layer's would have no gradient), one of rows.
        (APrompt(10, 10), 4_096 * 10 * (1 + 31 + 2 * 32) + PROJECTOR),
        (LayerNormTuning(), (2 * 32 + 1) * 4_096 + PROJECTOR),
        (Adapter(64), 2 * 32 * (2 * 4_096 * 64 + 64 + 4_096) + PROJECTOR),
    ],
    ids=lambda value: value.name if isinstance(value, Method) else str(value),
)
def test_counts_at_7b(method: Method, trained: int) -> None:
    assert counted(method)["trained"] == trained


def test_the_shipped_lora_file_is_the_published_share() -> None:
    table = count(parse_experiment(["--config", "experiments/lora_vicuna7b.yaml"]).model)
    assert table["trained"] == 44_175_360
    assert table["percent"] == pytest.approx(0.623, abs=0.0005)  # 0.63 in the paper, of all numbers


def test_full_tuning_at_7b_is_everything_used() -> None:
    table = count(parse_experiment(["--config", "experiments/full_vicuna7b.yaml"]).model)
    unused = table["base"] - table["trained"]
    assert table["added"] == 0
    last_block = 12_596_224  # of ViT-L/14: attention 4 D^2 + 4 D, MLP 8 D^2 + 5 D, two norms 4 D
    assert unused == last_block + 2 * 1_024


def stood_in_sequence(backbone: OpenClipLlama, method: Method) -> list[Tensor]:
    """Returns every vision block's input on the token path, as the block sees it."""
    seen: list[Tensor] = []
    method.attach(backbone)
    backbone.attachment.path = "token"
    with torch.no_grad():
        backbone.visual_rows(random_batch().pixel_values)  # installs the path's hooks first
        blocks = backbone.vision_tower.transformer.resblocks
        handles = [block.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for block in blocks]
        backbone.visual_rows(random_batch().pixel_values)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(("position", "start"), [("before_cls", 0), ("after_cls", 1)])
def test_vpt_puts_rows_behind_cls_and_m2pt_before(tmp_path: Path, position: str, start: int) -> None:
    backbone = random_backbone(tmp_path)
    method = M2PT(5, 0, visual_position=position, visual_rows_to_text="none", init="normal")  # type: ignore[arg-type]
    method.build(backbone, torch.Generator().manual_seed(0))
    inputs = stood_in_sequence(backbone, method)
    assert len(inputs) == VISION_LAYERS - 1
    for layer, states in enumerate(inputs):
        rows = method.visual_prompts.rows[str(layer)]
        assert torch.equal(states[:, start : start + 5], rows.expand(len(states), -1, -1))
    with torch.no_grad():
        cls = backbone.vision_tower._embeds(random_batch().pixel_values)[:, :1]
    assert torch.equal(inputs[0][:, 5 * (1 - start)][:, None], cls)


@pytest.mark.parametrize("depth", ["deep", "shallow"])
def test_where_rows_stand_makes_no_difference_to_others(tmp_path: Path, depth: str) -> None:
    backbone, outputs = random_backbone(tmp_path, torch.float64), []
    for position in ("before_cls", "after_cls"):
        method = M2PT(
            5, 0, visual_position=position, visual_depth=depth, visual_rows_to_text="none", path="token", init="normal"
        )
        method.build(backbone, torch.Generator().manual_seed(0))
        method.attach(backbone)
        outputs.append(backbone.visual_rows(random_batch(dtype=torch.float64).pixel_values).rows)
    assert torch.allclose(outputs[0], outputs[1], rtol=0, atol=1e-12)


def test_vpt_start_is_uniform_within_its_bound(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    method = M2PT(400, 0, visual_rows_to_text="none", init="vpt_uniform")
    method.build(backbone, torch.Generator().manual_seed(0))
    bound = math.sqrt(6.0 / (3 * 4**2 + WIDTH))
    values = torch.cat([rows.detach().flatten() for rows in method.visual_prompts.rows.values()])
    assert float(values.abs().max()) <= bound
    assert float(values.abs().max()) > 0.999 * bound
    assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_ptum_rows_are_the_prefix_of_their_own_keys_and_values(tmp_path: Path) -> None:
    """A deep prompt equals a learned prefix that holds rope(W_k norm(P)) and W_v norm(P)."""
    backbone, batch = random_backbone(tmp_path, torch.float64), random_batch(dtype=torch.float64)
    rows = M2PT(0, 4, init="normal", interaction=False)
    rows.build(backbone, torch.Generator().manual_seed(0))
    rows.double()
    rows.attach(backbone)
    expected = backbone.logits(backbone(batch).hidden_states)
    of_rows = prompt_rows(backbone.language_model.model, rows.textual_prompts.layer_rows())
    rows.detach(backbone)

    prefix = PrefixTuning(4, interaction=False)
    prefix.build(backbone, torch.Generator().manual_seed(0))
    prefix.double()
    layers = [
        torch.stack([keys[0].transpose(0, 1).flatten(1), values[0].transpose(0, 1).flatten(1)])
        for keys, values in of_rows.layers
    ]
    with torch.no_grad():
        prefix.prefix.embedding.copy_(torch.stack(layers).permute(2, 0, 1, 3).reshape(4, -1))
    prefix.attach(backbone)
    assert torch.allclose(backbone.logits(backbone(batch).hidden_states), expected, atol=1e-10)


def test_prefix_is_peft_prefix_tuning(tmp_path: Path) -> None:
    """The same numbers in peft's prefix tuning of the language model give the same logits."""
    peft = pytest.importorskip("peft")
    backbone, length = random_backbone(tmp_path), 4
    # peft asks for as many heads for keys as for queries.
    config = copy.deepcopy(backbone.language_model.config)
    config.num_key_value_heads = config.num_attention_heads
    torch.manual_seed(0)
    backbone.language_model = type(backbone.language_model)(config).eval()
    backbone.shape.text_key_value_heads = config.num_attention_heads
    method = PrefixTuning(length, interaction=False)
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    embeddings = torch.randn(2, 7, WIDTH)
    ours = backbone.logits(backbone.decode_rows(embeddings))
    theirs = peft.get_peft_model(
        copy.deepcopy(backbone.language_model),
        peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length),
    ).eval()
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(method.prefix.embedding)
    logits = theirs(inputs_embeds=embeddings, attention_mask=torch.ones(2, 7, dtype=torch.long)).logits
    assert torch.allclose(ours, logits[:, -7:], atol=1e-5)


def test_prefix_starts_from_the_standard_normal(tmp_path: Path) -> None:
    """torch's embeddings do, and the published code leaves them so."""
    method = PrefixTuning(400)
    method.build(random_backbone(tmp_path), torch.Generator().manual_seed(0))
    values = method.prefix.embedding.detach()
    assert float(values.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(values.std()) == pytest.approx(1.0, abs=0.02)
    shipped = parse_experiment(["--config", "experiments/ptum_prefix_vicuna7b.yaml"]).model.method
    assert (shipped.length, shipped.dropout, shipped.init_std) == (64, 0.2, 1.0)


def test_reparameterised_prefix_is_the_layers_output(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    method = PrefixTuning(4, reparameterisation=6, interaction=False)
    method.build(backbone, torch.Generator().manual_seed(0))
    first, _, last = method.prefix.projection
    embedding = method.prefix.embedding
    expected = last(torch.relu(first(embedding)))
    table = method.prefix.keys_and_values()
    assert embedding.shape == (4, 6)
    assert table.shape == (TEXT_LAYERS, 2, 4, WIDTH // 2)  # two of four heads hold keys
    assert torch.equal(table[1, 0, 2], expected[2].view(TEXT_LAYERS, 2, -1)[1, 0])


def queries_changed(backbone: Backbone, method: APrompt, layer: int) -> Tensor:
    """Returns how much the text's outputs move when one layer's query prompts do."""
    with torch.no_grad():
        before = backbone(random_batch()).hidden_states
        method.query_prompts[layer].add_(1.0)
        return (backbone(random_batch()).hidden_states - before).abs().max()


def test_query_prompts_that_persist_have_gradients_and_the_last_layers_would_not(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    method = APrompt(3, 2, init_std=0.5)
    method.build(backbone, torch.Generator().manual_seed(0))
    assert len(method.query_prompts) == TEXT_LAYERS - 1
    last = nn.Parameter(torch.randn(1, 3, WIDTH))
    method.attach(backbone)
    backbone.attachment.query_rows = [*method.query_prompts, last]
    backbone.logits(backbone(random_batch()).hidden_states).square().sum().backward()
    assert all(bool(rows.grad.ne(0).any(dim=-1).all()) for rows in method.query_prompts)
    assert not last.grad.any()  # its rows' outputs are read by nobody
    assert all(float(queries_changed(backbone, method, layer)) > 0 for layer in range(TEXT_LAYERS - 1))


def test_dropped_query_rows_have_exactly_no_gradient() -> None:
    """Q' = [P_q; Q] with the rows of P_q thrown away: each query row only forms its own output."""
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(1, 2, 5, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    learned = torch.randn(1, 2, 3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    attended = nn.functional.scaled_dot_product_attention(torch.cat([learned, queries], dim=2), keys, values)
    attended[:, :, 3:].square().sum().backward()
    assert not learned.grad.any()


def test_input_prompts_alone_are_shallow_textual_prompts(tmp_path: Path) -> None:
    """APrompt without its attention prompts is prompt tuning, as its abstract says."""
    backbone, outputs = random_backbone(tmp_path), []
    aprompt = APrompt(3, 0, query_prompts=False, init_std=0.5, interaction=False)
    shallow = M2PT(0, 3, textual_depth="shallow", init="normal", init_std=0.5, interaction=False)
    for method in (aprompt, shallow):
        method.build(backbone, torch.Generator().manual_seed(0))
        method.attach(backbone)
        outputs.append(backbone(random_batch()).hidden_states)
        method.detach(backbone)
    assert torch.equal(outputs[0], outputs[1])


def test_learned_keys_have_no_position(tmp_path: Path) -> None:
    """Keys stored after the rotation: their order among themselves means nothing."""
    backbone = random_backbone(tmp_path)
    method = APrompt(2, 4, init_std=0.5, interaction=False)
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    before = backbone(random_batch()).hidden_states
    with torch.no_grad():
        for table in (method.key_value_prompts.keys, method.key_value_prompts.values):
            for rows in table:
                rows.copy_(rows.flip(1))
    assert torch.allclose(backbone(random_batch()).hidden_states, before, atol=1e-6)


def test_zero_length_prompts_are_the_frozen_model(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    expected = backbone(random_batch()).hidden_states
    method = M2PT(0, 0, interaction=False)
    method.build(backbone, torch.Generator())
    method.attach(backbone)
    assert method.part_names() == []
    assert torch.equal(backbone(random_batch()).hidden_states, expected)


def test_the_token_path_takes_prompts_out_wherever_they_stand() -> None:
    path, states = VisionTokenPath(), torch.arange(8.0)[None, :, None]
    path.rows = [torch.zeros(1, 3, 1)]
    assert path.without_prompts(states, 3).flatten().tolist() == [3, 4, 5, 6, 7]
    path.position = "after_cls"
    assert path.without_prompts(states, 3).flatten().tolist() == [0, 4, 5, 6, 7]
