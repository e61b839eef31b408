"""Attention by plain products = what torch's fused kernel and transformers' eager functions compute.

In float64 by value, gradients too; in bfloat16 not further from float64 than the fused kernel is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.llama.modeling_llama import eager_attention_forward

from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.prompts import past_rows, plain_attention, prefix_path, tower_rows
from lightning_m2pt.prompts.past_rows import LayerView, additive_mask, over_past_rows
from lightning_m2pt.prompts.plain_attention import later_keys_hidden, prefers_products
from lightning_m2pt.prompts.plain_attention import plain_attention as by_products
from lightning_m2pt.prompts.tower_rows import TowerPrefixPath
from lightning_m2pt.testing.random_backbone import PATCHES, TEXT_LAYERS, VISION_LAYERS, random_backbone
from lightning_m2pt.tuning.memory_estimate import kept_shares
from tests.backbones.test_shortcuts import (
    EVERY_ROW,
    EVERY_SHORTCUT,
    assert_same,
    batch_with_system_text,
    float64_islands,
    loss_and_gradients,
)
from tests.methods.test_every_method import built
from tests.prompts.test_tower_rows import by_library, by_plain_hooks, installed, prompts, refuse_other
from tests.support.towers.float64_islands import float64_islands as float64_tower
from tests.support.towers.small import small_tower
from tests.tuning.test_memory_estimate import estimate_and_truth, random_models

SAMPLES, HEADS, GROUPS, WIDTH, SCALING = 3, 6, 2, 8, 0.3
Given = tuple[Tensor, Tensor, Tensor]


def states(rows: int, keys: int, size: float = 1.0, common: float = 0.0, value_width: int = WIDTH) -> Given:
    """Queries, keys and values in float64, as bfloat16 has them; ``common`` is what all values have alike."""
    generator = torch.Generator().manual_seed(rows)
    shapes = (HEADS, rows, WIDTH), (GROUPS, keys, WIDTH), (GROUPS, keys, value_width)
    query, key, value = (torch.randn(SAMPLES, *shape, generator=generator) for shape in shapes)
    value = value + common * torch.randn(value_width, generator=generator)
    return tuple(each.bfloat16().double() for each in (query * size, key * size, value))  # type: ignore[return-value]


def mask_of(kind: str, rows: int, keys: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """All of them hide what comes later; the last two also a window, for all samples alike or for each of them."""
    seen = torch.ones(rows, keys, dtype=torch.bool).tril(keys - rows)[None].expand(SAMPLES, -1, -1).clone()
    if kind != "causal":
        seen &= ~torch.ones(rows, keys, dtype=torch.bool).tril(keys - rows - 4)
    if kind == "of each sample":
        seen[0, :, 1] = seen[1, :, 2] = False
        seen[:, torch.arange(rows), torch.arange(rows) + keys - rows] = True
        return additive_mask(seen, dtype)[:, None]
    return additive_mask(seen[:1], dtype)[:, None]


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    keys, values = (each.repeat_interleave(HEADS // GROUPS, dim=1) for each in (key, value))
    return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=SCALING).transpose(1, 2)


def eagerly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    module: Any = SimpleNamespace(num_key_value_groups=HEADS // GROUPS, training=False)
    return eager_attention_forward(module, query, key, value, mask, SCALING)[0]


def plainly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return by_products(query, key, value, mask, SCALING)


def output_and_gradients(function: Callable[..., Tensor], given: Given, mask: Tensor | None) -> list[Tensor]:
    leaves = [each.detach().clone().requires_grad_() for each in given]
    output = function(*leaves, mask)
    generator = torch.Generator().manual_seed(9)
    above = torch.randn(output.shape, generator=generator).bfloat16().to(output.dtype)
    output.backward(above)
    return [output.detach(), *(leaf.grad for leaf in leaves)]  # type: ignore[list-item]


def assert_close(found: list[Tensor], expected: list[Tensor], limit: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) < limit * float(other.abs().max())


@pytest.mark.parametrize("at_once", [1, 2**20], ids=["sample by sample", "together"])
@pytest.mark.parametrize("kind", ["none", "causal", "window", "of each sample"])
def test_products_are_the_fused_kernel_and_the_eager_function(monkeypatch, kind: str, at_once: int) -> None:
    monkeypatch.setattr(plain_attention, "AT_A_TIME", at_once)
    given = states(7, 12)
    mask = None if kind == "none" else mask_of(kind, 7, 12)
    found = output_and_gradients(plainly, given, mask)
    assert_close(found, output_and_gradients(fused, given, mask), 1e-12)
    # The library's softmax is float32.
    assert_close(found, output_and_gradients(eagerly, given, mask), 1e-5)


def test_pieces_hold_what_caches_do(monkeypatch) -> None:
    monkeypatch.setattr(plain_attention, "AT_A_TIME", 4 * 100 * 2 + 3)
    assert plain_attention.pieces(5, 100) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert plain_attention.pieces(2, 1000) == [slice(0, 1), slice(1, 2)]


def test_later_keys_are_hidden_behind_past_ones() -> None:
    expected = mask_of("causal", 4, 9) < 0
    assert torch.equal(later_keys_hidden(4, 9, torch.device("cpu")) < 0, expected)
    assert not later_keys_hidden(1, 9, torch.device("cpu")).any()


def test_values_may_be_wider_than_keys() -> None:
    given = states(5, 6, value_width=5)
    assert_close(output_and_gradients(plainly, given, None), output_and_gradients(fused, given, None), 1e-12)


@pytest.mark.parametrize("kind", ["none", "of each sample"])
@pytest.mark.parametrize("common", [0.0, 3.0], ids=["", "values alike"])
@pytest.mark.parametrize("size", [1.0, 2.0, 4.0])
def test_bfloat16_is_not_further_from_float64_than_the_fused_kernel(size: float, common: float, kind: str) -> None:
    """Sharp attention is where rounded scores would show: at size 4 they are off by 30 to 60 times as much."""
    given = states(40, 50, size, common)
    masks = [None if kind == "none" else mask_of(kind, 40, 50, dtype) for dtype in (torch.float64, torch.bfloat16)]
    exact = output_and_gradients(plainly, given, masks[0])
    rounded: Any = tuple(each.bfloat16() for each in given)
    distances = [
        [
            float((one.double() - other).norm() / other.norm())
            for one, other in zip(output_and_gradients(function, rounded, masks[1]), exact, strict=True)
        ]
        for function in (plainly, fused)
    ]
    for ours, theirs in zip(*distances, strict=True):
        assert ours < 1.5 * theirs
        assert theirs < 0.05


def test_autocast_rounds_no_scores() -> None:
    given: Any = tuple(each.float() for each in states(9, 9))
    with torch.autocast("cpu", torch.bfloat16):
        found = by_products(*(each.bfloat16() for each in given), None, SCALING)
    assert torch.equal(found, by_products(*(each.bfloat16() for each in given), None, SCALING))


def test_the_fused_kernel_is_left_where_it_is_faster_or_does_more(monkeypatch) -> None:
    query, key = torch.zeros(2, 6, 40, 8, dtype=torch.bfloat16), torch.zeros(2, 2, 50, 8, dtype=torch.bfloat16)
    assert prefers_products(query, key, None)
    assert prefers_products(query, key, 0.0)
    assert not prefers_products(query, key, 0.1)
    assert not prefers_products(query.half(), key.half(), None)
    assert not prefers_products(query.float(), key.float(), None)
    assert not prefers_products(query[:, :, :1], key, None)
    assert not prefers_products(query[:0], key[:0], None)
    assert not prefers_products(query.to("meta"), key.to("meta"), None)
    monkeypatch.setattr(plain_attention, "MOST_KEPT", 2 * 6 * 40 * 50 * 2)
    assert prefers_products(query, key, None)
    monkeypatch.setattr(plain_attention, "MOST_KEPT", 2 * 6 * 40 * 50 * 2 - 1)
    assert not prefers_products(query, key, None)


def refused(*_: Any, **__: Any) -> Any:
    raise AssertionError("plain products would overlook what is asked for")


@pytest.mark.parametrize(
    "keyword",
    [
        {"dropout": 0.5},
        {"position_bias": torch.zeros(1)},
        {"softcap": 3.0},
        {"s_aux": torch.zeros(1)},
        {"is_causal": False},
        {"scaling": None},
    ],
    ids=str,
)
def test_what_products_do_not_know_goes_to_the_library(monkeypatch, keyword: dict[str, Any]) -> None:
    monkeypatch.setattr(past_rows, "plain_attention", refused)
    asked: list[dict[str, Any]] = []

    def library(module: Any, query: Tensor, *_: Any, **keywords: Any) -> tuple[Tensor, None]:
        asked.append(keywords)
        return query.transpose(1, 2), None

    monkeypatch.setattr("transformers.integrations.sdpa_attention.sdpa_attention_forward", library)
    query, key, value = (each.bfloat16() for each in states(5, 5))
    view = LayerView(None, mask=mask_of("causal", 5, 5, torch.bfloat16))
    over_past_rows(None, query, key, value, None, view, **{"scaling": SCALING, **keyword})
    assert asked == [{"scaling": SCALING, **keyword}]
    with pytest.raises(AssertionError, match="overlook"):
        over_past_rows(None, query, key, value, None, view, scaling=SCALING)


METHODS = ["m2pt", "ptum prefix", "lora", "projector"]


@contextmanager
def in_every_type(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Lets decoders and towers compute by products whatever their type; gets how many rows each call had."""
    calls: list[int] = []

    def preferred(query: Tensor, key: Tensor, dropout: float | None) -> bool:
        return query.shape[2] > 1 and not dropout

    def counted(query: Tensor, *others: Any) -> Tensor:
        calls.append(query.shape[2])
        return by_products(query, *others)

    with monkeypatch.context() as patch:
        for module in (past_rows, prefix_path, tower_rows):
            patch.setattr(module, "prefers_products", preferred)
            patch.setattr(module, "plain_attention", counted)
        yield calls


