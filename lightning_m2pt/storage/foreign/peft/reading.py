"""A folder that PEFT wrote: its configuration and the header of its tensors. Nothing in it is run, or followed.

``adapter_config.json`` may name classes, regular expressions and places; here it is looked at, word by word. What a key
says that changes numbers is mapped or refused by its name, also where a later version of PEFT invented the key.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.weight_files import Stored, stored_tensors
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.foreign.peft.names import (
    BESIDE,
    CONFIG_FILE,
    LN_TUNING,
    LORA,
    PICKLE_FILE,
    PREFIX_TUNING,
    PROMPT_TUNING,
    TENSOR_FILE,
)
from lightning_m2pt.system.strict_json import parse_json
from lightning_m2pt.visible_text import counted, visible

READ_TYPES = (LORA, PREFIX_TUNING, PROMPT_TUNING, LN_TUNING)
EXACT_TYPES = ("F32", "BF16", "F16")
"""Types whose numbers float32 has all."""
OWN_FORMAT = "format"
"""A key that only this project's adapters have."""
TASKS = (None, "CAUSAL_LM")
ALWAYS_KNOWN = (
    "auto_mapping",  # the names of the class that was wrapped and of its module: never imported
    "base_model_name_or_path",
    "inference_mode",
    "modules_to_save",  # their tensors say what they are
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
)
LONGEST_NAME = 300
SHOWN = 60
"""Characters of a value in a sentence."""


@dataclass(frozen=True)
class PeftFolder:
    """An adapter in PEFT's layout.

    Attributes:
        folder: Where it lies.
        kind: PEFT's ``peft_type``.
        config: ``adapter_config.json``.
        stored: Its tensors as their file's header describes them.
    """

    folder: Path
    kind: str
    config: Mapping[str, Any]
    stored: Stored

    @property
    def place(self) -> str:
        """The configuration, for messages."""
        return str(self.folder / CONFIG_FILE)

    @property
    def tensor_file(self) -> Path:
        """The file of the tensors."""
        return self.folder / TENSOR_FILE

    def count(self, key: str) -> int:
        """Returns a number of things that the configuration says.

        Raises:
            BadInputError: If it is no whole number above 0.
        """
        value = self.config.get(key)
        if type(value) is not int or value < 1:
            raise self.wrong(key, "a whole number above 0")
        return value

    def wrong(self, key: str, expected: str) -> BadInputError:
        """Returns the error about a key's value."""
        return BadInputError(f"{key} is {shown(self.config.get(key))}", where=self.place, expected=expected)

    def refuse_unknown_keys(self, known: Collection[str], defaults: Mapping[str, object]) -> None:
        """Refuses what is switched on and not known here.

        Args:
            known: Keys that are looked at elsewhere, or change no number.
            defaults: Values of other keys that change none, beside null, false and what is empty.

        Raises:
            BadInputError: Naming the first key.
        """
        for key, value in self.config.items():
            is_off = value is None or value is False or value in ("", [], {}) or defaults.get(key) == value
            if not (is_off or key in known or key in ALWAYS_KNOWN):
                raise BadInputError(
                    f"{visible(key):.{SHOWN}} is {shown(value)}, which no method here does",
                    where=self.place,
                    expected="an adapter without it",
                )


def is_peft_folder(sources: Sequence[Path]) -> bool:
    """Tells whether there is one source, a folder with an adapter's configuration that is not of this project."""
    if len(sources) > 1 or not (path := sources[0] / CONFIG_FILE).is_file():
        return False
    config = parse_json(path.read_bytes(), path, expected="an adapter's configuration")
    return isinstance(config, dict) and "peft_type" in config and OWN_FORMAT not in config


def read_peft_folder(folder: Path) -> PeftFolder:
    """Reads a folder's configuration and the header of its tensors.

    Raises:
        BadInputError: If it is of a form that is not read here, or a file is missing, damaged or a pickle.
    """
    path = folder / CONFIG_FILE
    config = parse_json(path.read_bytes(), path, expected="an adapter's configuration")
    kind, task = config["peft_type"], config.get("task_type")
    if kind not in READ_TYPES:
        raise BadInputError(
            f"an adapter of PEFT's type {shown(kind)}", where=str(path), expected=" or ".join(READ_TYPES)
        )
    if task not in TASKS:
        raise BadInputError(
            f"task_type is {shown(task)}: no language model that answers", where=str(path), expected="CAUSAL_LM"
        )
    if (folder / PICKLE_FILE).is_file() and not (folder / TENSOR_FILE).is_file():
        raise BadInputError(
            f"its tensors are a pickle, {PICKLE_FILE}, which is never opened",
            where=str(folder),
            expected=TENSOR_FILE,
            hint=f"`m2pt convert {folder / PICKLE_FILE} --output {folder / TENSOR_FILE}` reads it without running code",
        )
    stored = {**stored_beside(folder), **stored_tensors(folder / TENSOR_FILE)}
    others = [f"{name} {one.dtype}" for name, one in stored.items() if one.dtype not in EXACT_TYPES]
    if others or not stored:
        raise BadInputError(
            f"tensors of another type: {counted(others)}" if others else "there is no tensor in it",
            where=str(folder / TENSOR_FILE),
            expected=" or ".join(EXACT_TYPES),
        )
    longest = max(map(len, stored))
    if longest > LONGEST_NAME:
        raise BadInputError(
            f"the name of a tensor has {longest:,} characters",
            where=str(folder / TENSOR_FILE),
            expected=f"at most {LONGEST_NAME}",
        )
    return PeftFolder(folder, kind, config, stored)


def stored_beside(folder: Path) -> Stored:
    """Returns the header of what LLaVA's trainer kept beside PEFT's file; nothing if there is none.

    Raises:
        BadInputError: If it is a pickle, or damaged.
    """
    path, as_pickle = folder / f"{BESIDE}.safetensors", folder / f"{BESIDE}.bin"
    if not path.is_file():
        if as_pickle.is_file():
            raise BadInputError(
                f"{as_pickle.name} has what was trained besides, as a pickle, which is never opened",
                where=str(folder),
                expected=path.name,
                hint=f"`m2pt convert {as_pickle} --output {path}` reads it without running code",
            )
        return {}
    return stored_tensors(path)


def shown(value: object) -> str:
    """Returns a value from the configuration as a sentence can have it."""
    return visible(f"{value!r:.{SHOWN}}")
