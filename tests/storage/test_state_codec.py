"""Whatever a checkpoint may hold comes back exactly; the rest is refused by its path."""

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.state_codec import TAGS, decode_state, encode_state

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text() | st.integers() | st.sampled_from(sorted(TAGS)) | st.tuples(st.integers(), st.text())
states = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and left.tolist() == right.tolist()
    if isinstance(left, float):
        return repr(left) == repr(right)
    return left == right


def through_a_file(state: Any) -> Any:
    tensors, text = encode_state(state)
    return decode_state(safetensors.torch.load(safetensors.torch.save(tensors)), text)


@given(states)
def test_containers_and_scalars_come_back_exactly(state: Any) -> None:
    assert same(through_a_file(state), state)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 3)])
def test_tensors_come_back_exactly(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape).to(dtype)
    assert same(through_a_file({"a": [tensor]}), {"a": [tensor]})


def test_views_shared_memory_parameters_and_equal_paths_are_stored_apart() -> None:
    base = torch.arange(6.0).reshape(2, 3)
    state = {"a.b": base, "a": {"b": base.T}, "p": torch.nn.Parameter(base)}
    read = through_a_file(state)
    assert same(read, {"a.b": base, "a": {"b": base.T}, "p": base})
    assert not read["p"].requires_grad


def test_an_optimizer_and_its_schedule_come_back() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    parameter.sum().backward()
    optimizer.step()
    schedule.step()
    state = {"optimizer_states": [optimizer.state_dict()], "lr_schedulers": [schedule.state_dict()]}
    assert same(through_a_file(state), state)


def test_an_ordered_dict_comes_back_as_a_dict_in_its_order() -> None:
    assert list(through_a_file(OrderedDict(b=1, a=2))) == ["b", "a"]


@pytest.mark.parametrize(
    "value", [{1, 2}, Path("x"), numpy.float64(1), numpy.zeros(2), b"x", torch.float32, object(), 1j]
)
def test_anything_else_is_refused_by_its_path(value: Any) -> None:
    with pytest.raises(TypeError, match=r"state\.outer\.0\.inner"):
        encode_state({"outer": [{"inner": value}]})


def test_a_key_of_another_type_and_a_sparse_tensor_are_refused() -> None:
    with pytest.raises(TypeError, match="key of type bytes"):
        encode_state({b"key": 1})
    with pytest.raises(TypeError, match="sparse"):
        encode_state([torch.eye(2).to_sparse()])


@pytest.mark.parametrize("text", ["", "{", '{"__tensor__": "missing"}', '{"__tuple__": 3}', '{"__dict__": [[[], 1]]}'])
def test_text_that_does_not_belong_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        decode_state({}, text)
