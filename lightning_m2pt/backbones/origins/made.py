"""From what an adapter says of its base to a backbone that has read configuration only.

The adapter may be anybody's: a class is one of the library's three, a file one of the hub's cache, and nothing is
imported or run that the library does not bring.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from types import NoneType
from typing import Any

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.backbones.hub_ids import COMMIT, cached_folder, refuse_odd_name
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.origins.said import (
    AT_COMMIT,
    EMBEDDED_FILES,
    FILE,
    NAME,
    OURS,
    REPOSITORY,
    WITH_WEIGHTS,
    BaseOrigin,
    hub_name,
)
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError

BASE = "base"
"""Key of an adapter's configuration."""
KEYS = ("kind", "class", "arguments")
KINDS = ("embedded", "hub", "files")
FILES: dict[str, tuple[str, ...]] = {
    "OpenClipLlama": tuple(EMBEDDED_FILES),
    "VisionLanguageModel": ("model",),
    "TowerAndDecoder": ("vision_tower", "language_model", "projector"),
}
"""Arguments that are files, by class."""
SETTINGS: dict[str, dict[str, tuple[type, ...]]] = {
    "OpenClipLlama": {},
    "VisionLanguageModel": {},
    "TowerAndDecoder": {"feature_layer": (int,), "feature_norm": (bool,), "image_size": (int, NoneType)},
}
"""Other arguments that decide the model, and what they may be."""
REVISIONS = {"model": "revision", "vision_tower": "vision_revision", "language_model": "language_revision"}
"""Arguments that take a repository's name, and the one that takes its commit."""
OF_FOLDERS = ("VisionLanguageModel", "TowerAndDecoder")
"""Classes whose folders may go by a repository's name, and whose weights may be packed."""
DTYPES = ("float32", "bfloat16", "float64")
QUANTIZATIONS = (None, "nf4", "int8")
FORM = ("dtype", "quantization")
"""The arguments that say in which type weights are, and how they are packed."""


def origin_in(config: Mapping[str, Any], where: str) -> BaseOrigin:
    """Returns what an adapter's configuration says of its base; before format 3 it says nothing.

    Args:
        config: The configuration.
        where: Its file, for messages.

    Raises:
        BadInputError: If it says something that no adapter does; the first mistake is named.
    """
    if BASE not in config:
        return BaseOrigin()
    said, where = config[BASE], f"{where}: {BASE}"
    if not isinstance(said, dict) or set(said) != set(KEYS):
        raise BadInputError(f"{said!r:.60} is no base", where=where, expected=f"an object of {', '.join(KEYS)}")
    kind, name, arguments = (said[key] for key in KEYS)
    if kind not in KINDS:
        raise BadInputError(f"{kind!r:.60} is no kind of base", where=f"{where}.kind", expected=" or ".join(KINDS))
    if not isinstance(name, str) or (kind != "files" and name not in OURS):
        raise BadInputError(
            f"{name!r:.60} is no backbone of the library", where=f"{where}.class", expected=" or ".join(OURS)
        )
    if not isinstance(arguments, dict):
        raise BadInputError(f"{arguments!r:.60} are no arguments", where=f"{where}.arguments", expected="an object")
    if kind == "embedded":
        refuse_other_embedded(name, arguments, where)
    elif kind == "hub":
        refuse_other_arguments(name, arguments, where)
    elif arguments:
        raise BadInputError("files have no arguments", where=f"{where}.arguments", expected="{}")
    return BaseOrigin(kind, name, arguments)


def refuse_other_embedded(class_name: str, arguments: Mapping[str, Any], where: str) -> None:
    """Refuses what is none of the embedded backbones.

    Raises:
        BadInputError: Naming it.
    """
    if class_name != "OpenClipLlama" or set(arguments) != {NAME} or arguments[NAME] not in WITH_WEIGHTS:
        raise BadInputError(
            f"{class_name} {dict(arguments)!r:.60} is no embedded backbone",
            where=f"{where}.arguments",
            expected=f"OpenClipLlama with the name {' or '.join(WITH_WEIGHTS)}",
        )


def refuse_other_arguments(class_name: str, arguments: Mapping[str, Any], where: str) -> None:
    """Compares arguments with those of a class.

    Raises:
        BadInputError: If one is unknown, missing, of another type, or no place in the hub.
    """
    files, settings = FILES[class_name], SETTINGS[class_name]
    for name in sorted({*files, *settings} ^ set(arguments)):
        raise BadInputError(
            f"{name!r:.60} is {'unknown' if name in arguments else 'missing'}",
            where=f"{where}.arguments",
            expected=f"{', '.join([*files, *settings])} of {class_name}",
        )
    for name, types in settings.items():
        if type(arguments[name]) not in types:
            raise BadInputError(
                f"{arguments[name]!r:.60} is no {name}",
                where=f"{where}.arguments.{name}",
                expected=" or ".join(each.__name__ for each in types),
            )
    for name in files:
        refuse_odd_place(arguments[name], f"{where}.arguments.{name}")


