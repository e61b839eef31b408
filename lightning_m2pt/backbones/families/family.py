"""What the project has to know of a family of whole vision-language models of transformers; the model does the rest.

A family is a descriptor: where the library's own class keeps its tower, connector and decoder, which of its
configurations are proven, and what becomes of a picture's rows behind the connector. No forward pass is written anew.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.connected_rows import ConnectedRows
from lightning_m2pt.inputs.batch import Batch, Span
from lightning_m2pt.inputs.picture_map import PictureMap, assembled, one_square
from lightning_m2pt.inputs.picture_rules.one_tile import OneTile
from lightning_m2pt.inputs.picture_rules.rules import PictureRules


class RowsGiven(Exception):
    """Carries the rows that a module was given, out of the pass that stops there."""

    def __init__(self, module: nn.Module, rows: Tensor) -> None:
        super().__init__()
        self.module, self.rows = module, rows


@dataclass(frozen=True)
class TowerForm:
    """What a family takes from its tower.

    Attributes:
        used_blocks: Blocks whose output something depends on; those behind them are counted but not trained.
        has_cls: Whether row 0 of the tower is CLS.
        patches: Patches of one tile, without CLS.
        rows_behind_connector: What the connector makes of them.
        image_size: Side of a tile; where every picture has a grid of its own, of a picture that sizes are told of.
        unused: Modules of the tower that nothing depends on, if there are such, besides blocks behind the used.
    """

    used_blocks: int
    has_cls: bool
    patches: int
    rows_behind_connector: int
    image_size: int
    unused: tuple[str, ...] = ()


class Family(ABC):
    """Base class of descriptors; each has one object, without state.

    Attributes:
        architecture: The class of transformers, as configuration files name it.
        model_type: Its ``model_type``.
        tower: Where the model keeps its tower.
        blocks: Where the tower keeps its blocks.
        connector: Where the model keeps its connector.
        decoder: Where it keeps its language model without the head.
        towers: Proven ``model_type`` of the tower's configuration.
        renamed: Beginnings of tensors' names in published files, and what they are in the library's model today.
        raw_rows_refused: Why no raw prompt row can go through the connector; empty: they can.
        visual_prompts_refused: Why the tower takes no prompt rows; empty: it does.
        has_three_axes: Whether the decoder's positions have three axes.
        has_gated_tower: Whether the tower's blocks have gated MLPs and norms in float32, as the decoder's have.
    """

    architecture: str
    model_type: str
    tower: str
    blocks: str = "encoder.layers"
    connector: str
    decoder: str
    towers: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...] = ()
    raw_rows_refused: str = ""
    visual_prompts_refused: str = ""
    has_three_axes: bool = False
    has_gated_tower: bool = False

    @abstractmethod
    def check(self, content: Mapping[str, Any], path: Path) -> None:
        """Looks at what the family's ``config.json`` says beside tower and language model.

        Raises:
            BadInputError: At the first key that is not proven.
        """

    @abstractmethod
    def tower_form(self, config: Any) -> TowerForm:  # noqa: ANN401  (transformers' configuration)
        """Returns what is taken from the tower.

        Args:
            config: The library's configuration of the whole model, which has passed ``check``.
        """

    def picture_tokens(self, config: Any) -> tuple[int, ...]:  # noqa: ANN401
        """Returns the tokens that stand for pictures in the model's own texts."""
        return (config.image_token_id,)

    def tokens_around_picture(self, config: Any) -> tuple[int, ...]:  # noqa: ANN401
        """Returns the two tokens that a layout has around a picture and the model's chat template writes, too."""
        return ()

    def picture_rules(self, config: Any, image_processor: Any, tokenizer: Any) -> PictureRules:  # noqa: ANN401
        """Returns how pictures become pixels and rows; here each is one tile and one run of rows.

        Args:
            config: The library's configuration of the whole model.
            image_processor: The library's.
            tokenizer: The model's.

        Raises:
            BadInputError: If the image processor or the tokenizer does not fit the model.
        """
        del tokenizer
        return OneTile(image_processor, config.vision_config.image_size, self.tower_form(config).rows_behind_connector)

    def picture_map(self, config: Any, size: tuple[int, ...] | None) -> PictureMap:  # noqa: ANN401
        """Returns where the rows of a picture of this ``picture_sizes`` lie in it; here each is one tile."""
        del size
        form, tower = self.tower_form(config), config.vision_config
        joined = math.isqrt(form.patches // form.rows_behind_connector)
        return one_square(tower.image_size, tower.patch_size, joined)

    def shown_pixels(self, config: Any, pixels: Tensor, size: tuple[int, ...] | None) -> Tensor:  # noqa: ANN401
        """Returns (3, H, W) what the tower reads of one picture, put together as one; the size is its map's.

        Args:
            config: The library's configuration of the whole model.
            pixels: As in ``Batch``, of this picture alone.
            size: Its ``picture_sizes``.
        """
        return assembled(self.picture_map(config, size), pixels)

    def order_in_tower(self, config: Any, picture_sizes: Tensor) -> Tensor | None:  # noqa: ANN401
        """Returns (N,) for every row of the tower's blocks its number among the patches of all pictures, line by line.

        None: blocks read tiles one beside the other, each of them line by line.

        Args:
            config: The library's configuration of the whole model.
            picture_sizes: As in ``Batch``.
        """
        del config, picture_sizes
        return None

    def invented_pictures(
        self,
        config: Any,  # noqa: ANN401
        number: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the pixels of so many random pictures, and their sizes; here each is one tile."""
        size = self.tower_form(config).image_size
        return torch.randn(number, 3, size, size, generator=generator), None

    def whole_model_inputs(self, model: Any, ids: Tensor, mask: Tensor, batch: Batch) -> dict[str, Tensor] | None:  # noqa: ANN401
        """Returns what the library's whole model is given of texts with pictures, its own positions among it.

        None: what becomes of a picture behind the tower is compared in no other way than by the tower's rows.

        Args:
            model: The library's whole model.
            ids: (B, S) int64 with the picture's token once for every row of a picture, padded on the right.
            mask: (B, S) int64, 1 where there is no padding.
            batch: The same texts as we read them.
        """
        del model, ids, mask, batch
        return None

    def text_as_proven(self, text: dict[str, Any], path: Path) -> dict[str, Any]:
        """Returns the language model's configuration in the words of the proven form that it is.

        Args:
            text: As the library completes it.
            path: The file, for messages.

        Raises:
            BadInputError: If it is no such form.
        """
        del path
        return text

    def vision_as_proven(self, vision: dict[str, Any]) -> dict[str, Any]:
        """Returns the tower's configuration in the words that most towers have for sizes."""
        return vision

    def give_tables(self, model: Any) -> None:  # noqa: ANN401
        """Makes tables of the tower that no file holds and that were built without memory; here there are none."""
        del model

    @abstractmethod
    def connected(
        self,
        model: Any,  # noqa: ANN401
        pixel_values: Tensor,
        picture_sizes: Tensor | None,
        backbone: Backbone,
    ) -> ConnectedRows:
        """Returns the rows of pictures in the decoder's width.

        Args:
            model: The library's whole model.
            pixel_values: As in ``Batch``, of at least one picture.
            picture_sizes: As in ``Batch``.
            backbone: Whose model it is, with what is attached.
        """

    @abstractmethod
    def run_lengths(self, model: Any, tiles: Tensor, picture_sizes: Tensor | None) -> list[int]:  # noqa: ANN401
        """Returns how many rows each run has.

        Args:
            model: The library's whole model.
            tiles: (tiles, N, D) without numbers, what the connector would make; for a grid its patches count alone.
            picture_sizes: As in ``Batch``.
        """


class TiledFamily(Family):
    """A family whose tower reads tiles of one size, each by itself."""

    @abstractmethod
    def tower_states(self, model: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Runs the library's tower and returns its rows as the connector reads them, CLS in front if there is one.

        Args:
            model: The library's whole model.
            pixel_values: (tiles, 3, H, W).

        Returns:
            (tiles, N, D_vision).
        """

    def placed(
        self,
        model: Any,  # noqa: ANN401
        rows: Tensor,
        spans: Sequence[Span],
        picture_sizes: Tensor | None,
    ) -> ConnectedRows:
        """Lays the connector's rows out as the placeholders take them; here every tile is one placeholder's.

        Args:
            model: The library's whole model.
            rows: (tiles, N, D) behind the connector.
            spans: The name of each of the N.
            picture_sizes: (I, k) what the family knows of each picture besides pixels.
        """
        del model, picture_sizes
        return ConnectedRows.of_alike(rows, spans)

    @override
    def connected(
        self,
        model: Any,
        pixel_values: Tensor,
        picture_sizes: Tensor | None,
        backbone: Backbone,
    ) -> ConnectedRows:
        visual = backbone.visual_rows(pixel_values)
        return self.placed(model, backbone.connect(visual.rows), visual.spans, picture_sizes)

    @override
    def run_lengths(self, model: Any, tiles: Tensor, picture_sizes: Tensor | None) -> list[int]:
        return self.placed(model, tiles, [Span.PATCH] * tiles.shape[1], picture_sizes).counts


def module_at(model: nn.Module, place: str) -> Any:  # noqa: ANN401
    """Returns the module of that dotted name."""
    return model.get_submodule(place)


def rows_given_to(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """Returns what a module is given in a pass, which ends there.

    Raises:
        RuntimeError: If the pass does not call the module.
    """

    def stop_here(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        raise RowsGiven(module, given[0])

    # In front of torch's own hook, which would gather a module whose weights are shared out, and never give it up.
    handle = module.register_forward_pre_hook(stop_here, prepend=True)
    try:
        run()
    except RowsGiven as given:
        if given.module is not module:
            raise
        return given.rows
    finally:
        handle.remove()
    raise RuntimeError(f"{type(module).__name__} was not called")
