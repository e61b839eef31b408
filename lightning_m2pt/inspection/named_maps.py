"""Maps of attention under the names of what their rows are: sample by sample, picture by picture, tile by tile."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.picture_map import PictureMap
from lightning_m2pt.prompts.attachment import Attachment

Pieces: TypeAlias = tuple[Tensor, ...]
"""Maps (B, H, R, C) of the pieces that a module cuts its rows into, most often one."""


@dataclass(frozen=True)
class LayerAttention:
    """The attention of one layer for one sample.

    Attributes:
        layer: Its number, from 0.
        probabilities: (H, R, C) on the CPU: for every head and query row how much each column gets; rows sum to 1.
            Learned keys are columns without rows and stand in front: the rows are those of the last R columns.
        spans: (C,) int64, the ``Span`` of every column.
        prompts: How many prompt rows stand at the front; what the layer makes of them is replaced at the next layer,
            but for shallow prompts, whose rows flow on.
    """

    layer: int
    probabilities: Tensor
    spans: Tensor
    prompts: int


@dataclass(frozen=True)
class SampleAttention:
    """All attention of one sample.

    Attributes:
        language: The decoder's layers: learned keys, textual prompts, then text with the image's rows in their place.
        vision: For each tile of each of its pictures the tower's layers: visual prompts, CLS, patches line by line.
            Blocks behind the features are never computed and so are not among them. Where a block cuts a picture into
            windows, a row gives nothing to the columns of other windows.
        pictures: Where the patches of every tile, and the language model's rows, lie in each of its pictures.
    """

    language: tuple[LayerAttention, ...]
    vision: tuple[tuple[LayerAttention, ...], ...]
    pictures: tuple[PictureMap, ...]

    def tiles_of(self, picture: int) -> tuple[tuple[LayerAttention, ...], ...]:
        """Returns the tower's layers of every tile of one picture."""
        before = sum(len(each.tiles) for each in self.pictures[:picture])
        return self.vision[before : before + len(self.pictures[picture].tiles)]


def by_sample(
    found: dict[tuple[str, int], Pieces], spans: Tensor, batch: Batch, backbone: Backbone
) -> list[SampleAttention]:
    """Cuts what the hooks kept into samples.

    Args:
        found: Maps by part and layer; of the decoder one (B, H, R, C), where R counts prompts, padding and, below the
            first layer with textual prompts, the placeholders in whose place they will stand; C the learned keys in
            front as well.
        spans: (B, S) of the rows behind the textual prompts.
        batch: The B samples.
        backbone: Its attachment says which layers have prompts, and its geometry where rows lie.
    """
    pictures = pictures_of_samples(batch, backbone)
    tower = {layer: pieces for (part, layer), pieces in found.items() if part == "vision"}
    tiles = iter(tower_maps(tower, [each for own in pictures for each in own], batch, backbone))
    samples = []
    for sample, own in enumerate(pictures):
        language = tuple(
            decoder_map(maps[0][sample], layer, spans[sample], backbone.attachment)
            for (part, layer), maps in found.items()
            if part == "language"
        )
        vision = tuple(next(tiles) for picture in own for _ in picture.tiles)
        samples.append(SampleAttention(language, vision, tuple(own)))
    return samples


def pictures_of_samples(batch: Batch, backbone: Backbone) -> list[list[PictureMap]]:
    """Returns the maps of every sample's pictures: each has as many placeholders as its layout."""
    geometry = backbone.picture_geometry()
    sizes = iter([] if batch.picture_sizes is None else batch.picture_sizes.tolist())
    samples = []
    for placeholders in (batch.input_ids == IMAGE_TOKEN_ID).sum(dim=1).tolist():
        pictures: list[PictureMap] = []
        while sum(picture.placeholders for picture in pictures) < placeholders:
            pictures.append(geometry.map(None if batch.picture_sizes is None else tuple(next(sizes))))
        samples.append(pictures)
    return samples


