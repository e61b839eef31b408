"""What the project has to know of a kind of vision tower that lies in a folder; its library does the rest."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.filling.unfilled import Unfilled
from lightning_m2pt.backbones.weight_files import Stored, compare_tensors, shapes_of
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.processing import Interpolation, ResizeRule
from lightning_m2pt.prompts.prefix_path import VisionPrefixPath
from lightning_m2pt.prompts.tower_rows import TowerPrefixPath

KEY = "model.backbone.vision_tower"


@dataclass(frozen=True)
class TowerSizes:
    """Sizes of a tower.

    Attributes:
        layers: Its blocks.
        width: Numbers of a row.
        patch_size: Side of a patch in pixels.
        image_size: Side in pixels of the pictures that its positions were learned for.
        mlp_width: Rows of the first matrix of a block's MLP.
        quick_gelu: Whether the MLP keeps two widths for its activation.
        rows_in_front: Rows that stand in front of the patches: CLS, which is the first, and registers.
    """

    layers: int
    width: int
    patch_size: int
    image_size: int
    mlp_width: int
    quick_gelu: bool
    rows_in_front: int


@dataclass(frozen=True)
class PictureRule:
    """How a picture becomes what the tower reads; as for ``Processor``.

    Attributes:
        library_class: The image processor of transformers that does it; empty: ``Processor`` does.
        library_settings: Its settings.
        library_sizes: Its sizes.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation
    resize: ResizeRule
    library_class: str = ""
    library_settings: Mapping[str, Any] = field(default_factory=dict)
    library_sizes: Mapping[str, Any] = field(default_factory=dict)

    def library_processor(self) -> Any:  # noqa: ANN401
        """Returns the image processor of transformers, in the make that the library takes by itself."""
        import transformers

        return getattr(transformers, self.library_class)(**self.library_settings, **self.library_sizes)


class Tower(ABC):
    """Base class of the kinds of towers. Constructors read and check configurations, never weights.

    Attributes:
        folder: Where configuration and weights lie.
        sizes: Its sizes.
        pictures: How pictures are prepared for it.
        described: What the configuration says as far as it decides numbers.
        prefix_refused: Why prompts cannot be keys and values in its blocks; empty: they can.
        norm_refused: Why there is no norm behind the last block that features could go through; empty: there is one.
    """

    folder: Path
    sizes: TowerSizes
    pictures: PictureRule
    described: Mapping[str, Any]
    prefix_refused: str = ""
    norm_refused: str = ""

    @abstractmethod
    def weights(self) -> list[Path]:
        """Returns the weight files that there are."""

    @abstractmethod
    def on_meta(self, dtype: torch.dtype | None = None) -> Any:  # noqa: ANN401  (the library's module)
        """Builds the library's tower without memory."""

    @abstractmethod
    def stored(self) -> Stored:
        """Returns the tower's stored tensors by their names in the files.

        Raises:
            BadInputError: If a file cannot be read.
        """

    @abstractmethod
    def name_in_module(self, name: str, known: Mapping[str, Any]) -> str:
        """Returns what the library's tower calls a stored tensor.

        Args:
            name: Its name in the file.
            known: What the library's tower has, by name.
        """

    @abstractmethod
    def blocks(self, module: Any) -> list[nn.Module]:  # noqa: ANN401
        """Returns all blocks."""

    @abstractmethod
    def embedded(self, module: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Returns (B, F + N, D): what the first block reads of pictures, F rows in front."""

    @abstractmethod
    def run_block(self, block: Any, states: Tensor, named: Mapping[str, Any]) -> Tensor:  # noqa: ANN401
        """Runs one block as the library does; ``named`` is what ``for_blocks`` returned for these pictures."""

    @abstractmethod
    def norm(self, module: Any) -> nn.Module:  # noqa: ANN401
        """Returns the norm behind the last block."""

    @abstractmethod
    def run(self, module: Any, pixel_values: Tensor) -> object:  # noqa: ANN401
        """Runs the library's own forward pass over pictures."""

    @abstractmethod
    def unused(self, used_blocks: int, *, normed: bool) -> tuple[str, ...]:
        """Returns beginnings of names of tensors that features do not depend on.

        Args:
            used_blocks: How many blocks run.
            normed: Whether the features go through the last norm.
        """

    def for_blocks(self, module: Any, pixel_values: Tensor) -> dict[str, Any]:  # noqa: ANN401
        """Returns what every block reads of pictures besides its rows."""
        del module, pixel_values
        return {}

    def prefix_path(self) -> TowerPrefixPath | VisionPrefixPath:
        """Returns the way in which prompts are keys and values; only asked for where ``prefix_refused`` is empty."""
        return TowerPrefixPath()

    def uncounted(self) -> tuple[str, ...]:
        """Returns beginnings of names of tensors that are no part of a vision-language model, and not counted."""
        return ()

    def give_tables(self, module: nn.Module) -> None:  # noqa: B027  (most towers have none)
        """Makes what no file holds and was built without memory."""

    def check(self) -> None:
        """Compares the headers of the weight files with the tower that the configuration describes.

        Raises:
            BadInputError: If tensors are missing, left over, or of another shape or type.
        """
        self._named(self.on_meta())

    def load(self, dtype: torch.dtype) -> Any:  # noqa: ANN401
        """Reads the tower strictly: no tensor of it is drawn at random, and none that is the tower's is left unread.

        Raises:
            BadInputError: If tensors are not exactly the tower's, or not finite, or a table stands nowhere.
        """
        return self.unfilled(dtype).fill()

    def unfilled(self, dtype: torch.dtype) -> Unfilled:
        """Builds what ``load`` reads, without memory.

        Raises:
            BadInputError: If stored tensors are not exactly the tower's.
        """
        module = self.on_meta(dtype)
        stored, names = self._named(module)
        return Unfilled(module, stored, names, dtype, self.folder, give_tables=partial(self.give_tables, module))

    def _named(self, module: nn.Module) -> tuple[Stored, dict[str, str]]:
        """Returns the stored tensors, and for each name in the files the one in the module."""
        stored, wanted = self.stored(), shapes_of(module)
        names = {name: self.name_in_module(name, wanted) for name in stored}
        if len(set(names.values())) < len(names):
            twice = sorted(own for own in names.values() if list(names.values()).count(own) > 1)
            raise BadInputError(
                f"{twice[0]} stands there under two names", where=str(self.folder), expected="every tensor once"
            )
        compare_tensors(wanted, {names[name]: one for name, one in stored.items()}, self.folder)
        return stored, names
