"""Pictures inside tar files: a place and a length, so that any of them can be read without those before it."""

from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.encoded_picture import EncodedPicture


@dataclass(frozen=True)
class TarPicture(EncodedPicture):
    """One picture inside a tar file that is not compressed.

    Attributes:
        path: The file.
        member: The picture's name in it.
        offset: Where its bytes begin.
        size: How many there are.
    """

    path: Path
    member: str
    offset: int
    size: int

    @property
    @override
    def label(self) -> str:
        return self.member

    def __str__(self) -> str:
        """Returns what names the picture, uniquely within its set."""
        return f"{self.path}: byte {self.offset}: {self.member}"

    @override
    def read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise BadInputError(f"the file cannot be read: {error.strerror}", where=str(self)) from error
        if len(content) != self.size:
            raise BadInputError("the file has changed since its annotations were read", where=str(self))
        return content
