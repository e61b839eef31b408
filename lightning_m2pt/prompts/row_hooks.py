"""Hooks by which learned rows reach a library's own layers."""

from collections.abc import Sequence

from torch import Tensor
from torch.utils.hooks import RemovableHandle


class RowHooks:
    """Hooks on a model's layers that read the rows of the forward pass that last ran.

    Attributes:
        rows: For every layer its rows, or None; empty if layers shall compute as the library wrote them.
    """

    def __init__(self) -> None:
        self.rows: Sequence[Tensor | None] = ()
        self._handles: list[RemovableHandle] = []

    def remove(self) -> None:
        """Takes the hooks away again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.rows = ()
