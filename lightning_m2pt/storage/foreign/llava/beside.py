"""What of a base's folder goes into a merged one beside the weights: settings and texts, never code."""

from pathlib import Path

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel

GENERATION = "generation_config.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".index.json")
"""Endings of files that the merged weights stand for, and of their indices."""
CARRIED = (".json", ".jinja", ".txt", ".md", ".model", ".tiktoken")
"""Endings of settings, vocabularies and texts; a file of any other kind may be run by somebody, and is left out."""
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")
"""Beginnings of names that have no ending."""
LARGEST = 100_000_000


def files_beside(backbone: Backbone) -> list[Path]:
    """Returns the files of a base's folder that a merged one may have: not its weights, README or hidden files.

    A base whose parts come from several folders has none: its processor is written anew.
    """
    if not isinstance(backbone, VisionLanguageModel):
        return []
    return [
        path
        for path in sorted(backbone.folder.iterdir())
        if path.is_file() and not path.name.endswith(WEIGHTS) and not path.name.startswith((".", "README"))
    ]


def is_carried(path: Path) -> bool:
    """Tells whether a file is carried over: it is small, and settings or text."""
    is_text = path.suffix in CARRIED or (not path.suffix and path.name.startswith(LICENCES))
    return is_text and path.stat().st_size <= LARGEST


def left_behind(backbone: Backbone) -> list[str]:
    """Returns the names of a base's files that are not carried over."""
    return [path.name for path in files_beside(backbone) if not is_carried(path)]
