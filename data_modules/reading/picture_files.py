"""Where the pictures of a set lie, and those that an annotation names without an ending."""

import os
from pathlib import Path

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import resolve_inside

ENDINGS = (".jpg", ".png")


def picture_named(folder: Path, name: str, where: str) -> Path:
    """Returns ``<name>.png`` in a folder if only that is there, and otherwise ``<name>.jpg``, there or not.

    Args:
        folder: Folder of the pictures.
        name: Name as written in the annotation.
        where: ``FILE:LINE: key`` or record, for the error.

    Raises:
        BadInputError: If the name leads out of the folder.
    """
    paths = [resolve_inside(folder, name + ending, where) for ending in ENDINGS]
    return next((path for path in paths if os.path.exists(path)), paths[0])


def image_folder_of(root: Path, name: str) -> Path:
    """Returns a set's image folder.

    Raises:
        BadInputError: If it is missing.
    """
    folder = root / name
    if not folder.is_dir():
        raise BadInputError("the image folder is missing", where=str(folder), hint="unpack the official archive here")
    return folder
