"""DoRA's norms of whole weights, kept from one pass without gradients to the next while no number of them changes.

peft takes them anew in every pass, however few its rows are: B A as a matrix of the weight's size, and the length of
each row of their sum. Every batch of a validation and every token of an answer is such a pass. peft's own cache, off by
default, keeps these matrices, too, and is emptied where a layer is put into training mode, which ours never are.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class KeptNorm:
    """Puts itself in front of what one of peft's DoRA layers computes; every number is peft's, bit for bit.

    A pass with gradients keeps nothing and forgets what was kept. Between others the norm is kept for the very same
    tensors as long as torch has counted no change of them in place. A change that it does not count, written through
    ``.data``, is not seen before the next pass with gradients.

    Args:
        dora: The layer of peft that holds the lengths.
    """

    def __init__(self, dora: Any) -> None:  # noqa: ANN401
        self._pass, self._product, self._length = dora.forward, dora.get_lora_weight, dora.get_weight_norm
        self._norm: Tensor | None = None
        self._state: list[object] = []
        self._parameters: list[nn.Parameter] = []  # held: while they are there, nothing else has their identity
        dora.forward, dora.get_lora_weight, dora.get_weight_norm = self.forward, self.product, self.norm

    def forward(
        self,
        x: Tensor,
        *,
        lora_A: nn.Linear,
        lora_B: nn.Linear,
        scaling: float,
        base_layer: Any,  # noqa: ANN401
        base_result: Tensor | None = None,
        adapter_name: str = "default",
    ) -> Tensor:
        """Returns what peft's layer adds to the frozen one's output."""
        parameters = [parameter for layer in (lora_A, lora_B, base_layer) for parameter in layer.parameters()]
        state = [] if is_recorded(parameters) else [*numerics(x), scaling, *map(version, parameters)]
        if not state or state != self._state:
            self._norm = None
        self._state, self._parameters = state, parameters if state else []
        if self._norm is not None and base_result is not None:
            # Nothing but the bias is wanted of it: no weight is unpacked, or made float32.
            base_layer = SimpleNamespace(bias=base_layer.bias, weight=x.new_empty(0))
        added: Tensor = self._pass(
            x,
            lora_A=lora_A,
            lora_B=lora_B,
            scaling=scaling,
            base_layer=base_layer,
            base_result=base_result,
            adapter_name=adapter_name,
        )
        return added

    def product(self, lora_A: nn.Linear, lora_B: nn.Linear, adapter_name: str | None = None) -> Tensor:
        """Returns B A as a matrix, or anything where the norm is kept: it is wanted for that alone."""
        if self._norm is not None and adapter_name is not None:
            return lora_B.weight
        return self._product(lora_A, lora_B, adapter_name=adapter_name)  # type: ignore[no-any-return]

    def norm(self, weight: Tensor, lora_weight: Tensor, scaling: float, adapter_name: str | None = None) -> Tensor:
        """Returns the lengths of the changed weight's rows; peft merges without the adapter's name, and anew."""
        if adapter_name is None:
            return self._length(weight, lora_weight, scaling)  # type: ignore[no-any-return]
        if self._norm is not None:
            return self._norm
        found: Tensor = self._length(weight, lora_weight, scaling, adapter_name=adapter_name)
        if self._state:
            self._norm = found
        return found


def is_recorded(parameters: list[nn.Parameter]) -> bool:
    """Tells whether a pass has gradients or is compiled, or torch does not count the changes of a parameter."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return True
    return any(parameter.is_inference() for parameter in parameters)


def numerics(rows: Tensor) -> tuple[object, ...]:
    """Returns what decides the types that a layer computes in."""
    kind = rows.device.type
    return rows.dtype, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


def version(parameter: nn.Parameter) -> tuple[object, ...]:
    """Returns what differs once a parameter is another one, has moved, or was changed in place."""
    return id(parameter), parameter.data_ptr(), parameter.device, parameter.dtype, parameter._version
