"""An instruction set once it has been read: samples, tokens, layouts and what is known of its pictures.

All of it is kept in a folder of indexes where there is one, under names that stand for everything that decides it, so
that the next start maps what this one made. Without a folder all of it is in memory; the numbers are the same.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from data_modules.index.array_file import bytes_of
from data_modules.index.encoded_texts import EncodedTexts
from data_modules.index.identity import code_digest, name_of, template_identity
from data_modules.index.kept import found_or_made
from data_modules.index.picture_check import pictures_there, table_fingerprint
from data_modules.index.picture_table import PictureStates
from data_modules.index.sample_layouts import SampleLayouts
from data_modules.index.sample_table import SampleTable
from lightning_m2pt.inputs.mistakes import are_collected
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.system.collector import without_collector

FINGERPRINT = "fingerprint"
NOTES = "notes"
Read: TypeAlias = Callable[[], tuple[Iterable[Sample], Iterable[Sample], Sequence[str]]]
"""Returns the samples of the training and of the validation part, and what is worth knowing of them."""


@dataclass
class IndexedSet:
    """Samples, and everything that follows from them.

    Attributes:
        table: The samples.
        digest: The SHA-256 of all samples but for pictures in memory.
        folder: Where indexes are kept; None keeps none.
    """

    table: SampleTable
    digest: str
    folder: Path | None
    _layouts: SampleLayouts | None = field(default=None, init=False)

    @cached_property
    def states(self) -> PictureStates:
        """What the file system says of every picture; asked once."""
        return self.table.pictures.states()

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of what the set says: ids, texts and the size of every image.

        Raises:
            BadInputError: If images are missing.
        """
        pictures_there(self.table, self.states)
        name = self._name("fingerprint", None, {"pictures": self._seen()})
        if name is None or self.folder is None:
            return table_fingerprint(self.table, self.states)
        file = found_or_made(self.folder, name, lambda: ({}, {FINGERPRINT: table_fingerprint(self.table, self.states)}))
        assert file is not None
        return file.notes[FINGERPRINT]

    def texts(self, processor: Processor, template: Template, max_text_length: int) -> EncodedTexts:
        """Returns the tokens of all samples.

        Raises:
            BadInputError: If a text is wrong or too long.
            EnvironmentFailure: If the index cannot be written.
        """

        def encoded() -> EncodedTexts:
            with without_collector(freeze=False):
                return EncodedTexts.packed(processor.encode_each(self.table, template, max_text_length=max_text_length))

        name = self._name(
            "texts", processor, {"template": template_identity(processor.bound(template)), "longest": max_text_length}
        )
        if name is None or self.folder is None:
            return encoded()
        made: list[EncodedTexts] = []

        def make() -> tuple[dict[str, Any], dict[str, str]] | None:
            made.append(encoded())
            return None if are_collected() else (made[0].arrays(), {})

        file = found_or_made(self.folder, name, make)
        return made[0] if file is None else EncodedTexts.of(file.arrays, file.path)

    def layouts(self, processor: Processor) -> SampleLayouts:
        """Returns what stands for the pictures of all samples.

        Raises:
            BadInputError: If a picture's size has to be known and cannot be read, or the model does not take it.
            EnvironmentFailure: If the index cannot be written.
        """
        if self._layouts is None:
            name = self._name("layouts", processor, {"pictures": self._seen()}) if processor.layouts_vary else None
            if name is None or self.folder is None:
                self._layouts = SampleLayouts.made(self.table, processor)
            else:
                file = found_or_made(
                    self.folder, name, lambda: (SampleLayouts.made(self.table, processor).arrays(), {})
                )
                assert file is not None
                self._layouts = SampleLayouts.of(file.arrays)
        return self._layouts

    def look_at_pictures(self, processor: Processor | None, look: Callable[[], None], *, again: bool) -> None:
        """Looks at all pictures, unless another process or an earlier start has found them right as they are now.

        Args:
            processor: Knows which sizes the model takes; None where no model is known.
            look: Looks at them, and raises what is wrong.
            again: Look whatever was found.

        Raises:
            BadInputError: What ``look`` raises.
            EnvironmentFailure: If the index cannot be written.
        """
        name = self._name("pictures", processor, {"pictures": self._seen()})
        if again:
            look()
        if name is None or self.folder is None:
            return None if again else look()

        def make() -> tuple[dict[str, Any], dict[str, str]] | None:
            if not again:
                look()
            return None if are_collected() or self.states.missing else ({}, {})

        found_or_made(self.folder, name, make)
        return None

    def _name(self, kind: str, processor: Processor | None, parts: dict[str, Any]) -> str | None:
        """Returns the name of an index that belongs to these samples; None where not all that decides it is known."""
        if self.folder is None or len(self.table.pictures.in_memory):
            return None  # first of all: what follows takes longer than a small set's start
        identity = None if processor is None else processor.identity()
        code = code_digest(SampleTable)
        if code is None or (processor is not None and identity is None):
            return None
        named = name_of({"samples": self.digest, "code": code, "processor": identity, **parts})
        return f"{kind}-{named}"

    def _seen(self) -> str:
        """Returns a text that stands for sizes and times of all pictures."""
        return hashlib.sha256(self.states.sizes.tobytes() + self.states.times.tobytes()).hexdigest()


def read_or_found(
    read: Read, identity: dict[str, Any] | None, folder: Path | None
) -> tuple[SampleTable, str, tuple[str, ...]]:
    """Returns a set's samples, from their index where there is one, and otherwise read and written there.

    Args:
        read: Reads them.
        identity: All that decides what is read; None where that is not known, and nothing is kept.
        folder: Where indexes are kept; None keeps none.

    Returns:
        The samples, the SHA-256 of all of them but for pictures in memory, and what is worth knowing of them.

    Raises:
        BadInputError: What ``read`` raises.
        EnvironmentFailure: If the index cannot be written.
    """
    if identity is None or folder is None:
        table, noted = packed(read)
        return table, digest_of(table), noted
    made: list[tuple[SampleTable, tuple[str, ...]]] = []

    def make() -> tuple[dict[str, Any], dict[str, str]] | None:
        table, noted = packed(read)
        made.append((table, noted))
        in_memory = len(table.pictures.in_memory) > 0
        return None if in_memory or are_collected() else (table.arrays(), {NOTES: json.dumps(noted)})

    file = found_or_made(folder, f"samples-{name_of(identity)}", make)
    if file is None:
        table, noted = made[0]
        return table, digest_of(table), noted
    return SampleTable.of(file.arrays, file.path), file.digest, tuple(json.loads(file.notes[NOTES]))


def packed(read: Read) -> tuple[SampleTable, tuple[str, ...]]:
    """Returns the samples that are read, and what is worth knowing of them."""
    with without_collector(freeze=False):
        training, validation, notes = read()
        return SampleTable.packed(training, validation), tuple(notes)


def digest_of(table: SampleTable) -> str:
    """Returns the SHA-256 of samples in memory, but for their pictures there."""
    digest = hashlib.sha256()
    for name, values in table.arrays().items():
        digest.update(name.encode())
        digest.update(bytes_of(values))
    return digest.hexdigest()
