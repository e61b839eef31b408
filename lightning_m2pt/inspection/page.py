"""The attention page: one HTML file that works offline, with everything it shows inside."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.picture_map import PictureMap
from lightning_m2pt.inspection.heat import cells_of
from lightning_m2pt.inspection.named_maps import LayerAttention
from lightning_m2pt.inspection.samples import ShownSample, Side
from lightning_m2pt.inspection.span_colours import SPAN_COLOURS, SPAN_WORDS
from lightning_m2pt.visible_text import visible

TEMPLATE = Path(__file__).with_name("page.html")
PLACE_OF_DATA = "__DATA__"
MOST_BYTES = 5_000_000
DIGITS = 3
QUERY_SPANS = (Span.QUESTION, Span.ANSWER)
TEXT_SPANS = (Span.SYSTEM, *QUERY_SPANS)
PROMPT_SPANS = (Span.LEARNED_KEY, Span.TEXTUAL_PROMPT, Span.VISUAL_PROMPT, Span.CLS)
EVERY_HEAD = (
    "Numbers are rounded: a byte holds the square root of each. The decoder is causal, so early columns are seen by "
    "more rows. Attention says where a layer reads, not what the answer hangs on."
)
MEAN_OF_HEADS = " Single heads are left out to keep the page small."


def attention_page(samples: Sequence[ShownSample], most_bytes: int = MOST_BYTES) -> str:
    """Returns the page for samples; where single heads make it too large, their means alone.

    Args:
        samples: At least one, each with at least one layer of the decoder.
        most_bytes: The page stays below.

    Raises:
        BadInputError: If it is too large even so.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    for with_heads in (True, False):
        page = template.replace(PLACE_OF_DATA, embedded(page_data(samples, with_heads)))
        if len(page.encode()) < most_bytes:
            return page
    raise BadInputError(
        f"the page would have {len(page.encode()):,} bytes",
        where="command line",
        expected=f"less than {most_bytes:,}",
        hint="name fewer samples, or some layers with --layer",
    )


def embedded(data: dict[str, Any]) -> str:
    """Returns JSON that can stand inside a script element: no text in it can end the element."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def page_data(samples: Sequence[ShownSample], with_heads: bool) -> dict[str, Any]:
    """Returns what the page's script reads."""
    return {
        "spans": {int(span): {"word": SPAN_WORDS[span], "colour": colour} for span, colour in SPAN_COLOURS.items()},
        "patch": int(Span.PATCH),
        "texts": [int(span) for span in TEXT_SPANS],
        "prompts": [int(span) for span in PROMPT_SPANS],
        "samples": [
            {
                "set": sample.question.set_name,
                "id": sample.question.id,
                "question": visible(sample.question.text),
                "target": visible(sample.question.target),
                "pictures": pictures_data(sample),
                "sides": [side_data(side, with_heads) for side in sample.sides],
            }
            for sample in samples
        ],
        "notes": EVERY_HEAD + ("" if with_heads else MEAN_OF_HEADS),
    }


def side_data(side: Side, with_heads: bool) -> dict[str, Any]:
    """Returns one side: rows of question and answer tokens, then the mean of all rows; the tower's mean of all rows."""
    layers = side.attention.language
    spans = max((layer.spans for layer in layers), key=len)
    rows = [row for row, span in enumerate(spans.tolist()) if span in QUERY_SPANS]
    tables = []
    for layer in layers:
        from_end = [row - len(spans) for row in rows]
        chosen = layer.probabilities[:, from_end]
        tables.append(at_end(torch.cat([chosen, layer.probabilities.mean(dim=1, keepdim=True)], dim=1), len(spans)))
    return {
        "name": side.name,
        "answer": side.answer,
        "tokens": side.tokens,
        "spans": spans.tolist(),
        "layers": [layer.layer for layer in layers],
        "predicts": side.predicts,
        "rows": rows,
        "maps": stored(torch.stack(tables), with_heads),
        "vision": [tower_data(layers, with_heads) for layers in side.attention.vision if layers],
    }


def pictures_data(sample: ShownSample) -> list[dict[str, Any]]:
    """Returns the sample's pictures, and where the decoder's and the tower's patches lie in each."""
    found = []
    for pixels, picture in zip(sample.pictures, sample.sides[0].attention.pictures, strict=True):
        tower = torch.cat([tile.cells() for tile in picture.tiles])
        found.append(
            {
                "address": png_address(Image.fromarray(pixels)),
                "tiles": len(picture.tiles),
                "language": places_data(picture.rows, picture),
                "vision": places_data(tower, picture),
            }
        )
    return found


def places_data(boxes: Tensor, picture: PictureMap) -> dict[str, Any]:
    """Returns places in cells of a map over a picture, and the picture's size in these cells."""
    places, lines, columns, side = cells_of(boxes, picture)
    size = [round(picture.height / side, DIGITS), round(picture.width / side, DIGITS)]
    rounded = (places * 10**DIGITS).round().div(10**DIGITS).tolist()
    return {"lines": lines, "columns": columns, "size": size, "places": rounded}


def tower_data(layers: Sequence[LayerAttention], with_heads: bool) -> dict[str, Any]:
    """Returns the mean over the rows of every layer that read a tile."""
    spans = max((layer.spans for layer in layers), key=len)
    tables = [at_end(layer.probabilities.mean(dim=1, keepdim=True), len(spans)) for layer in layers]
    return {"spans": spans.tolist(), "maps": stored(torch.stack(tables), with_heads)}


def at_end(maps: Tensor, columns: int) -> Tensor:
    """Returns (..., columns): zeros in front, where a layer has no prompts."""
    return torch.nn.functional.pad(maps, (columns - maps.shape[-1], 0))


def stored(maps: Tensor, with_heads: bool) -> dict[str, Any]:
    """Returns (L, H, R, S) probabilities as shape and base64 bytes, each 255 times a square root."""
    kept = maps if with_heads else maps.mean(dim=1, keepdim=True)
    values = (kept.double().sqrt() * 255).round().to(torch.uint8).contiguous()
    return {"shape": list(values.shape), "values": base64.b64encode(values.numpy().tobytes()).decode()}


def png_address(image: Image.Image) -> str:
    """Returns a picture as a data address."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
