"""Tensors of a TorchScript archive, such as OpenAI's CLIP files, without its code.

An archive is a zip file: ``data.pkl`` says which module holds which tensor, ``data/N`` are the numbers, ``code/`` is
code. torch reads such files by compiling and running that code, so it is not asked. Here the pickle's instructions are
looked through first; then they are followed by an unpickler for which every name stands for a note of ours, and the
numbers are mapped from the file. No name is imported, nothing of the file is called.
"""

import mmap
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.system.pickle_scan import check_instructions

ALSO_ALLOWED = frozenset({"BINPERSID", "NEWOBJ"})
"""What TorchScript writes besides: a storage, and a module."""
LARGEST_PICKLE = 64 * 2**20
"""Bytes of ``data.pkl``; OpenAI's largest has below one million."""
MOST_MODULES = 20_000
"""OpenAI's largest has below one thousand."""
LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Of a zip entry: signature, and the lengths of its name and of its extra field, behind which its content begins."""
STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class StorageNote:
    """Where a tensor's numbers are: the entry's name inside ``data/`` and their type."""

    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class TensorNote:
    """What the pickle says of a tensor; offset and strides count numbers."""

    storage: StorageNote
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class ModuleNote:
    """What the pickle says of a module: its attributes."""

    attributes: dict[str, Any] = field(default_factory=dict)

    def __setstate__(self, state: object) -> None:
        """Notes the attributes.

        Raises:
            pickle.UnpicklingError: If they are something else.
        """
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module without attributes")
        self.attributes = state


@dataclass(frozen=True)
class NameNote:
    """Stands for a class or function that the pickle names; calling it notes, and runs nothing."""

    name: tuple[str, str]

    def __call__(self, *arguments: object) -> object:
        """Returns the note for what the named thing would build.

        Raises:
            pickle.UnpicklingError: If it would build no tensor.
        """
        match self.name, arguments:
            case ("torch._utils", "_rebuild_tensor_v2"), (
                StorageNote() as storage,
                int(offset),
                tuple(shape),
                tuple(strides),
                *_,
            ):
                if not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)):
                    raise pickle.UnpicklingError("a tensor of impossible sizes")
                return TensorNote(storage, offset, shape, strides)
            case ("torch.jit._pickle", str(function)), (list() as numbers,) if function.startswith("build_"):
                return numbers
            case ("collections", "OrderedDict"), ():
                return {}
        raise pickle.UnpicklingError(f"{'.'.join(self.name)!r:.80} is called in an unexpected way")


class NotingUnpickler(pickle.Unpickler):
    """Follows the instructions of ``data.pkl``, which have been looked through, with notes in place of all names."""

    def find_class(self, module_name: str, global_name: str) -> object:
        """Returns a note; nothing is imported."""
        return ModuleNote if module_name.startswith("__torch__") else NameNote((module_name, global_name))

    def persistent_load(self, saved: object) -> StorageNote:
        """Returns the note of a storage.

        Raises:
            pickle.UnpicklingError: If it is none, or of a type that no model here has.
        """
        match saved:
            case ("storage", NameNote((_, str(kind))), str(key), *_) if kind in STORAGE_TYPES:
                return StorageNote(key, STORAGE_TYPES[kind])
        raise pickle.UnpicklingError("a storage of an unknown kind")


def is_torchscript(path: Path) -> bool:
    """Tells whether a file is a TorchScript archive, by torch's own rule."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):  # what reads it next says what is wrong
        return False


def torchscript_tensors(path: Path) -> dict[str, Tensor]:
    """Returns an archive's tensors by their dotted names; their numbers are mapped from the file.

    Raises:
        pickle.UnpicklingError: If the archive is not what TorchScript writes.
        zipfile.BadZipFile: If it is cut or damaged.
    """
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1 or entries[pickles[0]].file_size > LARGEST_PICKLE:
            raise pickle.UnpicklingError("there is no data.pkl of a model in it")
        content = archive.read(pickles[0])
        check_instructions(content, ALSO_ALLOWED)
        root = NotingUnpickler(BytesIO(content)).load()
        if not isinstance(root, ModuleNote):
            raise pickle.UnpicklingError("it holds no module")
        # Copy on write: torch wants memory that it could change, and the file stays as it is.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        folder = pickles[0].removesuffix(".pkl")
        return {name: mapped_tensor(note, entries, folder, mapped) for name, note in notes_in(root)}


def notes_in(root: ModuleNote) -> Iterator[tuple[str, TensorNote]]:
    """Yields the tensors of a module and of the modules inside it, with dotted names.

    Raises:
        pickle.UnpicklingError: If there are more modules than any model has, as with one that lies inside itself.
    """
    waiting = [("", root)]
    for _ in range(MOST_MODULES):
        if not waiting:
            return
        prefix, module = waiting.pop(0)
        for name, value in module.attributes.items():
            if isinstance(value, TensorNote):
                yield f"{prefix}{name}", value
            elif isinstance(value, ModuleNote):
                waiting.append((f"{prefix}{name}.", value))
    raise pickle.UnpicklingError("modules lie inside one another without an end")


def mapped_tensor(note: TensorNote, entries: Mapping[str, zipfile.ZipInfo], folder: str, mapped: mmap.mmap) -> Tensor:
    """Returns the tensor that a note describes.

    Raises:
        pickle.UnpicklingError: If its numbers are not in the file.
    """
    info = entries.get(f"{folder}/{note.storage.key}")
    if info is None or info.compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"the numbers {note.storage.key!r:.20} are missing or compressed")
    signature, name_length, extra_length = LOCAL_HEADER.unpack_from(mapped, info.header_offset)
    begin = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
    size = note.storage.dtype.itemsize
    last = note.offset + sum((length - 1) * stride for length, stride in zip(note.shape, note.strides, strict=True))
    is_empty = 0 in note.shape
    if signature != b"PK\x03\x04" or begin + info.file_size > len(mapped) or (last + 1) * size > info.file_size:
        raise pickle.UnpicklingError(f"the numbers {note.storage.key!r:.20} are fewer than a tensor needs")
    if is_empty:
        return torch.empty(note.shape, dtype=note.storage.dtype)
    numbers = torch.frombuffer(mapped, dtype=note.storage.dtype, count=info.file_size // size, offset=begin)
    return numbers.as_strided(note.shape, note.strides, note.offset)
