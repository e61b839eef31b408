"""From a cell to pictures: names of files, places in Parquet and tar files, base64 text. Addresses are refused."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_modules.reading.parquet_rows import PictureCell
from data_modules.reading.sources import Source, picture_below
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.encoded_picture import PictureBytes
from lightning_m2pt.inputs.samples import ImageSource
from lightning_m2pt.inputs.tar_picture import TarPicture
from lightning_m2pt.metrics.predictions import is_encodable
from lightning_m2pt.system.strict_json import parse_json

ADDRESS = re.compile(r"(https?|ftp|s3|gs|hf)://", re.IGNORECASE)
DATA_ADDRESS = re.compile(r"data:image/[\w.+-]+;base64,")
BASE64 = re.compile(r"[A-Za-z0-9+/\s]{80,}={0,2}\s*")
"""Letters of base64, more of them than the path of a picture has without a full stop before its ending."""
FIRST_LETTERS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk")
"""What JPEG, PNG, GIF, WebP and BMP begin with in base64."""
NAME_KEYS = ("path", "file_name", "image", "url")


@dataclass(frozen=True)
class Picture:
    """A picture and its name: pictures of one name are the same one.

    Attributes:
        image: Where it is.
        name: Its file's name as written, or ``sha256:`` and a digest.
    """

    image: ImageSource
    name: str


@dataclass
class PictureCells:
    """Reads the cells of one source; a picture that many rows name is looked up once.

    Attributes:
        source: Where the rows are from.
        folder: What names of files stand in.
    """

    source: Source
    folder: Path
    known: dict[str, Picture] = field(default_factory=dict)

    def pictures(self, cell: Any, where: str) -> list[Picture]:
        """Returns the pictures of a cell: none, one, or those of a list.

        Args:
            cell: What the row holds; None and an empty text stand for no picture.
            where: ``FILE:LINE: key`` or record, for errors.

        Raises:
            BadInputError: If it is no picture, an address, or leads out of the folder.
        """
        if cell is None or cell == "":
            return []
        if isinstance(cell, str) and cell.lstrip().startswith("["):
            cell = parse_json(cell, where, first_line=0, expected="a name, or a JSON list of names")
        if isinstance(cell, list):
            return [self.picture(item, where) for item in cell]
        return [self.picture(cell, where)]

    def picture(self, cell: Any, where: str) -> Picture:
        """Returns one picture; see ``pictures``."""
        if isinstance(cell, PictureCell):
            return Picture(cell.image, f"sha256:{cell.digest}")
        if isinstance(cell, TarPicture):
            return Picture(cell, f"{cell.path.name}/{cell.member}")
        if isinstance(cell, Mapping):
            named = [cell[key] for key in NAME_KEYS if isinstance(cell.get(key), str)]
            cell = named[0] if len(named) == 1 else cell
        if not isinstance(cell, str) or not is_encodable(cell):
            raise BadInputError(f"the picture is {cell!r:.40}", where=where, expected="the name of a file, or a list")
        if cell not in self.known:
            picture = self.new_picture(cell, where)
            if isinstance(picture.image, PictureBytes):
                return self.known.setdefault(picture.name, picture)  # not by its text, which would stay in memory
            self.known[cell] = picture
        return self.known[cell]

    def new_picture(self, text: str, where: str) -> Picture:
        """Returns the picture that a text names or holds; see ``pictures``."""
        head = DATA_ADDRESS.match(text)
        if head is not None or is_base64(text):
            image = decoded_text(text[head.end() :] if head is not None else text, where)
            return Picture(image, f"sha256:{image.digest}")
        if ADDRESS.match(text):
            raise BadInputError(
                f"the picture is an address: {text:.60}",
                where=where,
                expected="the name of a file below the image folder; nothing is downloaded",
                hint="download the pictures, and name the files",
            )
        name = text.removeprefix("./")
        path = picture_below(self.source, self.folder, name, where)
        return Picture(path, path.relative_to(self.folder.absolute()).as_posix() if Path(name).is_absolute() else name)


def is_base64(text: str) -> bool:
    """Tells whether a text is a picture in base64 and not a file's name."""
    return text.startswith(FIRST_LETTERS) and BASE64.fullmatch(text) is not None


def decoded_text(text: str, where: str) -> PictureBytes:
    """Returns the picture that base64 text holds.

    Raises:
        BadInputError: If it is none.
    """
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInputError("the picture's text is no base64", where=where, expected="an encoded picture") from error
    return PictureBytes(content)
