"""Weights of others as safetensors: which files become which, and the numbers unchanged."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from torch import Tensor

from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.weight_files import INDEX, SINGLE, compare_names
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.foreign.clip_configs import (
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    PREPROCESSING,
    TRANSFORMERS_CONFIG,
    missing_layout_file,
    open_clip_config,
    transformers_configs,
)
from lightning_m2pt.storage.foreign.clip_layouts import OPEN_CLIP, sizes_of, to_open_clip, to_transformers
from lightning_m2pt.storage.foreign.recognition import (
    kind_of,
    open_clip_tensors,
    projector_tensors,
    tower_alone,
    transformers_prefix,
)
from lightning_m2pt.storage.foreign.sources import Source, read_source
from lightning_m2pt.storage.foreign.written import Drafts, drafts, is_conversion_of
from lightning_m2pt.system.file_hashes import sha256_of_file
from lightning_m2pt.visible_text import counted

Layout: TypeAlias = Literal["open_clip", "transformers"]

PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
PROJECTOR_FILE = "projector.safetensors"
ENDINGS = (".bin", ".pt", ".pth")
ALONE = (PICKLED, "open_clip_pytorch_model.bin", OPEN_CLIP_WEIGHTS, SINGLE)
"""Names of files that are a folder's weights, the first that is there."""
BESIDE_WEIGHTS = ("*.json", "*.txt", "*.model", "*.md", "LICENSE*")
"""What belongs to weights and is copied into another folder."""


def convert(source: Path, output: Path | None, layout: Layout | None) -> list[Path]:
    """Converts a file, or a folder's weights.

    Args:
        source: The file or folder.
        output: A ``.safetensors`` file for one file, or a folder; None writes beside the source.
        layout: Other names for a CLIP vision tower, with the configuration they need; None keeps names.

    Returns:
        The files that are there now, weights first.

    Raises:
        BadInputError: If something cannot be read, is no weights, or stands in the way; nothing has changed then.
        EnvironmentFailure: If a file cannot be written.
    """
    if source.is_dir() and (source / PICKLED_INDEX).is_file():
        refuse_layout(layout, source)
        return convert_shards(source, output or source)
    path = weights_in(source) if source.is_dir() else source
    if layout is not None:
        return convert_layout(read_source(path), output, layout)
    written = convert_file(path, output)
    return written if output is None or is_file(output) else [*written, *copy_beside(path.parent, output)]


def weights_in(folder: Path) -> Path:
    """Returns the file that holds a folder's weights.

    Raises:
        BadInputError: If there is none, or several and it is unclear which.
    """
    named = [folder / name for name in ALONE if (folder / name).is_file()]
    found = named or sorted(path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file())
    if not found or (not named and len(found) > 1):
        what = f"several files: {counted([path.name for path in found])}" if found else "there are no weights in it"
        raise BadInputError(what, where=str(folder), expected="weights, such as pytorch_model.bin; or name the file")
    return found[0]


def convert_file(path: Path, output: Path | None) -> list[Path]:
    """Converts one file into one file, names as the backbones want them.

    Raises:
        BadInputError: If it is no weights, is safetensors under right names already, or something stands in the way.
    """
    read = read_source(path)
    tensors, name = renamed(read)
    target = output if output is not None and is_file(output) else (output or path.parent) / name
    origin = origin_of(path)
    if is_conversion_of(target, origin):
        return [target]
    if read.container == "safetensors" and list(tensors) == list(read.tensors):
        raise BadInputError(
            "these are safetensors already",
            where=str(path),
            expected="a pickle, or --layout for a CLIP vision tower",
        )
    with drafts() as written:
        written.add_tensors(target, tensors, origin)
    return [target]


def renamed(read: Source) -> tuple[dict[str, Tensor], str]:
    """Returns a source's tensors under the names that backbones want, and the name of their file.

    Raises:
        BadInputError: If it is a published checkpoint of M2PT, or a projector of another form.
    """
    kind, place = kind_of(read.tensors), str(read.path)
    if kind == "published_m2pt":
        raise BadInputError(
            "prompts stand in it: this is a checkpoint of M2PT's published code, or a part of one",
            where=place,
            expected="a base's weights",
            hint=f"m2pt convert {read.path.parent} --output DIR makes a base and an adapter of the checkpoint",
        )
    if kind == "projector":
        return projector_tensors(read.tensors, place), PROJECTOR_FILE
    if kind == "open_clip":
        return open_clip_tensors(read.tensors), OPEN_CLIP_WEIGHTS
    name = SINGLE if read.path.name == PICKLED else f"{read.path.stem}.safetensors"
    return dict(read.tensors), name


