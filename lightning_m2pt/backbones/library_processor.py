"""Pictures through a model's own image processor, the library's class that its folder names."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from lightning_m2pt.backbones.config_values import bad_key, mapping, one_of, shown_value
from lightning_m2pt.backbones.foreign_code import CODE
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import ImageSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SETTINGS, NEWER_SETTINGS = "preprocessor_config.json", "processor_config.json"
CLASSES = ("CLIPImageProcessor", "SiglipImageProcessor")
KIND, OLDER_KIND = "image_processor_type", "feature_extractor_type"
KEY = "model.backbone.model"


class LibraryProcessor(Processor):
    """A tokenizer beside the library's image processor; one tile a picture.

    Args:
        tokenizer: The model's.
        image_processor: The library's.
        image_size: Side of the square that the tower reads.
        vocabulary_size: Rows of the model's token embedding.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        image_processor: Any,  # noqa: ANN401
        image_size: int,
        vocabulary_size: int,
    ) -> None:
        mean, std = image_processor.image_mean, image_processor.image_std
        super().__init__(tokenizer, image_size, mean, std, vocabulary_size=vocabulary_size)
        self.image_processor = image_processor

    def image(self, source: ImageSource, where: str = "") -> Tensor:
        """Returns a picture as (3, image_size, image_size) float32, the library's numbers to the last bit.

        Raises:
            BadInputError: If it cannot be read.
        """
        made = self.image_processor(images=open_image(source, where), return_tensors="pt")
        pixels: Tensor = made["pixel_values"][0].to(torch.float32)
        return pixels


def library_image_processor(folder: Path, image_size: int) -> Any:  # noqa: ANN401
    """Returns the image processor that a folder describes.

    Args:
        folder: A model's folder.
        image_size: Side of the square that the tower reads.

    Raises:
        BadInputError: If the class is none of the known ones, asks to run code, or makes pictures of another size.
    """
    import transformers

    path = folder / SETTINGS
    if path.is_file() or not (folder / NEWER_SETTINGS).is_file():
        settings = read_json(path, KEY)
    else:
        path = folder / NEWER_SETTINGS
        settings = mapping(read_json(path, KEY), "image_processor", path)
    one_of(settings, "auto_map", path, (None,), CODE)
    named = settings.get(KIND, settings.get(OLDER_KIND))
    name = str(named).removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    if name not in CLASSES:
        raise bad_key(path, KIND, f"{shown_value(named)} is not known", " or ".join(CLASSES))
    try:
        processor = getattr(transformers, name).from_dict(settings)
        made = processor(images=numpy.zeros((2, 3, 3), numpy.uint8), return_tensors="pt")["pixel_values"]
    except Exception as error:  # whatever the library makes of settings that contradict each other
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInputError(
            f"transformers cannot prepare pictures so: {ascii(reason)[1:-1]:.200}",
            where=str(path),
            expected=f"settings of {name} as published",
        ) from error
    if tuple(made.shape) != (1, 3, image_size, image_size):
        raise BadInputError(
            f"pictures become {list(made.shape[2:])} pixels, and the tower reads {image_size} x {image_size}",
            where=str(path),
            expected="the tower's image_size",
        )
    return processor
