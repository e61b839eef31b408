"""Pictures of an evaluation set are looked at once, by one of the processes that start together."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_modules.index.identity import OURS, digest_of_files, name_of, python
from data_modules.index.kept import found_or_made
from lightning_m2pt.inputs.mistakes import are_collected
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import ImageSource


def looked_at_once(
    folder: Path, pictures: Sequence[ImageSource], processor: Processor | None, look: Callable[[], None]
) -> None:
    """Looks at pictures, unless another process or an earlier start has found them right as they are now.

    Args:
        folder: Where that is noted.
        pictures: All of them; of one that is no file nothing can be noted, and ``look`` is called.
        processor: Knows which sizes the model takes; None where no model is known.
        look: Looks at them, and raises what is wrong.

    Raises:
        BadInputError: What ``look`` raises.
        EnvironmentFailure: If the note cannot be written.
    """
    identity = None if processor is None else processor.identity()
    code = digest_of_files(tuple(str(path) for place in OURS for path in python(place)))
    paths = [picture for picture in pictures if isinstance(picture, Path | str)]
    if len(paths) < len(pictures) or code is None or (processor is not None and identity is None):
        look()
        return

    def make() -> tuple[dict[str, Any], dict[str, str]] | None:
        look()
        return None if are_collected() else ({}, {})

    seen = [(str(path), status.st_size, status.st_mtime_ns) for path in paths for status in [os.stat(path)]]
    found_or_made(folder, f"pictures-{name_of({'code': code, 'processor': identity, 'pictures': seen})}", make)
