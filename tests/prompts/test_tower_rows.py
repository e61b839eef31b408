"""Prompt rows in towers of transformers: rows put in by plain hooks = the token path = the prefix path.

In float64, in every hidden state that the library collects and in every gradient, under both attention functions, where
blocks recompute, where they are compiled, and where pictures are padded.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.prompts.tower_rows import TowerPrefixPath, TowerTokenPath, takes_prompt_keys
from lightning_m2pt.system.tensor_hashes import hash_tensors
from tests.support.towers.float64_islands import float64_islands
from tests.support.towers.small import KINDS, LAYERS, WIDTH, blocks_of, pictures, rows_in_front, small_tower

LENGTH, USED = 3, LAYERS - 1
EVERY = tuple(range(USED))


def prompts(layers: Sequence[int] = EVERY) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(1, LENGTH, WIDTH, generator=generator, dtype=torch.float64) for _ in range(USED)]
    return [rows.requires_grad_() if layer in layers else None for layer, rows in enumerate(made)]


def by_plain_hooks(tower: Any, kind: str, rows: list[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    """The reference: rows in front of all others from the first block that has some; nothing is taken out in between.

    Returns the used blocks' outputs, prompt rows cut off, and the gradients of the prompts.
    """
    first = next(layer for layer, each in enumerate(rows) if each is not None)
    found: list[Tensor] = []

    def hook(layer: int) -> Callable[..., Any]:
        def put_in(_block: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if layer >= USED:
                raise StopIteration
            states, mask, own = given[0], given[1], rows[layer]
            if layer < first:
                return None
            if own is not None:
                behind = states if layer == first else states[:, LENGTH:]
                states = torch.cat([own.expand(len(states), -1, -1), behind], dim=1)
            if mask is not None:  # of padding, the same for every row
                mask = nn.functional.pad(mask[:, :, :1], (LENGTH, 0), value=mask.dtype == torch.bool)
            return states, mask, *given[2:]

        return put_in

    handles = []
    for layer, block in enumerate(blocks_of(tower)):
        handles.append(block.register_forward_pre_hook(hook(layer)))
        handles.append(block.register_forward_hook(lambda _, __, states: found.append(states)))
    with pytest.raises(StopIteration):
        tower(**pictures(kind))
    for handle in handles:
        handle.remove()
    states = [each[:, LENGTH:] if layer >= first else each for layer, each in enumerate(found)]
    return [each.detach() for each in states], gradients(rows, states)


def by_library(tower: Any, kind: str) -> list[Tensor]:
    """Returns the used blocks' outputs as the library collects them in its own forward pass."""
    if kind == "idefics3_vision":  # collects nothing by itself: an ordinary hook behind ours
        found: list[Tensor] = []
        hooks = [block.register_forward_hook(lambda _, __, rows: found.append(rows)) for block in blocks_of(tower)]
        tower(**pictures(kind))
        for hook in hooks:
            hook.remove()
        return found[:USED]
    return list(tower(**pictures(kind), output_hidden_states=True).hidden_states[1 : 1 + USED])


