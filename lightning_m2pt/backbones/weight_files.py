"""safetensors files: what their headers promise, known without reading a tensor; and tensors that are what they seem.

A header holds names, types, shapes and offsets, and the library compares the offsets with the file's length: a cut
download, a pickle under the name or a missing shard is known in milliseconds, whatever the file's size.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.visible_text import counted

Shape: TypeAlias = tuple[int, ...]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth")
ROWS_AT_A_TIME = 1024
STORED_TYPES = ("F64", "F32", "F16", "BF16")
DISGUISES = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file", "git lfs pull fetches the file"),
    (b"PK\x03\x04", "a pickle, which is never opened", "`m2pt convert FILE --output DIR` writes safetensors"),
    (b"\x80", "a pickle, which is never opened", "`m2pt convert FILE --output DIR` writes safetensors"),
    (b"GGUF", "a GGUF file", "only safetensors are read"),
    (b"<", "a web page, not the file", "download it again"),
)
"""First bytes of what stands under a weight file's name by mistake."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as a header describes it.

    Attributes:
        shape: Its sizes.
        dtype: Its type in safetensors' own words, such as ``BF16``.
        file: The file that holds it.
    """

    shape: Shape
    dtype: str
    file: Path


Stored: TypeAlias = dict[str, StoredTensor]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Opens a safetensors file; nothing but its header is read.

    Raises:
        BadInputError: If it is missing, cut or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError as error:
        hint = conversion_of_pickle(path)
        raise BadInputError("the file is missing", where=str(path), expected="a safetensors file", hint=hint) from error
    except (SafetensorError, OSError) as error:
        what, hint = diagnosis(path, str(error))
        raise BadInputError(what, where=str(path), expected="a complete safetensors file", hint=hint) from error


def diagnosis(path: Path, reason: str) -> tuple[str, str]:
    """Returns what an unreadable weight file seems to be, and what to do about it.

    Args:
        path: The file.
        reason: What the library says.
    """
    try:
        with path.open("rb") as stream:
            first = stream.read(32)
    except OSError as error:
        return f"it cannot be read ({error.strerror})", ""
    for beginning, what, hint in DISGUISES:
        if first.lstrip().startswith(beginning) or first.startswith(beginning):
            return f"this is {what}", hint.replace("FILE", str(path))
    size = path.stat().st_size
    if "not fully covered" in reason:
        return f"its {size:,} bytes are not as many as its header says: the file is cut or damaged", "download it again"
    return f"this is no safetensors file ({reason.rpartition(': ')[2][:80]}; {size:,} bytes)", "download it again"


def stored_tensors(path: Path) -> Stored:
    """Reads a file's header.

    Raises:
        BadInputError: If the file is missing, cut or no safetensors file.
    """
    with opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        return {name: StoredTensor(tuple(one.get_shape()), str(one.get_dtype()), path) for name, one in slices.items()}


def stored_in_folder(folder: Path) -> Stored:
    """Reads the headers of a language model's folder: ``model.safetensors``, or the shards that an index names.

    Raises:
        BadInputError: If files are missing, cut, left over or pickles, or the index and the shards disagree.
    """
    present = sorted(path.name for path in folder.glob("*.safetensors"))
    if (folder / INDEX).is_file():
        return stored_in_shards(folder, present)
    refuse_pickles(folder, present)
    if present != [SINGLE]:
        hint = f"{INDEX} belongs to these files" if len(present) > 1 else ""
        what = f"weights are {counted(present)}" if present else f"{SINGLE} is missing"
        raise BadInputError(what, where=str(folder), expected=f"{SINGLE} alone, or {INDEX} and its shards", hint=hint)
    return stored_tensors(folder / SINGLE)


def refuse_pickles(folder: Path, present: Collection[str]) -> None:
    """Says so if a folder without safetensors holds the weights as pickles.

    Raises:
        BadInputError: Naming the first.
    """
    pickles = sorted(path.name for ending in PICKLES for path in folder.glob(ending))
    if pickles and not present:
        raise BadInputError(
            f"the weights are pickles, which are never opened: {counted(pickles)}",
            where=str(folder),
            expected=SINGLE,
            hint=f"`m2pt convert {folder}` writes safetensors beside them",
        )


def conversion_of_pickle(missing: Path) -> str:
    """Returns the command that makes a missing weight file of a pickle beside it; nothing if there is none."""
    pickles = sorted(path for ending in PICKLES for path in missing.parent.glob(ending))
    if not pickles:
        return ""
    source = pickles[0] if len(pickles) == 1 else missing.parent
    return f"`m2pt convert {source}` writes safetensors beside it"


def stored_in_shards(folder: Path, present: Collection[str]) -> Stored:
    """Reads the headers of all shards and compares them with their index.

    Raises:
        BadInputError: If they disagree in any tensor, or files are missing or left over.
    """
    index = folder / INDEX
    places = read_json(index, "model.backbone.language_model").get("weight_map")
    if not isinstance(places, dict) or not places or not all(is_file_name(name) for name in places.values()):
        raise BadInputError(
            "this is no index of weights", where=str(index), expected="weight_map: file names by tensor"
        )
    shards = sorted(set(places.values()))
    expected = "exactly the shards of the index"
    missing = [name for name in shards if name not in present]
    if missing:
        raise BadInputError(
            f"missing {counted(missing)}", where=str(index), expected=expected, hint="download them again"
        )
    left_over = sorted(set(present) - set(shards))
    if left_over:
        raise BadInputError(
            f"{counted(left_over)} beside the index, which does not name them",
            where=str(folder),
            expected=expected,
            hint="files of another download? move them away",
        )
    stored: Stored = {}
    for shard in shards:
        tensors = stored_tensors(folder / shard)
        named = {name for name, place in places.items() if place == shard}
        compare_names(named, tensors, folder / shard, f"the tensors that {INDEX} says are here")
        stored |= tensors
    return stored


def is_file_name(name: object) -> bool:
    """Tells whether an index names a safetensors file of its own folder."""
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def compare_tensors(wanted: Mapping[str, Shape], stored: Mapping[str, StoredTensor], place: Path) -> None:
    """Compares stored tensors with those a model has.

    Args:
        wanted: Shapes by name.
        stored: What there is.
        place: File or folder, for messages.

    Raises:
        BadInputError: If names, shapes or types differ: three of them, and how many more.
    """
    compare_names(wanted, stored, place, "exactly the tensors that the configuration describes")
    shapes = [
        f"{name} {list(stored[name].shape)}, not {list(shape)}"
        for name, shape in wanted.items()
        if stored[name].shape != shape
    ]
    if shapes:
        raise BadInputError(
            f"tensors of another shape: {counted(shapes)}", where=str(place), expected="the sizes of the configuration"
        )
    types = [f"{name} {one.dtype}" for name, one in stored.items() if one.dtype not in STORED_TYPES]
    if types:
        raise BadInputError(
            f"tensors of another type: {counted(types)}", where=str(place), expected=" or ".join(STORED_TYPES)
        )


def compare_names(wanted: Collection[str], found: Collection[str], place: Path, expected: str) -> None:
    """Compares names of tensors.

    Raises:
        BadInputError: If some are missing or left over: up to three of each, and how many more.
    """
    missing = [name for name in wanted if name not in found]
    left_over = [name for name in found if name not in wanted]
    parts = [f"{word} {counted(names)}" for word, names in (("missing", missing), ("left over", left_over)) if names]
    if parts:
        raise BadInputError(f"tensors {'; '.join(parts)}", where=str(place), expected=expected)


def shapes_of(module: nn.Module) -> dict[str, Shape]:
    """Returns what a module's state holds, by name."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@dataclass(frozen=True)