def convert_shards(folder: Path, output: Path) -> list[Path]:
    """Converts the shards that a folder's index names, one by one, and the index.

    Raises:
        BadInputError: If index and shards disagree, a shard cannot be read, or something stands in the way.
    """
    index = folder / PICKLED_INDEX
    places = read_json(index, str(folder)).get("weight_map")
    if not isinstance(places, dict) or not places or not all(is_shard_name(name) for name in places.values()):
        raise BadInputError(
            "this is no index of weights", where=str(index), expected="weight_map: file names by tensor"
        )
    shards = sorted(set(places.values()))
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise BadInputError(f"missing {counted(missing)}", where=str(index), hint="download them again")
    names = {name: f"model-{number:05}-of-{len(shards):05}.safetensors" for number, name in enumerate(shards, 1)}
    total, made = 0, []
    with drafts() as written:
        for shard in shards:
            read, target, origin = read_source(folder / shard), output / names[shard], origin_of(folder / shard)
            named = {name for name, place in places.items() if place == shard}
            compare_names(named, read.tensors, folder / shard, f"the tensors that {PICKLED_INDEX} says are here")
            total += sum(tensor.nbytes for tensor in read.tensors.values())
            made.append(target)
            if not is_conversion_of(target, origin):
                written.add_tensors(target, read.tensors, origin)
        weight_map = {name: names[place] for name, place in sorted(places.items())}
        content = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n"
        made += add_text(written, output / INDEX, content)
    return made if output.resolve() == folder.resolve() else [*made, *copy_beside(folder, output)]


def convert_layout(read: Source, output: Path | None, layout: Layout) -> list[Path]:
    """Writes a CLIP vision tower in another layout into a folder of its own, configuration beside it.

    Raises:
        BadInputError: If it is no CLIP vision tower, has that layout already, or configurations are missing.
    """
    folder, place, kind = read.path.parent, str(read.path), kind_of(read.tensors)
    if output is None or is_file(output):
        raise BadInputError(
            "another layout needs a folder of its own", where="command line: --output", expected="--output DIR"
        )
    other, needed = ("transformers", "transformers_clip") if layout == "open_clip" else ("open_clip", "open_clip")
    if kind != needed:
        raise BadInputError(
            f"this is no CLIP vision tower in {other}'s layout",
            where=place,
            expected="a CLIP model or its vision tower in the other layout",
        )
    if layout == "open_clip":
        for name in (TRANSFORMERS_CONFIG, PREPROCESSING):
            if not (folder / name).is_file():
                raise missing_layout_file(folder, name)
        prefix = transformers_prefix(read.tensors)
        tensors = to_open_clip(tower_alone(read.tensors, prefix or ""), place)
        sizes = sizes_of(bare(tensors), place)
        configs, target = {OPEN_CLIP_CONFIG: open_clip_config(folder, sizes)}, output / OPEN_CLIP_WEIGHTS
    else:
        if not (folder / OPEN_CLIP_CONFIG).is_file():
            raise missing_layout_file(folder, OPEN_CLIP_CONFIG)
        tower = bare(open_clip_tensors(read.tensors))
        sizes = sizes_of(tower, place)
        tensors, target = to_transformers(tower, place), output / SINGLE
        configs = transformers_configs(folder / OPEN_CLIP_CONFIG, sizes)
    with drafts() as written:
        written.add_tensors(target, tensors, {**origin_of(read.path), "layout": layout})
        made = [target]
        for name, content in configs.items():
            made += add_text(written, output / name, json.dumps(content, indent=2) + "\n")
    return made


def bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tower of an open_clip model, names without ``visual.`` in front."""
    return {name.removeprefix(OPEN_CLIP): one for name, one in tensors.items() if name.startswith(OPEN_CLIP)}


def add_text(written: Drafts, path: Path, content: str) -> list[Path]:
    """Adds a small file unless the same stands there.

    Raises:
        BadInputError: If another stands there.
    """
    if not (path.is_file() and path.read_bytes() == content.encode()):
        written.add_bytes(path, content.encode())
    return [path]


def copy_beside(folder: Path, output: Path) -> list[Path]:
    """Copies configuration, tokenizer and licence into another folder, where files of these names are kept."""
    found = sorted({path for pattern in BESIDE_WEIGHTS for path in folder.glob(pattern) if path.is_file()})
    wanted = [path for path in found if path.name != PICKLED_INDEX and not (output / path.name).exists()]
    with drafts() as written:
        for path in wanted:
            written.add_bytes(output / path.name, path.read_bytes())
    return [output / path.name for path in wanted]


def origin_of(path: Path) -> dict[str, str]:
    """Returns what a converted file's header says of its source."""
    return {"converted_from": path.name, "source_sha256": sha256_of_file(path)}


def is_file(output: Path) -> bool:
    """Tells whether an output names a file, not a folder."""
    return output.suffix == ".safetensors"


def is_shard_name(name: object) -> bool:
    """Tells whether an index names a torch file of its own folder."""
    return isinstance(name, str) and name.endswith(ENDINGS) and Path(name).name == name


def refuse_layout(layout: Layout | None, folder: Path) -> None:
    """Refuses another layout for weights in shards.

    Raises:
        BadInputError: If one is asked for.
    """
    if layout is not None:
        raise BadInputError(
            "weights in shards are no CLIP vision tower",
            where=str(folder),
            expected="one file, for --layout",
        )
