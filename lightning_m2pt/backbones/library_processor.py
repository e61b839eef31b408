"""Pictures through a model's own image processor, the library's class that its folder names."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.backbones.config_values import bad_key, is_real, mapping, one_of, shown_value
from lightning_m2pt.backbones.foreign_code import CODE
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.chat_template import ChatTemplate
from lightning_m2pt.inputs.images import open_image, upright_size
from lightning_m2pt.inputs.picture_layout import PictureLayout, PreparedPicture
from lightning_m2pt.inputs.picture_rules.rules import PictureRules
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import ImageSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SETTINGS, NEWER_SETTINGS = "preprocessor_config.json", "processor_config.json"
CLASSES = (
    "CLIPImageProcessor",
    "Idefics3ImageProcessor",
    "LlavaImageProcessor",
    "LlavaNextImageProcessor",
    "LlavaOnevisionImageProcessor",
    "Qwen2VLImageProcessor",
    "SiglipImageProcessor",
    "SmolVLMImageProcessor",
)
STEPS = ("do_rescale", "do_normalize")
"""What every picture goes through."""
KIND, OLDER_KIND = "image_processor_type", "feature_extractor_type"
KEY = "model.backbone.model"


class LibraryProcessor(Processor):
    """A tokenizer beside the library's image processor; its pixels to the last bit.

    Args:
        tokenizer: The model's.
        rules: The family's, with the library's image processor.
        image_size: Side of the square that the tower reads.
        vocabulary_size: Rows of the model's token embedding.
        chat_template: The model's own conversation template; None where it has none.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        rules: PictureRules,
        image_size: int,
        vocabulary_size: int,
        chat_template: ChatTemplate | None = None,
    ) -> None:
        mean, std = rules.image_processor.image_mean, rules.image_processor.image_std
        super().__init__(tokenizer, image_size, mean, std, vocabulary_size=vocabulary_size, chat_template=chat_template)
        self.rules = rules

    @override
    def image(self, source: ImageSource, where: str = "") -> Tensor:
        """Returns a picture's first tile, or a picture that is no square of tiles as its patches."""
        pixels = self.pictures([source], where)[0].pixels
        return pixels[0] if pixels.dim() > 2 else pixels

    @override
    def pictures(self, sources: Sequence[ImageSource], where: str = "") -> list[PreparedPicture]:
        return self.rules.prepared([open_image(source, where) for source in sources], where)

    @override
    def layouts(self, sources: Sequence[ImageSource], where: str = "") -> list[PictureLayout]:
        if not self.rules.varies:
            return [self.rules.layout(None)] * len(sources)
        return self.rules.layouts([upright_size(source, where) for source in sources], where)

    @property
    @override
    def layouts_vary(self) -> bool:
        return self.rules.varies

    @override
    def identity(self) -> dict[str, object] | None:
        return {**self._identity(), "rules": self.rules.identity()} if type(self) is LibraryProcessor else None

    @override
    def check_picture(self, source: ImageSource, where: str = "") -> None:
        self.rules.layouts([upright_size(source, where)], where)

    @override
    def no_pixels(self) -> Tensor:
        return torch.empty(0, *self.rules.tile_shape(), dtype=torch.float32)


def library_processor(
    folder: Path,
    tokenizer: "PreTrainedTokenizerFast",
    rules_of: Callable[[Any, "PreTrainedTokenizerFast"], PictureRules],
    image_size: int,
    vocabulary_size: int,
    chat_template: ChatTemplate | None = None,
) -> LibraryProcessor:
    """Returns the processor of a model's folder, tried on a small picture.

    Args:
        folder: The folder.
        tokenizer: The folder's.
        rules_of: Makes the family's rules of the library's image processor and the tokenizer.
        image_size: Side of the square that the tower reads.
        vocabulary_size: Rows of the model's token embedding.
        chat_template: The model's own conversation template; None where it has none.

    Raises:
        BadInputError: If the image processor is not known, or does not fit the model.
    """
    image_processor = library_image_processor(folder)
    path, _ = image_settings(folder)
    rules = tried(lambda: rules_of(image_processor, tokenizer), type(image_processor).__name__, path)
    return LibraryProcessor(tokenizer, rules, image_size, vocabulary_size, chat_template)


def tried(rules_of: Callable[[], PictureRules], name: str, path: Path) -> PictureRules:
    """Returns rules that have prepared a small picture.

    Args:
        rules_of: Makes them.
        name: The library's class.
        path: The file with its settings, for messages.

    Raises:
        BadInputError: If the library does not work with its settings, or the pictures do not fit the model.
    """
    try:
        rules = rules_of()
        pixels = rules.prepared([Image.new("RGB", (3, 2))], str(path))[0].pixels
    except BadInputError as error:
        raise BadInputError(error.what, where=str(path), expected=error.expected, hint=error.hint) from error
    except Exception as error:  # whatever the library makes of settings that contradict each other
        raise unusable(path, name, error) from error
    if not bool(pixels.isfinite().all()):
        raise BadInputError("a black picture becomes infinite numbers", where=str(path), expected="finite pixels")
    return rules


def library_image_processor(folder: Path) -> Any:  # noqa: ANN401
    """Returns the image processor that a folder describes, of the backend that the library itself chooses.

    The library takes torchvision's where it is installed, which it always is here; that one resizes tensors, and gives
    other numbers than Pillow's.

    Args:
        folder: A model's folder.

    Raises:
        BadInputError: If the class is none of the known ones, asks to run code, or does not take its settings.
    """
    import transformers

    path, settings = image_settings(folder)
    one_of(settings, "auto_map", path, (None,), CODE)
    named = settings.get(KIND, settings.get(OLDER_KIND))
    name = str(named).removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    if name not in CLASSES:
        raise bad_key(path, KIND, f"{shown_value(named)} is not known", " or ".join(CLASSES))
    refuse_odd_colours(settings, path)
    for key in STEPS:
        if settings.get(key, True) is not True:
            expected = "true, or no such key: the tower reads scaled and normalised pictures"
            raise bad_key(path, key, f"{shown_value(settings[key])} is not supported", expected)
    try:
        return getattr(transformers, name).from_dict(settings)
    except Exception as error:  # whatever the library makes of settings that contradict each other
        raise unusable(path, name, error) from error


def refuse_odd_colours(settings: Mapping[str, Any], path: Path) -> None:
    """Refuses means and deviations that are no three finite numbers, of which the library would make something.

    Raises:
        BadInputError: Naming the key.
    """
    for key in ("image_mean", "image_std"):
        values = settings.get(key)
        if values is None:  # the class's own
            continue
        fits = isinstance(values, list) and len(values) == 3 and all(is_real(value) for value in values)
        if not fits or (key == "image_std" and min(values) <= 0):
            expected = "three numbers" + " above 0" * (key == "image_std")
            raise bad_key(path, key, f"{shown_value(values)} does not fit", expected)


def image_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Returns the settings of a folder's image processor and their file.

    As the library does, those within ``processor_config.json`` go before ``preprocessor_config.json``.
    """
    path = folder / NEWER_SETTINGS
    if path.is_file():
        content = read_json(path, KEY)
        if "image_processor" in content:
            return path, mapping(content, "image_processor", path)
    path = folder / SETTINGS
    return path, read_json(path, KEY)


def unusable(path: Path, name: str, error: Exception) -> BadInputError:
    """Returns the refusal of settings that the library cannot work with."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return BadInputError(
        f"transformers cannot prepare pictures so: {ascii(reason)[1:-1]:.200}",
        where=str(path),
        expected=f"settings of {name} as published",
    )
