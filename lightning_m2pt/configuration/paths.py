"""Where a path of a configuration stands.

A path in a file stands relative to that file, one of the command line to the working directory; a run's record keeps
absolute ones. What has a place that goes by a name keeps the name: the embedded weights are ``${embedded:NAME}``, and
what lies below ``M2PT_MODELS`` or ``M2PT_DATA`` is ``${oc.env:...}``, so that a run can be copied to another machine.

A text that begins with ``hub:`` names a model of the Hugging Face hub and is no path, whatever lies where.

Which settings are paths is written in signatures: an argument annotated ``FilePath`` or ``Path``, alone or in a union,
is one.
"""

import inspect
import os
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Annotated, Any

import yaml

from lightning_m2pt.configuration.strict_yaml import plain


class PathMark:
    """Says in a signature that a text is a path."""

    def __repr__(self) -> str:
        """Shows as one word in a parser's help."""
        return "path"


FilePath = Annotated[str, PathMark()]
"""A path of a file or folder, as text."""


class NameOrFileMark:
    """Says in a signature that a text is a name, or a YAML file's path."""

    def __repr__(self) -> str:
        """Shows as one word in a parser's help."""
        return "file"


NameOrFile = Annotated[str, NameOrFileMark()]
"""A name, or the path of a YAML file, which ends as one."""

EMBEDDED = Path(__file__).parents[1] / "embedded"
"""Weights and configurations that come with the package, a folder each."""
FOR_CONFIGURATIONS = ("M2PT_MODELS", "M2PT_DATA")
"""Where models and data are; all that a configuration may ask the environment for."""

HUB = "hub:"
"""What a hub model's name begins with where a path might stand: ``hub:owner/name``."""

INSIDE_ANOTHER = frozenset({"sub_dir"})
"""Arguments that Lightning types as paths, but which name a folder inside another one."""
NAMED_IN_TEXT = re.compile(r"\b(?:FilePath|_PATH|Path|PathLike)\b")
FROM_ENVIRONMENT = re.compile(rf"\$\{{oc\.env:\s*({'|'.join(FOR_CONFIGURATIONS)})\s*,\s*([^,${{}}]*?)\s*\}}")
PLAIN_FOR_OMEGACONF = re.compile(r"[A-Za-z0-9_/.~@%+=: -]+")
"""Letters of a path that OmegaConf reads behind ``${oc.env:NAME,`` as they are."""


class FileText(str):
    """A text that a file holds.

    Attributes:
        folder: The file's folder, absolute.
    """

    __slots__ = ("folder",)

    folder: Path

    def __new__(cls, text: str, folder: Path) -> "FileText":
        """Makes the text."""
        made = super().__new__(cls, text)
        made.folder = folder
        return made


def values_of_files(node: yaml.Node) -> Any:
    """Returns a tree's plain values; every text that stands in a file knows the file's folder."""
    return plain(node, text_of_file)


def text_of_file(node: yaml.Node) -> str:
    """Returns a scalar's text with the folder of the file that its mark names; without one it is just text."""
    name = node.start_mark.name if node.start_mark is not None else ""
    return FileText(str(node.value), Path(absolute(str(Path(name).parent)))) if name else str(node.value)


def embedded_names() -> list[str]:
    """Returns the names that ``${embedded:NAME}`` takes."""
    return sorted(path.name for path in EMBEDDED.iterdir() if path.is_dir() and path.name.isidentifier())


def path_arguments(owner: type[Any]) -> frozenset[str]:
    """Returns the arguments of a class that are paths, as its signature, or those it passes arguments on to, says.

    Args:
        owner: The class.
    """
    found: set[str] = set()
    for base in inspect.getmro(owner):
        if (constructor := vars(base).get("__init__")) is None:
            continue
        parameters = inspect.signature(constructor).parameters.values()
        found |= {one.name for one in parameters if is_path(one.annotation, base)}
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
    return frozenset(found - INSIDE_ANOTHER)


def file_arguments(owner: type[Any]) -> frozenset[str]:
    """Returns the arguments of a class that are names or YAML files.

    Args:
        owner: The class.
    """
    constructors = (vars(base).get("__init__") for base in inspect.getmro(owner))
    return frozenset(
        one.name
        for constructor in constructors
        if constructor is not None
        for one in inspect.signature(constructor).parameters.values()
        if any(isinstance(part, NameOrFileMark) for part in parts_of(one.annotation))
    )


