"""Pictures that are no files of their own: encoded bytes somewhere, read when somebody looks at one."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

from typing_extensions import override


class EncodedPicture(ABC):
    """An encoded picture (JPEG, PNG, ...) that can be read again and again.

    ``str`` of one is unique within its set, and equal for equal pictures of one place.

    Attributes:
        size: Bytes of the encoded picture.
    """

    size: int

    @property
    @abstractmethod
    def label(self) -> str:
        """What names the picture beside its record, in errors."""

    @abstractmethod
    def read(self) -> bytes:
        """Returns the encoded picture.

        Raises:
            BadInputError: If it cannot be read any more.
        """


@dataclass(frozen=True)
class PictureBytes(EncodedPicture):
    """A picture that was written into a record as text, and is held in memory.

    Attributes:
        content: The encoded picture.
    """

    content: bytes = field(repr=False)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes of the encoded picture."""
        return len(self.content)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the encoded picture."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    @override
    def label(self) -> str:
        return "picture in the text"

    def __str__(self) -> str:
        """Returns what names the picture, uniquely within its set."""
        return f"picture {self.digest}"

    @override
    def read(self) -> bytes:
        return self.content
