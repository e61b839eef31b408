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
PAIR, LAYER, NORM = "pair", "feature_layer", "feature_norm"
"""Keys of what the pair was set to, and of the tower's hidden state in it."""
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
        feature_layer: Of the tower's hidden states the one that it was aligned to; None if it says none.
        feature_norm: Whether that went through the tower's last norm; None if it does not say.
    """

    path: Path
    name: str
    projector: str
    base: Mapping[str, str]
    feature_layer: int | None = None
    feature_norm: bool | None = None

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
    pair = content.get(PAIR, {})
    layer, norm = (pair.get(LAYER), pair.get(NORM)) if isinstance(pair, dict) else ("none", None)
    if not (layer is None or type(layer) is int) or not isinstance(norm, bool | None):
        raise BadInputError(
            f"{path} does not say which hidden state the projector was aligned to",
            where=KEY,
            expected=f"a number as {LAYER!r} below {PAIR!r}",
            hint="copy or download the folder again",
        )
    return AlignmentRecord(path, name if isinstance(name, str) else "", str(own), base, layer, norm)


def is_sha256(value: object) -> bool:
    """Tells whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def refuse_other_features(projector: Path, used: int, layers: int, *, normed: bool) -> None:
    """Compares the hidden state that a projector reads with the one that it was aligned to, as far as that is recorded.

    Every hidden state has the same width and its own meaning: of another one the numbers would be wrong in silence.

    Args:
        projector: The projector's file.
        used: How many of the tower's blocks run.
        layers: How many there are.
        normed: Whether the state goes through the tower's last norm.

    Raises:
        BadInputError: If it is another one, or the record is damaged.
    """
    record = record_beside(projector)
    if record is None or record.feature_layer is None:
        return
    layer, norm = record.feature_layer, normed if record.feature_norm is None else record.feature_norm
    if (layer + layers + 1 if layer < 0 else layer, norm) != (used, normed):
        raise BadInputError(
            f"the projector {projector} was aligned to another hidden state than that behind block {used} of {layers}"
            f"{' and its norm' if normed else ''}",
            where=f"model.backbone.{NORM if norm != normed else LAYER}",
            expected=f"{LAYER}: {layer} and {NORM}: {str(norm).lower()}, as {record.path} says",
            hint="m2pt backbone aligns a projector; one of your own lies in a folder without that record",
        )


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
