"""By how much our numbers may differ from a library's, and the refusal where they differ by more."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_m2pt.answering.decoding import refuse_not_finite
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError

LIMITS = {torch.float64: (1e-5, 1e-4), torch.float32: (1e-4, 2e-3), torch.bfloat16: (2e-2, 2e-1)}
"""The smallest and the largest limit, as a share of the size of the library's numbers: trained parts of a float64 base
compute in float32, and rounding in float32 is 1e-5 at most, while what is left out of a model makes 1e-3 and more."""
NOISE = 4.0
"""Between the two, the limit is this many times what the library's own two attention functions differ by on the same
rows: what rounding does depends on the model's depth and on the processor."""

LARGEST_BEHIND_PROMPTS = 0.5
"""The largest limit in bfloat16 behind textual prompts. Random rows in front may take the row away that a decoder's
heads look at where they look for nothing, and rounding then grows thirtyfold: the library's own two attention functions
differ by a quarter (docs/quantised.md). What a pass leaves out is found without the prompts; prompts that are left out
make 1."""
DISTURBANCES = 3
"""How often the rows are disturbed there by what bfloat16 rounds. The two functions share all their matrix products and
may agree by chance: once they differed by 0.06, and the library's own rows by 0.5 where more rows stood behind them."""


def limits_of(backbone: Backbone) -> tuple[float, float]:
    """Returns the limits of the base's type; those of bfloat16 where float32 is multiplied in a shorter type."""
    return LIMITS[computing_type(backbone)]


def rounding_may_grow(backbone: Backbone) -> bool:
    """Tells whether a decoder computes in bfloat16 behind textual prompts."""
    return backbone.attachment.textual_prompts is not None and computing_type(backbone) == torch.bfloat16


def computing_type(backbone: Backbone) -> torch.dtype:
    """Returns the base's type, and bfloat16 where float32 is multiplied in a shorter type."""
    dtype: torch.dtype = getattr(torch, backbone.dtype_name)
    is_short = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return torch.bfloat16 if is_short else dtype


def difference(found: Tensor, expected: Tensor) -> float:
    """Returns the size of the difference as a share of the size of what is expected; infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    expected = expected.cpu().double()  # Apple's GPUs have no float64
    return float((found.cpu().double() - expected).norm() / expected.norm())


def disturbed_by_rounding(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Returns rows whose numbers are off by about as much as rounding to bfloat16 makes them.

    Args:
        rows: Any shape and type; the result has its.
        generator: Of the CPU.
    """
    noise = torch.randn(rows.shape, generator=generator) * torch.finfo(torch.bfloat16).eps / 4
    return rows + rows * noise.to(rows)


@dataclass(frozen=True)
class Comparison:
    """Our numbers against the library's.

    Attributes:
        backbone: Whose they are.
        limit: How much they may differ.
    """

    backbone: Backbone
    limit: float

    def refuse_difference(self, what: str, found: Tensor, expected: Tensor) -> None:
        """Compares what one pass gives.

        Raises:
            BadInputError: If it differs by more than two ways to compute the same do.
            DivergedError: If the library's own numbers are not finite.
        """
        refuse_not_finite([float(expected.cpu().double().norm())])
        size = difference(found, expected)
        if not size <= self.limit:  # NaN is no pass
            raise BadInputError(
                f"our forward pass is not that of {type(self.backbone.decoder()).__name__}: "
                f"{what} differs by {size:.2g} of the numbers' size",
                where="model.backbone",
                expected=f"at most {self.limit:.1g} in {self.backbone.dtype_name}, as the library's own pass gives it",
                hint="lightning_m2pt/backbones/proven_forms.py lists the forms that the fast paths are right for",
            )
