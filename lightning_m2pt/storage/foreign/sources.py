"""Weight files that others wrote, in any container: their tensors by name, numbers left in the file until asked for.

What a file is, its first bytes say and not its name. Pickles are read with ``weights_only``, which knows tensors and
plain containers and refuses every other name; TorchScript archives by a reader of ours, which runs none of their code.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from lightning_m2pt.backbones.weight_files import diagnosis, opened
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.foreign.torchscript_archive import is_torchscript, torchscript_tensors
from lightning_m2pt.visible_text import counted

Container: TypeAlias = Literal["safetensors", "pickle", "TorchScript"]
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
NESTED = ("state_dict", "model", "module")
"""Keys under which training scripts keep the tensors; everything beside them is of the training."""
PARALLEL = "module."
"""What data parallel wrappers put in front of every name."""
REFUSED_NAME = re.compile(r"GLOBAL (\S+)")
BEFORE_THE_NEWS = "WeightsUnpickler error: "
"""torch's own message is a page, in which these find what matters."""
READABLE = "weights as safetensors, as a torch file of tensors alone, or as a TorchScript archive"


@dataclass(frozen=True)
class Source:
    """A weight file that somebody else wrote.

    Attributes:
        path: The file.
        container: How it is written.
        tensors: By name. The numbers of all but old pickles are mapped from the file.
    """

    path: Path
    container: Container
    tensors: dict[str, Tensor]


def read_source(path: Path) -> Source:
    """Opens a weight file; nothing in it is executed.

    Raises:
        BadInputError: If it is missing, cut, damaged, asks for code, or holds something else than named tensors.
    """
    container = container_of(path)
    if container == "safetensors":
        with opened(path) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        return checked(path, container, tensors)
    try:
        if is_zip(path):
            check_sums(path)
        content = torchscript_tensors(path) if container == "TorchScript" else unpickled(path)
    except pickle.UnpicklingError as error:
        raise BadInputError(
            f"it holds more than tensors: {reason_of(error)}",
            where=str(path),
            expected=READABLE,
            hint="nothing in it was executed; get the weights from another place",
        ) from error
    except Exception as error:  # damaged bytes reach zipfile, struct and torch's readers, each with errors of its own
        raise BadInputError(
            f"it cannot be read: {reason_of(error)}",
            where=str(path),
            expected=READABLE,
            hint="cut or damaged? download it again",
        ) from error
    return checked(path, container, content)


def names_in(path: Path) -> list[str]:
    """Returns the names of a torch file's tensors without a look at their numbers; none if it cannot be read."""
    try:
        is_mapped = container_of(path) == "pickle" and is_zip(path)
        return list(checked(path, "pickle", unpickled(path)).tensors) if is_mapped else []
    except Exception:  # as above; the conversion that comes next says what is wrong
        return []


def container_of(path: Path) -> Container:
    """Returns what a file is, by its first bytes.

    Raises:
        BadInputError: If it is missing, or nothing that weights are written in.
    """
    try:
        with path.open("rb") as stream:
            first = stream.read(32)
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror})", where=str(path), expected=READABLE) from error
    if first.startswith(ZIP):
        return "TorchScript" if is_torchscript(path) else "pickle"
    if first.startswith(PICKLE):
        return "pickle"
    if first[8:9] == b"{":  # behind the header's length
        return "safetensors"
    what, hint = diagnosis(path, "no file of weights")
    raise BadInputError(what, where=str(path), expected=READABLE, hint=hint)


def is_zip(path: Path) -> bool:
    """Tells whether a file begins like a zip file."""
    with path.open("rb") as stream:
        return stream.read(4) == ZIP


def check_sums(path: Path) -> None:
    """Reads a zip file and compares every entry with its checksum, which mapping the numbers would not.

    Raises:
        zipfile.BadZipFile: If one differs, or the file is cut.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} does not have its checksum")


def unpickled(path: Path) -> object:
    """Reads a torch file; its numbers are mapped where it is a zip file, and in memory where it is older."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip(path))


def is_dense(tensor: Tensor) -> bool:
    """Tells whether a tensor has all of its numbers; one of the device ``meta`` has a shape and none."""
    return tensor.layout == torch.strided and not tensor.is_meta


def checked(path: Path, container: Container, content: object) -> Source:
    """Returns the named tensors of what a file held.

    Raises:
        BadInputError: If it is no mapping of names to dense tensors.
    """
    inside = content
    for key in NESTED:
        if isinstance(inside, Mapping) and isinstance(inside.get(key), Mapping):
            inside = inside[key]
    if not isinstance(inside, Mapping) or not inside:
        raise BadInputError("there are no tensors in it", where=str(path), expected=READABLE)
    others = [
        str(name)
        for name, value in inside.items()
        if not (isinstance(name, str) and isinstance(value, Tensor) and is_dense(value))
    ]
    if others:
        raise BadInputError(f"no tensors: {counted(others)}", where=str(path), expected="names and dense tensors alone")
    plain = {str(name): value.detach() for name, value in inside.items()}
    if all(name.startswith(PARALLEL) for name in plain):
        plain = {name.removeprefix(PARALLEL): value for name, value in plain.items()}
    return Source(path, container, plain)


def reason_of(error: BaseException) -> str:
    """Returns what matters of a library's message on one line: a refused name, or its first words."""
    text = " ".join(str(error).split()) or type(error).__name__
    named = REFUSED_NAME.search(text)
    return f"it names {named[1]}" if named else text.rpartition(BEFORE_THE_NEWS)[2].partition(" Check the")[0][:160]