def refuse_odd_place(place: object, where: str) -> None:
    """Refuses what is no repository at a commit, or a file that does not lie in it.

    Raises:
        BadInputError: Naming it.
    """
    keys = {REPOSITORY, AT_COMMIT}
    is_place = isinstance(place, dict) and keys <= set(place) <= keys | {FILE}
    if not is_place or not all(isinstance(value, str) for value in place.values()):  # type: ignore[attr-defined]
        raise BadInputError(
            f"{place!r:.60} is no place in the hub", where=where, expected=f"{REPOSITORY}, {AT_COMMIT} and {FILE}"
        )
    assert isinstance(place, dict)
    refuse_odd_name(place[REPOSITORY], None, where)
    if not COMMIT.fullmatch(place[AT_COMMIT]):
        raise BadInputError(f"{place[AT_COMMIT]!r:.60} is no commit", where=where, expected="40 hexadecimal digits")
    file = place.get(FILE, "file")
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or str(path) != file or file == "." or "\\" in file or "\0" in file:
        raise BadInputError(
            f"{file!r:.60} is no file of a repository", where=where, expected="a path inside it, without .. in it"
        )


def backbone_of(origin: BaseOrigin, *, dtype: str = "float32", quantization: str | None = None) -> Backbone:
    """Makes a backbone of where it comes from; configuration is read, and no weights are.

    Args:
        origin: Of ``origin_in``, or of a backbone.
        dtype: Type of the frozen weights.
        quantization: How the weights of the decoder's layers are packed.

    Raises:
        BadInputError: If nothing but a fingerprint is known of it, its repository is not on this machine, it cannot be
            packed, or its configuration is not what the class takes.
    """
    refuse_unknown_form(dtype, quantization)
    if origin.kind == "files":
        raise BadInputError(
            f"nothing names the base but its content: {origin.class_name or 'a backbone'} of files",
            where=BASE,
            expected="the base that the adapter was tuned on",
            hint="base=FOLDER or base=hub:OWNER/NAME says where it is; in a command, --config FILE does",
        )
    refuse_packing(origin, quantization)
    if origin.kind == "embedded":
        return embedded_backbone(origin.arguments[NAME], dtype)  # type: ignore[arg-type]
    arguments = constructor_arguments(origin)
    if origin.class_name == "OpenClipLlama":
        return OpenClipLlama(**arguments, dtype=dtype)  # type: ignore[arg-type]
    kind = VisionLanguageModel if origin.class_name == "VisionLanguageModel" else TowerAndDecoder
    return kind(**arguments, dtype=dtype, quantization=quantization)  # type: ignore[arg-type]


def refuse_unknown_form(dtype: object, quantization: object, *, places: tuple[str, str] = FORM) -> None:
    """Refuses types and packings that no base has.

    Args:
        dtype: Type of the frozen weights.
        quantization: How they are packed.
        places: What names each of the two, for messages.

    Raises:
        BadInputError: Naming it.
    """
    if dtype not in DTYPES:
        raise BadInputError(f"{dtype!r:.40} is no type of weights", where=places[0], expected=" or ".join(DTYPES))
    if quantization not in QUANTIZATIONS:
        raise BadInputError(f"{quantization!r:.40} packs nothing", where=places[1], expected="nf4, int8 or none")


def refuse_packing(origin: BaseOrigin, quantization: object, where: str = FORM[1]) -> None:
    """Refuses to pack the weights of a class that does not.

    Raises:
        BadInputError: Naming the class.
    """
    if quantization is not None and origin.class_name not in OF_FOLDERS:
        raise BadInputError(
            f"the weights of {origin.class_name} are not packed",
            where=where,
            expected=f"none, or a base of {' or '.join(OF_FOLDERS)}",
        )


def constructor_arguments(origin: BaseOrigin) -> dict[str, Any]:
    """Returns the arguments of a class whose files are of the hub, types and packing left aside.

    Raises:
        BadInputError: If a repository is not on this machine at its commit.
    """
    made: dict[str, Any] = {}
    for name, value in origin.arguments.items():
        if not isinstance(value, dict):
            made[name] = value
            continue
        folder = cached_folder(value[REPOSITORY], value[AT_COMMIT], f"{BASE}.{name}")
        if FILE not in value and name in REVISIONS and origin.class_name in OF_FOLDERS:
            made[name], made[REVISIONS[name]] = hub_name(value), value[AT_COMMIT]
        else:
            made[name] = str(folder / value[FILE]) if FILE in value else str(folder)
    return made
