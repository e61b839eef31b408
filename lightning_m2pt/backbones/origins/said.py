"""Where a frozen base comes from, as an adapter says it: what another machine finds it by, and no path of this one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lightning_m2pt.backbones.hub_ids import COMMIT, cache_of
from lightning_m2pt.configuration.paths import EMBEDDED, HUB, absolute

Kind: TypeAlias = Literal["embedded", "hub", "files"]
"""Comes with the package; of the hub, every file; of files that nothing but their content names."""
OURS = {
    "OpenClipLlama": "lightning_m2pt.backbones.open_clip_llama",
    "VisionLanguageModel": "lightning_m2pt.backbones.vision_language_model",
    "TowerAndDecoder": "lightning_m2pt.backbones.pairs.tower_and_decoder",
}
"""The library's classes by the names that adapters use, and their modules."""
WITH_WEIGHTS = ("testbed", "testbed_patch12")
"""The embedded backbones."""
EMBEDDED_FILES = {
    "vision_config": "vision/open_clip_config.json",
    "vision_weights": "vision/open_clip_model.safetensors",
    "language_config": "language",
    "language_model": "language",
    "projector_weights": "projector/model.safetensors",
}
"""Their files, by argument of ``OpenClipLlama``."""
NAME = "name"
REPOSITORY, AT_COMMIT, FILE = "repository", "commit", "file"
"""Keys of a file of the hub; a whole repository has no ``file``."""
SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class BaseOrigin:
    """Where a base comes from.

    Attributes:
        kind: What is known of it.
        class_name: Name of the backbone's class; empty where adapters do not say it.
        arguments: JSON values: the embedded backbone's ``name``; or the arguments of the class that decide the model,
            those that are files as ``repository``, ``commit`` and ``file``; nothing of other files.
    """

    kind: Kind = "files"
    class_name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def said(self) -> dict[str, Any]:
        """Returns what an adapter's configuration says, as JSON values."""
        return {"kind": self.kind, "class": self.class_name, "arguments": dict(self.arguments)}

    def readable_name(self, fingerprint: str) -> str:
        """Returns what people call the base: its name, its repositories, or its class with the fingerprint's beginning.

        Args:
            fingerprint: The base's.
        """
        if self.kind == "embedded":
            return f"lightning_m2pt/embedded/{self.arguments[NAME]}/language"  # as before format 3
        places = [value[REPOSITORY] for value in self.arguments.values() if isinstance(value, dict)]
        return " + ".join(dict.fromkeys(places)) or f"{self.class_name or 'files'} {fingerprint[:16]}"


def origin_of(kind: type, files: Mapping[str, Path], settings: Mapping[str, Any]) -> BaseOrigin:
    """Returns where a backbone comes from.

    Args:
        kind: Its class; what classes of one's own are made of nobody else has.
        files: Its files and folders by argument.
        settings: Its other arguments that decide the model, JSON values.
    """
    unknown = BaseOrigin("files", kind.__name__)
    if OURS.get(kind.__name__) != kind.__module__:
        return unknown
    for name in WITH_WEIGHTS:
        if {argument: path.resolve() for argument, path in files.items()} == {
            argument: (EMBEDDED / name / place).resolve() for argument, place in EMBEDDED_FILES.items()
        }:
            return BaseOrigin("embedded", kind.__name__, {NAME: name})
    places = {argument: place_in_hub(path) for argument, path in files.items()}
    if not all(places.values()):
        return unknown
    return BaseOrigin("hub", kind.__name__, {**places, **settings})


def place_in_hub(path: Path) -> dict[str, str] | None:
    """Returns repository, commit and file of what lies in the hub's cache; None of anything else.

    Args:
        path: A file or folder. The cache's files are links: it is looked at as it is written.
    """
    cache = cache_of("any").parent
    whole = Path(absolute(str(path)))
    if not whole.is_relative_to(cache):
        return None
    repository, *rest = whole.relative_to(cache).parts or ("",)
    kind, _, name = repository.partition("--")
    if kind != "models" or len(rest) < 2 or rest[0] != SNAPSHOTS or COMMIT.fullmatch(rest[1]) is None:
        return None
    found = {REPOSITORY: name.replace("--", "/"), AT_COMMIT: rest[1]}
    return {**found, FILE: "/".join(rest[2:])} if rest[2:] else found


def hub_name(place: Mapping[str, str]) -> str:
    """Returns how an experiment names a repository of the hub."""
    return f"{HUB}{place[REPOSITORY]}"
