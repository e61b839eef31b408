"""Converted weights on disk: whole and finite, or not there.

Files are written beside their names first and get them together at the end, so that a conversion that fails changes
nothing. Their header says which file they come from and its SHA-256: the same command again finds what is done.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from lightning_m2pt.backbones.weight_files import is_finite, opened
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.atomic_files import (
    DRAFT,
    cannot_write,
    draft_of,
    free_bytes,
    is_dead,
    remove_dead_drafts,
    sync_folder,
)
from lightning_m2pt.visible_text import counted

FORMAT = {"format": "pt"}
"""transformers reads no safetensors file without it."""
METADATA, LENGTH_BYTES = "__metadata__", 8
"""Of a safetensors file: the header's first key, and the bytes of the header's length in front of it."""


@dataclass
class Drafts:
    """Files that are written and have no name yet.

    Attributes:
        names: Each draft's place, and the name it gets.
    """

    names: dict[Path, Path] = field(default_factory=dict)

    def add_bytes(self, path: Path, content: bytes) -> None:
        """Writes a small file's draft.

        Raises:
            BadInputError: If something stands there.
            EnvironmentFailure: If it cannot be written.
        """
        draft = self._draft(path)
        try:
            draft.write_bytes(content)
        except OSError as error:
            raise cannot_write(path, len(content), error) from error

    def add_tensors(self, path: Path, tensors: Mapping[str, Tensor], origin: Mapping[str, str]) -> None:
        """Writes the draft of a safetensors file; mapped numbers pass through, they are never all in memory.

        Args:
            path: The name it will have.
            tensors: By name, in the order of the file. Those that share memory are written each for itself.
            origin: What the header says of where they come from.

        Raises:
            BadInputError: If something stands there, or a number is NaN or infinite.
            EnvironmentFailure: If it cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        refuse_not_finite(tensors, origin.get("converted_from", str(path)))
        draft, needed = self._draft(path), sum(tensor.nbytes for tensor in tensors.values())
        free = free_bytes(path)
        if free is not None and free < needed:
            raise cannot_write(path, needed, OSError("not enough room"))
        try:
            save_file(without_shared_memory(tensors), draft, metadata={**FORMAT, **origin})
            with draft.open("rb+") as file:
                order_metadata(file, {**FORMAT, **origin})
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(path, needed, error) from error
        except SafetensorError as error:
            raise cannot_write(path, needed, OSError(str(error))) from error

    def _draft(self, path: Path) -> Path:
        if path.exists() or path.is_symlink():
            raise BadInputError(
                "something stands there already",
                where=str(path),
                expected="a name that is free",
                hint="move it away, or name another place with --output",
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, 0, error) from error
        remove_dead_drafts(path.parent, path.name)
        draft = draft_of(path)
        self.names[draft] = path
        return draft


@contextmanager
def drafts() -> Iterator[Drafts]:
    """Gives all drafts their names at the end, in their order; after an error none, and no draft is left."""
    written = Drafts()
    try:
        yield written
        for draft, path in written.names.items():
            try:
                draft.replace(path)
            except OSError as error:
                raise cannot_write(path, 0, error) from error
        for folder in {path.parent for path in written.names.values()}:
            sync_folder(folder)
    finally:
        for draft in written.names:
            with contextlib.suppress(OSError):
                draft.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder its name once everything is in it; after an error nothing is there.

    Raises:
        BadInputError: If something stands there.
        EnvironmentFailure: If it cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise BadInputError(
            "something stands there already", where=str(path), expected="--output DIR, which is not there yet"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    for entry in list(os.scandir(path.parent)):
        match = DRAFT.fullmatch(entry.name)
        if match is not None and match["name"] == path.name and is_dead(entry, match):
            shutil.rmtree(entry.path, ignore_errors=True)
    draft = draft_of(path)
    try:
        draft.mkdir()
        yield draft
        draft.replace(path)
    except OSError as error:
        raise cannot_write(path, 0, error) from error
    except BadInputError as error:  # the place that the user will never see goes by the name it would have had
        what, where, expected, hint = (
            text.replace(str(draft), str(path)) for text in (error.what, error.where, error.expected, error.hint)
        )
        raise BadInputError(what, where=where, expected=expected, hint=hint) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def order_metadata(file: BinaryIO, metadata: Mapping[str, str]) -> None:
    """Gives a safetensors header's metadata their order: the library's changes from one process to the next.

    The same conversion shall give the same bytes, by which models are recognised.

    Args:
        file: Open for reading and writing; what is written has the same length.
        metadata: In their order, as they were saved.
    """
    file.seek(0)
    header = file.read(int.from_bytes(file.read(LENGTH_BYTES), "little"))
    stands = json.loads(header)[METADATA]
    if header.startswith(metadata_bytes(stands)):
        file.seek(LENGTH_BYTES)
        file.write(metadata_bytes({name: stands[name] for name in metadata}))


def has_ordered_metadata(path: Path) -> bool:
    """Tells whether a converted file's metadata stand in their order; files of older versions may have another."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(LENGTH_BYTES), "little")))
    return list(header[METADATA])[:1] == list(FORMAT)


def metadata_bytes(metadata: Mapping[str, str]) -> bytes:
    """Returns what a safetensors header with metadata begins with."""
    return f'{{"{METADATA}":{json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))}'.encode()


def refuse_not_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuses NaN and infinity.

    Raises:
        BadInputError: Naming the first three tensors that hold any.
    """
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    damaged = [name for name, tensor in floating.items() if not is_finite(tensor)]
    if damaged:
        raise BadInputError(
            f"NaN or infinity in {counted(damaged)}",
            where=source,
            expected="finite numbers",
            hint="download the file again",
        )


def without_shared_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors that are whole memory each, as safetensors wants them; few are copied."""
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        is_own = place not in seen and tensor.is_contiguous()
        seen.add(place)
        plain[name] = tensor if is_own else tensor.clone(memory_format=torch.contiguous_format)
    return plain


def is_conversion_of(path: Path, origin: Mapping[str, str]) -> bool:
    """Tells whether a file is there that was converted from the same source in the same way."""
    if not path.is_file():
        return False
    try:
        with opened(path) as file:
            return dict(file.metadata() or {}) == {**FORMAT, **origin}
    except BadInputError:
        return False