def gradients(rows: list[Tensor | None], states: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    loss = sum((each * torch.randn(each.shape, generator=generator, dtype=each.dtype)).sum() for each in states)
    return list(torch.autograd.grad(loss, [each for each in rows if each is not None]))


@contextmanager
def installed(
    path: TowerTokenPath | TowerPrefixPath, tower: Any, kind: str, rows: list[Tensor | None]
) -> Iterator[None]:
    path.install(blocks_of(tower)[:USED], rows_in_front(kind))
    path.rows = rows
    yield
    path.remove()


def refuse_other(found: list[Tensor], expected: tuple[list[Tensor], list[Tensor]], rows: list[Tensor | None]) -> None:
    states, slopes = expected
    assert [each.shape for each in found] == [each.shape for each in states]
    for one, other in zip(found, states, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=3e-14 * float(other.abs().max()))
    for one, other in zip(gradients(rows, found), slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13 * float(other.abs().max()))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_paths_equal_rows_in_the_sequence(monkeypatch: pytest.MonkeyPatch, kind: str, attention: str) -> None:
    tower, rows = small_tower(kind, attention), prompts()
    with float64_islands(monkeypatch, tower):
        by_library(tower, kind)  # the library hooks its blocks with the first such call
        expected = by_plain_hooks(tower, kind, rows)
        for path in (TowerTokenPath(), TowerPrefixPath()):
            with installed(path, tower, kind, rows):
                refuse_other(by_library(tower, kind), expected, rows)


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 2), (1, 2), (2,)], ids=str)
@pytest.mark.parametrize("kind", ["clip_vision_model", "siglip2_vision_model"])
def test_rows_of_few_blocks_flow_on(monkeypatch: pytest.MonkeyPatch, kind: str, layers: tuple[int, ...]) -> None:
    tower, rows, path = small_tower(kind, "sdpa"), prompts(layers), TowerTokenPath()
    with float64_islands(monkeypatch, tower):
        expected = by_plain_hooks(tower, kind, rows)
        with installed(path, tower, kind, rows):
            refuse_other(by_library(tower, kind), expected, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_behind_the_class_token_are_the_same(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """No row has a position beyond what its embedding says, so that the order makes no difference."""
    tower, rows = small_tower(kind, "eager"), prompts((0, 2))
    path = TowerTokenPath()
    path.position = "after_cls"
    seen: list[Tensor] = []
    hook = blocks_of(tower)[0].register_forward_hook(lambda _, given, __: seen.append(given[0]), with_kwargs=False)
    with float64_islands(monkeypatch, tower), installed(path, tower, kind, rows):
        found = by_library(tower, kind)
    in_front = rows_in_front(kind)
    assert torch.equal(seen[0][:, in_front : in_front + LENGTH], rows[0].expand(2, -1, -1))  # type: ignore[union-attr]
    hook.remove()
    with float64_islands(monkeypatch, tower):
        refuse_other(found, by_plain_hooks(tower, kind, rows), rows)


@pytest.mark.parametrize("layers", [EVERY, (0,), (1,)], ids=str)
@pytest.mark.parametrize("kind", ["clip_vision_model", "siglip2_vision_model", "dinov2"])
def test_recomputed_blocks_have_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, kind: str, layers: tuple[int, ...]
) -> None:
    tower, rows = small_tower(kind, "sdpa"), prompts(layers)
    ran: list[int] = []
    with float64_islands(monkeypatch, tower):
        expected = by_plain_hooks(tower, kind, rows)
        tower.activation_checkpointing_enable({"use_reentrant": False})
        for block in blocks_of(tower):
            block.training = True  # and nothing inside it, which would drop
            block.mlp.register_forward_pre_hook(lambda _, __: ran.append(1))
        for path in (TowerTokenPath(), TowerPrefixPath())[: 1 + (layers == EVERY)]:
            with installed(path, tower, kind, rows):
                found = by_library(tower, kind)
                ran.clear()
                refuse_other(found, expected, rows)
                assert len(ran) >= USED - min(layers)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip_vision_model", "siglip_vision_model", "dinov2"])
def test_compiled_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    tower, rows = small_tower(kind, "sdpa"), prompts()
    with float64_islands(monkeypatch, tower):
        expected = by_plain_hooks(tower, kind, rows)
        for block in blocks_of(tower):
            block.forward = torch.compile(block.forward, backend="aot_eager")
        for path in (TowerTokenPath(), TowerPrefixPath()):
            with installed(path, tower, kind, rows):
                refuse_other(by_library(tower, kind), expected, rows)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_without_rows_nothing_changes(kind: str, attention: str) -> None:
    tower = small_tower(kind, attention, torch.float32)
    given = {name: each.float() if each.is_floating_point() else each for name, each in pictures(kind).items()}
    with torch.no_grad():
        before, weights = tower(**given).last_hidden_state, hash_tensors(tower.state_dict())
        for path in (TowerTokenPath(), TowerPrefixPath()):
            path.install(blocks_of(tower), rows_in_front(kind))
            assert torch.equal(tower(**given).last_hidden_state, before)
            path.rows = [torch.ones(1, LENGTH, WIDTH)] * LAYERS
            assert not torch.equal(tower(**given).last_hidden_state, before)
            path.rows = []
            assert torch.equal(tower(**given).last_hidden_state, before)
            path.rows = [torch.ones(1, LENGTH, WIDTH)] * LAYERS
            path.remove()
            assert torch.equal(tower(**given).last_hidden_state, before)
    assert hash_tensors(tower.state_dict()) == weights
    assert tower.config._attn_implementation == attention
    assert not any("prompt_keys" in vars(module) for module in tower.modules())


def test_two_towers_of_one_configuration_do_not_meet() -> None:
    one, other = small_tower("clip_vision_model", "sdpa"), small_tower("clip_vision_model", "sdpa")
    for module in other.modules():
        if hasattr(module, "config"):
            module.config = one.config
    before = other(**pictures("clip_vision_model")).last_hidden_state
    with installed(TowerPrefixPath(), one, "clip_vision_model", prompts()):
        assert torch.equal(other(**pictures("clip_vision_model")).last_hidden_state, before)


def test_what_prompt_keys_would_be_overlooked_in_is_refused() -> None:
    tower, path = small_tower("siglip_vision_model", "sdpa"), TowerPrefixPath()
    blocks = blocks_of(tower)
    assert takes_prompt_keys(blocks)
    path.install(blocks)
    with pytest.raises(ValueError, match="block 1 has no prompt"):
        path.rows = [torch.ones(1, LENGTH, WIDTH, dtype=torch.float64), *[None] * (LAYERS - 1)]
    path.remove()
    tower.config._attn_implementation = "flash_attention_2"
    assert not takes_prompt_keys(blocks)
    with pytest.raises(BadInputError, match="takes no prompt keys"):
        path.install(blocks)
    tower.config._attn_implementation = "sdpa"
    blocks[2].self_attn.is_causal = True
    assert not takes_prompt_keys(blocks)
    assert not takes_prompt_keys([nn.Linear(2, 2)])
