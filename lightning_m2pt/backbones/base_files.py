"""What a base is built from, named by one fingerprint, and proof that it is described by one configuration."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.file_hashes import has_changed_unseen, sha256_of_file
from lightning_m2pt.visible_text import counted

VERSION = "v2:"
"""What a fingerprint begins with; the first version's began with nothing and left out configuration and tokenizer."""

DECIDES_NOTHING = {
    *("_name_or_path", "architectures", "transformers_version"),
    *("dtype", "torch_dtype"),  # the experiment says it
    *("use_cache", "initializer_range"),  # every call says it; every tensor is loaded
    *("bos_token_id", "eos_token_id"),  # the tokenizer's are used
}
"""Keys of a language model's configuration that reach no number."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
TOKENIZER_CONFIG = "tokenizer_config.json"
NOT_THE_TOKENIZER = {"chat_template", "name_or_path"}
"""Keys of the tokenizer's configuration that are not used: conversations follow the experiment's template."""


@dataclass(frozen=True)
class BaseFiles:
    """The files of a frozen base.

    Attributes:
        vision_config: open_clip's configuration.
        vision_weights: The tower's safetensors file.
        language_config: Folder of the configuration that sizes are read from.
        language_model: Folder of the configuration, weights and tokenizer that the language model is built from.
        projector_weights: The projector's safetensors file.
    """

    vision_config: Path
    vision_weights: Path
    language_config: Path
    language_model: Path
    projector_weights: Path

    def fingerprint(self) -> str:
        """Returns the SHA-256 over everything that the model is built from, with its version in front.

        Configurations count by what they say, not by how they are written, and without keys that reach no number;
        weights and vocabulary by their bytes. Where the files lie does not matter.

        Raises:
            BadInputError: If a file is missing or a configuration is no JSON.
        """
        language = read_json(self.language_model / "config.json", "model.backbone.language_model")
        index = self.language_model / "model.safetensors.index.json"
        content = {
            "vision_config": read_json(self.vision_config, "model.backbone.vision_config"),
            "vision_weights": sha256_of_file(self.vision_weights),
            "language_config": without_keys(language, DECIDES_NOTHING),
            "language_weights": {path.name: sha256_of_file(path) for path in self._language_weights()},
            "language_index": sha256_of_file(index) if index.is_file() else None,
            "projector_weights": sha256_of_file(self.projector_weights),
            "tokenizer": self._tokenizer(),
        }
        return VERSION + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def former_fingerprint(self) -> str:
        """Returns the fingerprint of the first version, by which adapters and runs made before the second are known."""
        files = [self.vision_config, self.vision_weights, self.language_config / "config.json"]
        files += [*self._language_weights(), self.projector_weights]
        digest = hashlib.sha256()
        for path in files:
            digest.update(bytes.fromhex(sha256_of_file(path)))
        return digest.hexdigest()

    def verify(self) -> None:
        """Reads every weight file, whatever is known of it.

        Raises:
            BadInputError: If one differs from what it was though its size and times are the same.
        """
        refuse_changed([self.vision_weights, *self._language_weights(), self.projector_weights])

    def refuse_two_truths(self) -> None:
        """Compares the two configurations of the language model; nothing is compared where the model's is not there.

        Raises:
            BadInputError: If one of them describes another model; the first differing key is named with both values.
        """
        described, built = (folder / "config.json" for folder in (self.language_config, self.language_model))
        if not built.is_file() or (described.is_file() and described.samefile(built)):
            return
        first, second = (
            without_keys(read_json(path, f"model.backbone.{key}"), DECIDES_NOTHING | {"pad_token_id"})
            for path, key in ((described, "language_config"), (built, "language_model"))
        )
        for key, one, other in differences(first, second):
            raise BadInputError(
                f"{key} is {one} in {described} and {other} in {built}",
                where="model.backbone.language_config",
                expected="the configuration of the model that is built",
                hint="name the language model's own folder in both",
            )

    def _language_weights(self) -> list[Path]:
        return sorted(self.language_model.glob("*.safetensors"))

    def _tokenizer(self) -> dict[str, Any]:
        return tokenizer_content(self.language_model)


def tokenizer_content(folder: Path) -> dict[str, Any]:
    """Returns what decides a folder's tokenizer: its settings by what they say, its other files by their bytes."""
    paths = [folder / name for name in TOKENIZER_FILES]
    found: dict[str, Any] = {path.name: sha256_of_file(path) for path in paths if path.is_file()}
    config = folder / TOKENIZER_CONFIG
    if config.is_file():
        found[TOKENIZER_CONFIG] = without_keys(read_json(config, "model.backbone.language_model"), NOT_THE_TOKENIZER)
    return found


def refuse_changed(weights: Iterable[Path]) -> None:
    """Reads weight files, whatever is known of them.

    Raises:
        BadInputError: If one differs from what it was though its size and times are the same.
    """
    changed = [str(path) for path in weights if has_changed_unseen(path)]
    if changed:
        raise BadInputError(
            f"{counted(changed)} changed, though size and times are what they were",
            where="model.backbone",
            expected="the content that was read before",
            hint="the disk or a program changed it: get the file again and compare its SHA-256",
        )


def without_keys(config: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    """Returns a configuration without some of its keys."""
    return {key: value for key, value in config.items() if key not in keys}


def differences(first: dict[str, Any], second: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields key and both values, shortened, wherever two language configurations say different things.

    The library fills in what one of them leaves out, so that a key that is not there equals its default; read by it
    only where the words differ.
    """
    if first == second:
        return
    if first.get("model_type") == second.get("model_type"):
        complete = [filled_in(first), filled_in(second)]
        first, second = (known for known in complete if known) if all(complete) else (first, second)
    for key in [*first, *(key for key in second if key not in first)]:
        if first.get(key) != second.get(key):
            yield key, f"{first.get(key)!r:.60}", f"{second.get(key)!r:.60}"


def filled_in(config: dict[str, Any]) -> dict[str, Any] | None:
    """Returns a configuration with the library's defaults, or None if the library cannot read it."""
    from transformers import CONFIG_MAPPING

    try:
        complete = CONFIG_MAPPING[str(config.get("model_type"))].from_dict(dict(config)).to_dict()
    except Exception:  # the library validates with errors of many kinds; the loading refuses such a file
        return None
    return without_keys(complete, DECIDES_NOTHING | {"pad_token_id"})
