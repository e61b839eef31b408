"""A folder of pictures with texts beside them: ``cat.jpg`` and ``cat.txt``, in it or in folders below."""

import os
from collections.abc import Iterator
from pathlib import Path

from data_modules.reading.files import Record, read_text
from lightning_m2pt.errors import BadInputError

PICTURE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"})
TEXT_ENDINGS = (".txt", ".caption")
IMAGE, CAPTION = "image", "caption"


def picture_files(folder: Path) -> list[str]:
    """Returns the names of the pictures in a folder and below, in order; hidden files and folders are passed over."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(place).relative_to(folder)
        found += [
            (inside / name).as_posix()
            for name in names
            if Path(name).suffix.lower() in PICTURE_ENDINGS and not name.startswith(".")
        ]
    return sorted(found)


def captioned_rows(folder: Path) -> Iterator[Record | BadInputError]:
    """Yields (``TEXT FILE``, {"image": name, "caption": text}) of a folder, or the mistake in a picture's place.

    Two pictures of one name but for the ending share its text.
    """
    pictures = picture_files(folder)
    for name in pictures:
        beside = [folder / Path(name).with_suffix(ending) for ending in TEXT_ENDINGS]
        file = next((path for path in beside if path.is_file()), None)
        if file is None:
            yield BadInputError(
                "the picture has no text beside it",
                where=str(folder / name),
                expected=f"{beside[0].name} with its text",
            )
            continue
        try:
            yield str(file), {IMAGE: name, CAPTION: read_text(file).strip()}
        except BadInputError as error:
            yield error