def is_yaml(value: object) -> bool:
    """Tells whether the value of such an argument is a file."""
    return isinstance(value, str) and value.endswith((".yaml", ".yml"))


def is_path(annotation: Any, owner: type) -> bool:
    """Tells whether an annotation is that of a path, or of a union or list with one.

    Args:
        annotation: The annotation; a text of code where its module postpones their evaluation.
        owner: The class, in whose module the text is read.
    """
    if isinstance(annotation, str):
        if NAMED_IN_TEXT.search(annotation) is None:
            return False
        names = re.findall(r"[A-Za-z_]\w*", annotation)
        known = vars(sys.modules[owner.__module__])
        return any(is_path(known[name], owner) for name in names if not isinstance(known.get(name, ""), str))
    return any(
        isinstance(part, PathMark) or (isinstance(part, type) and issubclass(part, (PurePath, os.PathLike)))
        for part in parts_of(annotation)
    )


def parts_of(annotation: Any) -> Iterator[Any]:
    """Yields an annotation and everything inside it."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from parts_of(part)


def beside_its_file(text: str) -> str:
    """Returns a path with the folder of the file that holds it in front; as it is where it says itself where it stands.

    The default of a variable that is not set stands beside the file, too; what goes on from another setting
    (``${KEY}/...``), the embedded weights or a variable stands where that does.
    """
    if not isinstance(text, FileText):
        return text
    chosen = FROM_ENVIRONMENT.match(text)
    if chosen is not None and chosen[1] not in os.environ:
        return absolute(chosen[2] + text[chosen.end() :], text.folder)
    return str(text) if text.startswith("${") else absolute(text, text.folder)


def absolute(text: str, folder: Path | None = None) -> str:
    """Returns a path as an absolute one without ``..``.

    Args:
        text: The path; an absolute one stays.
        folder: What a relative one stands in; None for the working directory.
    """
    return str(without_dots((folder or Path.cwd()) / text))


def without_dots(path: Path) -> Path:
    """Returns a path without ``..`` inside, to the file that the system would open.

    Behind a link, ``..`` is the folder above what the link leads to, not the one that the link lies in.
    """
    place = Path(path.anchor)
    for part in path.parts[len(place.parts) :]:
        if part != ".." or (place.name in ("", "..") and not place.anchor):
            place /= part
        else:
            place = Path(os.path.realpath(place)).parent if os.path.islink(place) else place.parent
    return place


def from_here(path: Path) -> Path:
    """Returns a path as seen from the working directory if it lies in there, and the absolute one otherwise."""
    whole, here = Path(absolute(str(path))), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def portable(text: str) -> str:
    """Returns an absolute path so that it holds on another machine, too, if it lies where names lead.

    Embedded weights go by their name, and what lies below the values of ``M2PT_MODELS`` and ``M2PT_DATA`` by the
    variable, with the present value as its default.
    """
    path = Path(text)
    if path.is_relative_to(EMBEDDED):
        name, *rest = path.relative_to(EMBEDDED).parts or ("",)
        if name in embedded_names():
            return "/".join([f"${{embedded:{name}}}", *rest])
    for variable in FOR_CONFIGURATIONS:
        value = absolute(os.environ.get(variable) or "/")
        if value != "/" and path.is_relative_to(value) and PLAIN_FOR_OMEGACONF.fullmatch(value):
            return "/".join([f"${{oc.env:{variable},{value}}}", *path.relative_to(value).parts])
    return text


def hashed(text: str, checkout: Path) -> str:
    """Returns a path as names of evaluations' folders are made from it: the same in another checkout, and as ever.

    Args:
        text: An absolute path.
        checkout: The folder that paths inside it are seen from, whatever the working directory.
    """
    path = Path(text)
    if path.is_relative_to(EMBEDDED):
        return (Path("experiments/backbones") / path.relative_to(EMBEDDED)).as_posix()  # where they once were
    return str(path.relative_to(checkout) if path.is_relative_to(checkout) else path)


def readable(text: str) -> str:
    """Returns a path as people write it: embedded weights as of the package, anything else as it is."""
    path = Path(text)
    return path.relative_to(EMBEDDED.parents[1]).as_posix() if path.is_relative_to(EMBEDDED) else path.as_posix()
