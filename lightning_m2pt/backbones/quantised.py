"""Frozen linear layers of a decoder in four or eight bits: packed while they are read, unpacked where they multiply.

What is quantised is every linear layer inside the decoder's layers; embedding, head, norms, biases, connector and tower
stay in the backbone's type. A layer multiplies by its *dequantised* weight in the type of the rows it is given, so a
quantised base is exactly the plain base that has the dequantised weights, forward and backward, whatever the type.

bitsandbytes packs and unpacks; its own layer is not taken. On processors with bfloat16 instructions that layer repacks
its weight in place at the first pass without gradients and rounds its scales, and its CPU kernel (0.50) is wrong for
rows that are a multiple of 16 and not of 64 numbers long, unless the weight is handed over as one long row.
"""

import functools
import hashlib
import logging
import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.system.hidden_modules import hidden_module

Quantization: TypeAlias = Literal["nf4", "int8"]
"""``nf4``: the sixteen values of QLoRA (Dettmers et al., NeurIPS 2023), a float32 scale for every 64 numbers, not
quantised again. ``int8``: whole numbers from -127 to 127, a float32 scale for every output (weights alone)."""

BLOCK = 64
"""Numbers that share a scale in nf4."""
LARGEST_INT8 = 127
WEIGHT, PACKED, SCALES = "weight", "packed", "scales"


class QuantisedLinear(nn.Linear):
    """A frozen linear layer whose weight is kept packed.

    Args:
        in_features: Width of its input.
        out_features: Width of its output.
        bias: Whether it has one, which is not quantised.
        quantization: How its weight is packed.
        dtype: Type of the bias.

    Attributes:
        packed: uint8 (numbers / 2, 1) of two numbers each in nf4, row by row; int8 (out, in).
        scales: float32, (blocks,) in nf4, (out, 1) in int8.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool, quantization: Quantization, dtype: torch.dtype
    ) -> None:
        nn.Module.__init__(self)  # not the parent's, which would make a weight
        self.in_features, self.out_features, self.quantization = in_features, out_features, quantization
        self.numbers = in_features * out_features
        if quantization == "nf4":
            packed = torch.empty(self.numbers // 2, 1, dtype=torch.uint8)
            scales = torch.empty(math.ceil(self.numbers / BLOCK))
        else:
            packed = torch.empty(out_features, in_features, dtype=torch.int8)
            scales = torch.empty(out_features, 1)
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.scales = nn.Parameter(scales.float(), requires_grad=False)
        own_bias = nn.Parameter(torch.empty(out_features, dtype=dtype), requires_grad=False) if bias else None
        self.register_parameter("bias", own_bias)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The dequantised weight, (out, in) float32, made anew each time: for what looks at a layer, not for passes."""
        return self.dequantised(torch.float32)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """Returns the weight (out, in) that the layer multiplies by in this type: the float32 one, rounded to it."""
        if self.quantization == "int8":
            return (self.packed * self.scales).to(dtype)
        functions = bitsandbytes_functions()
        known = dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else torch.float32
        one_row = torch.Size((1, self.numbers))
        state = functions.QuantState(self.scales, shape=one_row, dtype=known, blocksize=BLOCK, quant_type="nf4")
        flat: Tensor = functions.dequantize_4bit(self.packed, state)
        return flat.view(self.out_features, self.in_features).to(dtype)

    def forward(self, rows: Tensor) -> Tensor:
        """Maps (..., in) to (..., out) in the type of the rows."""
        if torch.is_grad_enabled() and rows.requires_grad:
            return Product.apply(rows, self)  # type: ignore[no-untyped-call, no-any-return]
        return product(rows, self)

    def extra_repr(self) -> str:
        """Returns what the layer's line says."""
        return f"{super().extra_repr()}, quantization={self.quantization}"

    def kept_bytes(self) -> int:
        """Returns the bytes of the packed weight and its scales."""
        return self.packed.numel() * self.packed.itemsize + self.scales.numel() * self.scales.itemsize

    def unpacked_bytes(self, dtype: torch.dtype) -> int:
        """Returns the bytes that a product in this type needs for as long as it lasts."""
        passes_float32 = dtype == torch.float64 or (self.quantization == "int8" and dtype != torch.float32)
        return self.numbers * (dtype.itemsize + 4 * passes_float32)