@pytest.mark.parametrize("recomputes", [False, True], ids=["", "recomputing"])
@pytest.mark.parametrize("name", METHODS)
def test_whole_passes_by_products_equal_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, recomputes: bool
) -> None:
    with float64_islands(monkeypatch):
        backbone, batch = random_backbone(tmp_path, torch.float64), batch_with_system_text()
        backbone.activation_checkpointing = recomputes
        backbone.finish()
        backbone.train()
        method = built(name, backbone).double()
        method.attach(backbone)
        expected = loss_and_gradients(backbone, method, batch, EVERY_ROW)
        with in_every_type(monkeypatch) as calls:
            assert_same(loss_and_gradients(backbone, method, batch, EVERY_SHORTCUT), expected, 1e-12)
    in_tower = calls.count(1 + PATCHES)
    assert in_tower == (VISION_LAYERS - 1) * (1 + recomputes) * (name == "m2pt")
    assert len(calls) - in_tower >= TEXT_LAYERS


@pytest.mark.parametrize("kind", ["clip_vision_model", "siglip2_vision_model", "dinov2"])
def test_towers_of_transformers_by_products_equal_rows_in_the_sequence(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """SigLIP-2's pictures are padded, and its mask is one of truths."""
    tower, rows = small_tower(kind, "sdpa"), prompts()
    with float64_tower(monkeypatch, tower):
        by_library(tower, kind)
        expected = by_plain_hooks(tower, kind, rows)
        with in_every_type(monkeypatch) as calls, installed(TowerPrefixPath(), tower, kind, rows):
            refuse_other(by_library(tower, kind), expected, rows)
    assert len(calls) == len(rows)


def test_compiled_layers_keep_the_fused_kernel() -> None:
    query, key = torch.zeros(2, 6, 40, 8, dtype=torch.bfloat16), torch.zeros(2, 2, 50, 8, dtype=torch.bfloat16)

    def chosen(query: Tensor, key: Tensor) -> Tensor:
        return query + 1 if prefers_products(query, key, None) else query

    torch._dynamo.reset()
    compiled = torch.compile(chosen, backend="eager", fullgraph=True)
    assert chosen(query, key).any()
    assert not compiled(query, key).any()
    torch._dynamo.reset()


def test_the_memory_estimate_counts_kept_shares(tmp_path: Path, monkeypatch) -> None:
    """At a width at which shares are a third of what a layer keeps."""
    monkeypatch.setattr(random_models, "WIDTH", 64)
    with_shares, without = (
        estimate_and_truth(tmp_path, M2PT(4, 5), torch.bfloat16, on_cpu) for on_cpu in (True, False)
    )
    assert 0.9 < with_shares < 1.2
    assert without < 0.9 * with_shares
    assert kept_shares(4, 2, 40) == 4 * 2 * 10 * 10 * 2
    assert kept_shares(1000, 32, 1000 * 2000) == plain_attention.MOST_KEPT


def test_calls_that_would_keep_more_than_32_mib_keep_the_fused_kernel():
    query = torch.zeros(1, 16, 1024, 8, dtype=torch.bfloat16)
    assert prefers_products(query, query, None)
    longer = torch.zeros(1, 16, 1025, 8, dtype=torch.bfloat16)
    assert not prefers_products(longer, query, None)
