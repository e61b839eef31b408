"""Modules that were built without memory, and the stored tensors that belong into them; read one at a time.

A tensor goes from the mapped file to where it stays, on the device that is torch's default at that moment, in the type
it is computed in. Where a strategy has shared the module out before, only the rows that this process holds are read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.filling.shares import hold, share_of
from lightning_m2pt.backbones.quantised import WEIGHT, Quantization, packed_tensors, quantised_layers_by_name
from lightning_m2pt.backbones.weight_files import Portion, Stored, read_portions, stored_are_equal
from lightning_m2pt.errors import BadInputError


def nothing_more() -> None:
    """Makes no tables: most modules have none that no file holds."""


@dataclass(frozen=True)
class Unfilled:
    """A module on the meta device, in its final type, and what it is filled with.

    Attributes:
        module: The module.
        stored: Its stored tensors by their names in the files; they are exactly the module's, packed ones unpacked.
        names: For each of these names the one in the module.
        dtype: Type of the numbers.
        where: File or folder, for messages.
        twin: A name in the module and that of the tensor which stands there as well: a tied head and the embedding.
        give_tables: Makes what no file holds and was built without memory.
    """

    module: Any
    stored: Stored
    names: Mapping[str, str]
    dtype: torch.dtype
    where: Path
    twin: tuple[str, str] | None = None
    give_tables: Callable[[], None] = nothing_more

    def fill(self) -> Any:  # noqa: ANN401  (a library's module)
        """Reads every tensor once, or the rows of it that this process holds, and returns the module.

        Raises:
            BadInputError: If one is not finite, a tied head has weights of its own, or a table stands nowhere.
        """
        self._refuse_other_twin()
        packs = quantised_layers_by_name(self.module)
        held = self.module.state_dict(keep_vars=True)
        twin = self.twin[0] if self.twin else None
        portions = {}
        for name, own in self.names.items():
            if own == twin:
                continue
            is_packed = own.removesuffix(f".{WEIGHT}") in packs
            portions[name] = Portion.to_pack() if is_packed else Portion(self.dtype, share_of(held[own]).rows)
        for name, tensor in read_portions(self.stored, portions, self.dtype):
            own = self.names[name]
            layer = packs.get(own.removesuffix(f".{WEIGHT}"))
            if layer is None:
                put(self.module, own, held[own], tensor)
            else:
                put_packed(self.module, own, held, tensor, layer.quantization)
            del tensor  # or a weight that was packed would still be there while the next one is read
        if self.twin is not None:
            tie(self.module, *self.twin)
        self.give_tables()
        refuse_without_numbers(self.module, self.where)
        return self.module.eval()

    def _refuse_other_twin(self) -> None:
        """Compares a tied head that has a tensor of its own with the embedding.

        Raises:
            BadInputError: If they differ.
        """
        if self.twin is None:
            return
        of_name = {own: name for name, own in self.names.items()}
        head, embedding = (of_name.get(own) for own in self.twin)
        if head is None or embedding is None or stored_are_equal(self.stored, head, embedding, self.dtype):
            return
        raise BadInputError(
            f"{self.twin[0]} is not {self.twin[1]}, which tie_word_embeddings says it is",
            where=str(self.where),
            expected="one of the two, or tie_word_embeddings: false",
        )


def put(module: nn.Module, name: str, held: Tensor, rows: Tensor) -> None:
    """Puts the rows of a tensor in its place."""
    owner, _, leaf = name.rpartition(".")
    share_of(held).put(module.get_submodule(owner), leaf, rows)


def put_packed(
    module: nn.Module, name: str, held: Mapping[str, Tensor], weight: Tensor, quantization: Quantization
) -> None:
    """Packs a weight and puts the rows of what is packed, and of its scales, in their places."""
    for part, packed in packed_tensors(name, weight, quantization).items():
        rows = share_of(held[part]).rows
        kept = packed if rows is None else packed[rows].clone()
        put(module, part, held[part], kept.to(torch.get_default_device()))


def tie(module: nn.Module, name: str, other: str) -> None:
    """Lets a module hold one parameter under two names."""
    owner, _, leaf = name.rpartition(".")
    parameter = module.get_parameter(other)
    if module.get_parameter(name) is not parameter:
        hold(module.get_submodule(owner), leaf, parameter)


def refuse_without_numbers(module: nn.Module, where: Path) -> None:
    """Refuses a module of which something is still without memory.

    Raises:
        BadInputError: Naming it.
    """
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if left:
        raise BadInputError(
            f"{', '.join(left)} has no numbers: neither a file nor the configuration gives them",
            where=str(where),
            expected="a model whose tables follow from its configuration",
        )