class Portion:
    """What is read of a tensor.

    Attributes:
        dtype: The type it becomes.
        rows: Of dimension 0; None: all.
        device: Where it goes; None is torch's default of the moment.
    """

    dtype: torch.dtype
    rows: slice | None = None
    device: torch.device | None = None

    @classmethod
    def to_pack(cls) -> "Portion":
        """Returns the portion of a weight that is packed: all of it, in the type and place that it is packed in."""
        return cls(torch.float32, device=torch.device("cpu"))


def read_tensors(stored: Mapping[str, StoredTensor], names: Iterable[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """Reads tensors one by one, in another type if asked for.

    Args:
        stored: Where they are.
        names: Which.
        dtype: The type they become.

    Raises:
        BadInputError: If one holds NaN or infinity, in this type at least.
    """
    return dict(read_portions(stored, {name: Portion(dtype) for name in names}, dtype))


def read_portions(
    stored: Mapping[str, StoredTensor], portions: Mapping[str, Portion], dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Reads portions of tensors one by one, file by file.

    Each is a copy: what safetensors hands out is the file itself, and would change with it under a running training.

    Args:
        stored: Where they are.
        portions: What is read of which.
        dtype: What messages call the type that numbers have to fit into.

    Raises:
        BadInputError: Behind the last one, if one holds NaN or infinity, in its type at least.
    """
    not_finite: list[str] = []
    for path in dict.fromkeys(one.file for name, one in stored.items() if name in portions):
        with opened(path) as file:
            for name in (name for name, one in stored.items() if name in portions and one.file == path):
                tensor = read_portion(file, name, stored[name].shape, portions[name])
                if not is_finite(tensor):
                    not_finite.append(f"{name} in {path}")
                yield name, tensor
                del tensor  # or it would still be there while the next one is read
    if not_finite:
        raise BadInputError(
            f"NaN or infinity in {counted(not_finite)}",
            where="model.backbone",
            expected=f"numbers that {str(dtype).removeprefix('torch.')} can hold",
            hint="download the file again, or take another dtype",
        )


def read_portion(file: Any, name: str, shape: Shape, portion: Portion) -> Tensor:  # noqa: ANN401
    """Reads a portion of a tensor from an open file; nothing else of it is looked at."""
    device, rows = portion.device or torch.get_default_device(), portion.rows
    if rows is not None and rows.start == rows.stop:
        return torch.empty((0, *shape[1:]), dtype=portion.dtype, device=device)
    mapped: Tensor = file.get_tensor(name) if rows is None else file.get_slice(name)[rows]
    return mapped.to(device=device, dtype=portion.dtype, copy=True)


def stored_are_equal(stored: Mapping[str, StoredTensor], name: str, other: str, dtype: torch.dtype) -> bool:
    """Tells whether two stored tensors of one shape are equal in a type; a few rows of both are read at a time."""
    with opened(stored[name].file) as file, opened(stored[other].file) as other_file:
        slices = file.get_slice(name), other_file.get_slice(other)
        starts = range(0, stored[name].shape[0], ROWS_AT_A_TIME)
        return all(torch.equal(*(one[start : start + ROWS_AT_A_TIME].to(dtype) for one in slices)) for start in starts)


def is_finite(tensor: Tensor) -> bool:
    """Tells whether every number is finite; extremes keep NaN, and need no memory."""
    return not tensor.numel() or all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(tensor))
