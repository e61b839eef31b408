"""What is written beside an aligned projector: between which weights it was aligned. Others are refused.

Another fine-tune of the same decoder has the same widths, so that its numbers would be wrong and nothing would fail.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.hub_ids import FETCH, MADE_OF_WHEELS
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.configuration.paths import absolute
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.file_hashes import sha256_of_file
from lightning_m2pt.visible_text import counted

RECORD = "training.json"
PROJECTOR = "projector/model.safetensors"
"""The projector, seen from the record; a file of another name or place has none."""
ALIGNMENT = "alignment_version"
"""Key of an alignment's record; embedded backbones have one of the same name, without it."""
BASE, FILES = "base", "files"
"""Keys of the SHA-256 of both models' weights, and of the files beside the record, by their paths."""
KEY = "model.backbone.projector"
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class AlignmentRecord:
    """What a record says of its projector.

    Attributes:
        path: The record.
        name: Of the recipe; empty if it says none.
        projector: SHA-256 of the projector.
        base: SHA-256 of the weights that it was aligned between, as ``PairFiles.weights`` names them.
    """

    path: Path
    name: str
    projector: str
    base: Mapping[str, str]

    def remedy(self) -> str:
        """Returns what to do about other weights."""
        if self.name not in MADE_OF_WHEELS:
            return "name the models that it was aligned between, or a projector of these"
        return (
            f"{FETCH['model']} {self.name} makes that pair; "
            f"m2pt backbone --name {self.name} --output FOLDER aligns a projector between others"
        )


def record_beside(projector: Path) -> AlignmentRecord | None:
    """Returns what is recorded of a projector; None if there is no record of an alignment.

    Args:
        projector: The projector's file; behind a link, the record where the file lies counts as well.

    Raises:
        BadInputError: If the record is damaged.
    """
    for place in (Path(absolute(str(projector))), projector.resolve()):
        path = place.parent.parent / RECORD
        if path.parent / PROJECTOR == place and path.is_file():
            content = read_json(path, KEY)
            return record_of(content, path) if ALIGNMENT in content else None
    return None


def record_of(content: Mapping[str, Any], path: Path) -> AlignmentRecord:
    """Returns what a record says.

    Raises:
        BadInputError: If a hash is missing or is none.
    """
    base, files, settings = content.get(BASE), content.get(FILES), content.get("settings")
    own = files.get(PROJECTOR) if isinstance(files, dict) else None
    if not isinstance(base, dict) or not base or not all(is_sha256(each) for each in (own, *base.values())):
        raise BadInputError(
            f"{path} does not say which weights the projector was aligned between",
            where=KEY,
            expected=f"the SHA-256 of {PROJECTOR} below {FILES!r}, and of both models' weights below {BASE!r}",
            hint="copy or download the folder again",
        )
    name = settings.get("name") if isinstance(settings, dict) else None
    return AlignmentRecord(path, name if isinstance(name, str) else "", str(own), base)


def is_sha256(value: object) -> bool:
    """Tells whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def refuse_other_base(projector: Path, weights: Mapping[str, Path]) -> None:
    """Compares a pair with the one that its projector was aligned between; does nothing where that is not recorded.

    Hashes are those of the pair's fingerprint: a large file is read for both once, and not again at the next start.

    Args:
        projector: The projector's file.
        weights: Of ``PairFiles.weights``.

    Raises:
        BadInputError: If the record is damaged, or the projector or a weight file is not the recorded one.
    """
    record = record_beside(projector)
    if record is None:
        return
    if sha256_of_file(projector) != record.projector:
        raise BadInputError(
            f"this is not the projector that {record.path} describes",
            where=str(projector),
            expected=f"SHA-256 {record.projector}",
            hint="get the folder again; a projector of your own lies in a folder without that record",
        )
    if set(weights) != set(record.base):
        raise BadInputError(
            f"the pair's weights are {counted(sorted(weights))}",
            where="model.backbone",
            expected=f"{counted(sorted(record.base))}: {record.path} says that the projector was aligned between these",
            hint=record.remedy(),
        )
    for name, expected in record.base.items():
        found = sha256_of_file(weights[name])
        if found != expected:
            raise BadInputError(
                f"the projector {projector} was aligned with other weights (SHA-256 here {found})",
                where=str(weights[name]),
                expected=f"SHA-256 {expected}, as {record.path} says",
                hint=record.remedy(),
            )