def decoder_map(maps: Tensor, layer: int, spans: Tensor, attachment: Attachment) -> LayerAttention:
    """Names the columns of one sample's decoder layer and leaves its padding out.

    Args:
        maps: (H, R, C).
        layer: Its number.
        spans: (S,) of the rows behind the textual prompts.
        attachment: What is attached.
    """
    real = int((spans != Span.PADDING).sum())
    probabilities = without_placeholders(maps, layer, len(spans), attachment)
    rows, columns = probabilities.shape[1:]
    prompts, learned = rows - len(spans), columns - rows
    front = torch.tensor([Span.LEARNED_KEY] * learned + [Span.TEXTUAL_PROMPT] * prompts, dtype=torch.int64)
    kept = probabilities[:, : prompts + real, : learned + prompts + real].clone()
    return LayerAttention(layer, kept, torch.cat([front, spans[:real]]), prompts)


def tower_maps(
    found: dict[int, Pieces], pictures: list[PictureMap], batch: Batch, backbone: Backbone
) -> list[tuple[LayerAttention, ...]]:
    """Returns the layers of every tile of a batch, patches line by line.

    Args:
        found: Maps by layer: of tiles one (tiles, H, R, R); of a tower that reads all pictures in one sequence
            (1, H, r, r) of every piece of it.
        pictures: Of the whole batch.
        batch: The batch.
        backbone: Its geometry says in which order its blocks have patches.
    """
    order = backbone.picture_geometry().order_in_tower(batch.picture_sizes)
    in_front = backbone.shape.vision_rows_in_front
    tiles: list[list[LayerAttention]] = [[] for picture in pictures for _ in picture.tiles]
    patches = [tile.lines * tile.columns for picture in pictures for tile in picture.tiles]
    for layer, pieces in found.items():
        maps = pieces[0] if order is None else from_pieces(pieces, order, patches)
        for own, number, tile in zip(maps, patches, tiles, strict=True):
            prompts = own.shape[-1] - in_front - number
            names = [Span.VISUAL_PROMPT] * prompts + [Span.CLS] * in_front + [Span.PATCH] * number
            tile.append(LayerAttention(layer, own, torch.tensor(names), prompts))
    return [tuple(layers) for layers in tiles]


def from_pieces(pieces: Pieces, order: Tensor, patches: list[int]) -> list[Tensor]:
    """Returns (H, N, N) of every picture from the pieces that a block cut the sequence of all pictures into.

    Args:
        pieces: (1, H, r, r) each, together as many rows as there are patches.
        order: (rows,) each row's number among all patches.
        patches: How many each picture has.

    Raises:
        RuntimeError: If a piece reaches from one picture into another, so that no picture has a map of its own.
    """
    ends = torch.tensor(patches).cumsum(0)
    begins = ends - torch.tensor(patches)
    maps = [pieces[0].new_zeros(pieces[0].shape[1], number, number) for number in patches]
    for piece, numbers in zip(pieces, order.split([piece.shape[-1] for piece in pieces]), strict=True):
        picture = int(torch.searchsorted(ends, numbers.min(), right=True))
        if int(numbers.max()) >= int(ends[picture]):
            raise RuntimeError("a piece of the tower's attention reaches from one picture into another")
        places = numbers - begins[picture]
        maps[picture][:, places[:, None], places] = piece[0]
    return maps


def without_placeholders(maps: Tensor, layer: int, rows: int, attachment: Attachment) -> Tensor:
    """Drops the rows in whose place prompts will stand from the first layer that has some: nobody looks at them."""
    prompts = attachment.textual_prompts
    if prompts is None or layer >= prompts.layers[0]:
        return maps
    learned = maps.shape[-1] - maps.shape[-2]
    return torch.cat([maps[:, -rows:, :learned], maps[:, -rows:, -rows:]], dim=-1)
