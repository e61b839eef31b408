"""How a base reads pictures, in words that an adapter keeps and compares."""

from typing import Any

from PIL import Image

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.library_processor import LibraryProcessor


def picture_settings(backbone: Backbone) -> dict[str, Any]:
    """Returns size in pixels, channels' means and deviations, and how pictures are resized, as JSON values.

    Needs configuration files alone; a tokenizer only where the sizes do not say everything.

    Args:
        backbone: Loaded or not.
    """
    shape = backbone.shape
    if shape.image_mean:
        colours = list(shape.image_mean), list(shape.image_std)
        return said(shape.image_size, *colours, shape.interpolation, shape.resize)
    processor = backbone.processor()
    if isinstance(processor, LibraryProcessor):
        library = processor.rules.image_processor
        kind = type(library).__name__.removesuffix("Fast").removesuffix("Pil")
        colours = [float(each) for each in library.image_mean], [float(each) for each in library.image_std]
        return said(shape.image_size, *colours, Image.Resampling(int(library.resample)).name.lower(), kind)
    colours = processor.mean.flatten().tolist(), processor.std.flatten().tolist()
    return said(shape.image_size, *colours, processor.interpolation, processor.resize)


def said(size: int, mean: list[float], std: list[float], interpolation: str, resize: str) -> dict[str, Any]:
    """Returns the settings by their names; ``resize`` is a rule of ours, or the library's class that has its own."""
    return {"size": size, "mean": mean, "std": std, "interpolation": interpolation, "resize": resize}
