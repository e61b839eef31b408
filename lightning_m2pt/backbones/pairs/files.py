"""What a pair of tower and decoder is built from, named by one fingerprint."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.base_files import DECIDES_NOTHING, refuse_changed, tokenizer_content, without_keys
from lightning_m2pt.backbones.foreign_code import CONFIG_FILE
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.pairs.alignment_record import refuse_other_base
from lightning_m2pt.backbones.weight_files import INDEX
from lightning_m2pt.system.file_hashes import sha256_of_file

VERSION = "pair:"
"""What a pair's fingerprint begins with."""


@dataclass(frozen=True)
class PairFiles:
    """The files of a frozen pair.

    Attributes:
        tower: What the tower's configuration says.
        tower_weights: Its safetensors.
        features: What is taken from the tower.
        language_model: Folder of the configuration, weights and tokenizer of the language model.
        projector: The projector's safetensors file.
    """

    tower: Mapping[str, Any]
    tower_weights: list[Path]
    features: Mapping[str, Any]
    language_model: Path
    projector: Path

    def fingerprint(self) -> str:
        """Returns the SHA-256 over everything that the model is built from, with its version in front.

        Configurations count by what they say and without keys that reach no number; weights and vocabulary by their
        bytes. Where the files lie does not matter.

        Raises:
            BadInputError: If a file is missing or a configuration is no JSON.
        """
        language = read_json(self.language_model / CONFIG_FILE, "model.backbone.language_model")
        index = self.language_model / INDEX
        content = {
            "tower": self.tower,
            "tower_weights": {path.name: sha256_of_file(path) for path in self.tower_weights},
            "features": self.features,
            "projector": sha256_of_file(self.projector),
            "language_config": without_keys(language, DECIDES_NOTHING),
            "language_weights": {path.name: sha256_of_file(path) for path in self.language_weights()},
            "language_index": sha256_of_file(index) if index.is_file() else None,
            "tokenizer": tokenizer_content(self.language_model),
        }
        return VERSION + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def verify(self) -> None:
        """Reads every weight file, whatever is known of it.

        Raises:
            BadInputError: If one differs from what it was though its size and times are the same.
        """
        refuse_changed([*self.tower_weights, *self.language_weights(), self.projector])

    def refuse_other_base(self) -> None:
        """Compares both models with those that the projector was aligned between, where a record beside it names them.

        Raises:
            BadInputError: If one is another, or the record is damaged.
        """
        refuse_other_base(self.projector, self.weights())

    def weights(self) -> dict[str, Path]:
        """Returns both models' weight files by part and name, such as ``vision/model.safetensors``."""
        parts = {"vision": self.tower_weights, "language": self.language_weights()}
        return {f"{part}/{path.name}": path for part, paths in parts.items() for path in paths}

    def language_weights(self) -> list[Path]:
        """Returns the language model's weight files that there are."""
        return sorted(self.language_model.glob("*.safetensors"))