class Product(torch.autograd.Function):
    """A layer's product that keeps nothing for the backward pass, which unpacks the weight again."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layer: QuantisedLinear) -> Tensor:  # noqa: ANN401  # type: ignore[override]
        """Returns (..., out) of rows (..., in)."""
        ctx.layer = layer
        return product(rows, layer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401  # type: ignore[override]
        """Returns the gradient of the rows; weight and bias are frozen."""
        return gradient @ ctx.layer.dequantised(gradient.dtype), None


def product(rows: Tensor, layer: QuantisedLinear) -> Tensor:
    """Multiplies rows by the dequantised weight and adds the bias."""
    return nn.functional.linear(rows, layer.dequantised(rows.dtype), layer.bias)


def packed_tensors(name: str, weight: Tensor, quantization: Quantization) -> dict[str, Tensor]:
    """Returns what stands in a state in the place of a linear layer's weight.

    Args:
        name: The weight's, ending in ``weight``.
        weight: (out, in), of any real type; it is packed from float32, so that the result is the same in every type.
        quantization: How.
    """
    owner = name.removesuffix(WEIGHT)
    numbers = weight.to(torch.float32)
    if quantization == "int8":
        scales = numbers.abs().amax(dim=1, keepdim=True) / LARGEST_INT8
        # A row of zeros has no scale; whatever it is divided by, it stays zero.
        packed = torch.round(numbers / torch.where(scales > 0, scales, 1.0)).to(torch.int8)
        return {f"{owner}{PACKED}": packed, f"{owner}{SCALES}": scales}
    with torch.device(weight.device):
        packed, state = bitsandbytes_functions().quantize_4bit(numbers, blocksize=BLOCK, quant_type="nf4")
    return {f"{owner}{PACKED}": packed, f"{owner}{SCALES}": state.absmax}


def quantise_layers(model: nn.Module, layers: Iterable[nn.Module], quantization: Quantization) -> None:
    """Puts a layer that keeps its weight packed in the place of every linear layer inside a decoder's layers.

    Args:
        model: Built on the meta device.
        layers: The decoder's, somewhere inside it.
        quantization: How weights are packed.

    Raises:
        BadInputError: If a weight cannot be packed in this way.
    """
    inside = {id(module) for layer in layers for module in layer.modules()}
    found = [(n, each) for n, each in model.named_modules() if type(each) is nn.Linear and id(each) in inside]
    for name, linear in found:
        if quantization == "nf4" and linear.weight.numel() % 2:
            raise BadInputError(
                f"{name} has {linear.weight.numel():,} numbers, which are no pairs",
                where="model.backbone.quantization",
                expected="int8, or null",
            )
        with torch.device("meta"):
            packed = QuantisedLinear(
                linear.in_features, linear.out_features, linear.bias is not None, quantization, linear.weight.dtype
            )
        model.set_submodule(name, packed)


def quantised_layers(model: nn.Module) -> Iterator[QuantisedLinear]:
    """Yields the layers of a model that keep their weight packed."""
    return (module for module in model.modules() if isinstance(module, QuantisedLinear))


def quantised_layers_by_name(model: nn.Module) -> dict[str, QuantisedLinear]:
    """Returns the layers of a model that keep their weight packed, by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantisedLinear)}


def parameter_count(model: nn.Module) -> int:
    """Returns how many numbers a model has: packed ones as what they stand for, scales not counted."""
    plain = sum(int(parameter.numel()) for parameter in model.parameters())
    packed = sum(layer.packed.numel() + layer.scales.numel() for layer in quantised_layers(model))
    return plain - packed + sum(layer.numbers for layer in quantised_layers(model))


def bytes_of_quantised(model: nn.Module, numbers: int, dtype: torch.dtype) -> int:
    """Returns what a model takes with the largest weight that is unpacked at a time.

    Args:
        model: Holds the packed layers.
        numbers: How many numbers the whole has, packed ones among them.
        dtype: Type of all that is not packed.
    """
    layers = list(quantised_layers(model))
    plain = numbers - sum(layer.numbers for layer in layers)
    unpacked = max((layer.unpacked_bytes(dtype) for layer in layers), default=0)
    return plain * dtype.itemsize + sum(layer.kept_bytes() for layer in layers) + unpacked


def quantised_fingerprint(fingerprint: str, quantization: Quantization | None) -> str:
    """Returns what names a base whose layers are packed, from what names its files; the same if they are not.

    Args:
        fingerprint: A version with a colon, and a hash.
        quantization: How.
    """
    if quantization is None:
        return fingerprint
    version, colon, digest = fingerprint.rpartition(":")
    return version + colon + hashlib.sha256(f"{digest} {quantization}".encode()).hexdigest()


def refuse_missing_package(quantization: Quantization | None) -> None:
    """Looks whether what packs weights is installed.

    Raises:
        EnvironmentFailure: If it is not.
    """
    if quantization != "nf4":
        return
    try:
        bitsandbytes_functions()
    except ImportError as error:
        raise EnvironmentFailure(
            f"bitsandbytes cannot be imported ({error})",
            where="model.backbone.quantization",
            expected="the package that packs weights in nf4; int8 needs none",
            hint="pip install -c constraints.txt -e '.[quantised]'",
        ) from error


@functools.cache
def bitsandbytes_functions() -> Any:  # noqa: ANN401  (the library has no types)
    """Returns the module that packs and unpacks.

    Where a package named ``kernels`` is installed, importing bitsandbytes on some processors fetches code from the hub
    and runs it: that package is hidden meanwhile, and the warning that it is missing is not shown.
    """
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    was_disabled, log.disabled = log.disabled, True
    try:
        with hidden_module("kernels"), torch.device("cpu"):  # under the meta device its tables would have no numbers
            import bitsandbytes.functional
    finally:
        log.disabled = was_disabled
    return bitsandbytes.functional
