"""How a backbone of several parts gets its numbers: built without memory, shared out if need be, then filled."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from lightning_m2pt.backbones.causal_decoding import CausalDecoding
from lightning_m2pt.backbones.filling.unfilled import Unfilled, nothing_more


class FilledFromFiles(CausalDecoding, ABC):
    """A backbone whose modules are all built on the meta device before any tensor is read."""

    @abstractmethod
    def build_unfilled(self) -> list[Unfilled]:
        """Builds all modules on the meta device in their final types; returns what each is filled with, in order."""

    @abstractmethod
    def finish(self) -> None:
        """Puts the filled modules into their frozen state."""

    def load(self) -> None:
        """Builds the modules and loads the frozen weights in ``dtype``, each tensor straight to torch's device."""
        self.load_in_shares(nothing_more)

    def load_in_shares(self, share_out: Callable[[], None]) -> None:
        """Does what ``load`` does; of a module that was shared out only this process's share is read."""
        if self.is_loaded:
            return
        self.check_files()
        parts = self.build_unfilled()
        share_out()
        for part in parts:
            part.fill()
        self.finish()
