"""Training state as named tensors and JSON, exactly and without pickle.

JSON knows neither tuples, tensors, non-string keys nor infinities, so these take a tagged form: a JSON object with the
one key ``__tuple__``, ``__tensor__``, ``__dict__`` or ``__float__``. Whatever else a checkpoint may hold is refused by
its path, when it is written rather than when it is needed.
"""

import json
import math
from collections import OrderedDict
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.strict_json import parse_json

Json: TypeAlias = Any
"""What the json module reads and writes."""

TENSOR, TUPLE, DICT, FLOAT = "__tensor__", "__tuple__", "__dict__", "__float__"
TAGS = frozenset({TENSOR, TUPLE, DICT, FLOAT})
PLAIN_TYPES = (type(None), bool, int, str)
KEY_TYPES = (*PLAIN_TYPES, float, tuple)


def encode_state(state: Any) -> tuple[dict[str, Tensor], str]:  # noqa: ANN401  (any nesting of the types above)
    """Splits a state into tensors and JSON text.

    Args:
        state: Nested dicts, lists and tuples of None, bool, int, float, str and tensors.

    Returns:
        Tensors by name (the path they were found at), detached and on the CPU, and the text that names them.

    Raises:
        TypeError: If there is anything else; names its path and type.
    """
    tensors: dict[str, Tensor] = {}
    encoded = _encode(state, "state", tensors)
    return tensors, json.dumps(encoded, allow_nan=False)


def decode_state(tensors: dict[str, Tensor], text: str | bytes, file: object = "state") -> Any:  # noqa: ANN401
    """Puts a state together again; the reverse of ``encode_state``.

    Args:
        tensors: Tensors by name.
        text: The text that names them, or its bytes.
        file: Where the text is from, for errors.

    Raises:
        BadInputError: If text and tensors do not belong together.
    """
    encoded = parse_json(text, file, first_line=0, expected="what encode_state wrote", hint="take an older checkpoint")
    try:
        return _decode(encoded, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"the state does not read back: {error}", where=str(file), expected="what encode_state wrote"
        ) from error


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Json:  # noqa: ANN401
    kind = type(value)  # exact types: a subclass would come back as something else
    if kind in PLAIN_TYPES:
        return value
    if kind is float:
        return value if math.isfinite(value) else {FLOAT: repr(value)}
    if kind is list:
        return [_encode(item, f"{path}.{number}", tensors) for number, item in enumerate(value)]
    if kind is tuple:
        return {TUPLE: [_encode(item, f"{path}.{number}", tensors) for number, item in enumerate(value)]}
    if kind is dict or kind is OrderedDict:
        return _encode_dict(value, path, tensors)
    if kind is Tensor or kind is torch.nn.Parameter:
        return {TENSOR: _add_tensor(value, path, tensors)}
    raise TypeError(
        f"a checkpoint cannot hold {kind.__module__}.{kind.__qualname__} (at {path}): make it a number, text, list, "
        "tuple, dict or tensor"
    )


def _encode_dict(value: dict[Any, Any], path: str, tensors: dict[str, Tensor]) -> Json:
    for key in value:
        if type(key) not in KEY_TYPES:
            raise TypeError(f"a checkpoint cannot hold a key of type {type(key).__qualname__} (at {path})")
    items = [(key, _encode(item, f"{path}.{key}", tensors)) for key, item in value.items()]
    if all(type(key) is str for key in value) and not TAGS & value.keys():
        return dict(items)
    return {DICT: [[_encode(key, path, tensors), item] for key, item in items]}


def _add_tensor(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    if tensor.layout is not torch.strided:
        raise TypeError(f"a checkpoint cannot hold a sparse tensor (at {path})")
    name = path
    while name in tensors:
        name += "'"  # the paths of {"a.b": tensor} and {"a": {"b": tensor}} are the same
    # A copy, because safetensors refuses views and tensors that share memory.
    tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return name


def _decode(value: Json, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1 or not TAGS & value.keys():
        return {key: _decode(item, tensors) for key, item in value.items()}
    ((tag, content),) = value.items()
    if tag == TENSOR:
        return tensors[content]
    if tag == FLOAT:
        return float(content)
    if tag == TUPLE:
        return tuple(_decode(item, tensors) for item in content)
    return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
