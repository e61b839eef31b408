"""From a sweep's file to ordinary command lines: pure functions that run nothing.

The lines are what `m2pt sweep run` runs, what `--dry-run` prints, and what a SLURM array takes line by line.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from experiments.configuration.catalogue import EXPERIMENTS
from experiments.configuration.parts import files_of
from experiments.sweep.file import SweepFile
from experiments.sweep.variant import Variant
from lightning_m2pt.configuration.paths import from_here
from lightning_m2pt.configuration.tree import PROMPT_TEXT
from lightning_m2pt.errors import BadInputError

BACKBONES = EXPERIMENTS / "backbones"
DEFAULT_OUTPUT_ROOT = Path("outputs")
KEY_LENGTH = 8

Rates = Mapping[str, float]
"""Learning rate by part of a method, and what ``OF_RULE`` names; empty takes what the experiment's file states."""
OF_RULE = "gradient_norm."
"""In front of ``rate`` or ``grey_levels`` of ``model.gradient_norm``, which moves parts along the gradient."""


@dataclass(frozen=True)
class SweepSettings:
    """What the command line adds to a sweep's file.

    Attributes:
        backbone: Name of a file of ``experiments/backbones``; empty takes what the experiments name.
        output_root: Folder of all runs.
        opened: Packages whose classes the experiments may name.
    """

    backbone: str = ""
    output_root: Path = DEFAULT_OUTPUT_ROOT
    opened: tuple[str, ...] = ()

    def folder(self, sweep: SweepFile) -> Path:
        """Returns the sweep's own folder: its record, its logs and its table."""
        return self.output_root / "sweeps" / (f"{sweep.name}-{self.backbone}" if self.backbone else sweep.name)

    def configs(self, variant: Variant) -> tuple[Path, ...]:
        """Returns a variant's configuration files, the backbone's last."""
        return (*variant.configs, *([from_here(BACKBONES / f"{self.backbone}.yaml")] if self.backbone else []))


@dataclass(frozen=True)
class Job:
    """Commands that are run one after another and are complete together.

    Attributes:
        label: The variant's label.
        name: Tells the variant's jobs apart, such as ``seed 0``.
        kind: ``cell`` is a training with its evaluation, ``trial`` a short tuning with its validation, ``transfer`` a
            trained prompt on a base.
        commands: Words behind ``m2pt``, one tuple a command.
        configs: Its configuration files; jobs with the same ones take about as long.
        output_root: Folder of all runs.
        other_files: Files beside these that decide, too: words around questions, and what arguments name.
    """

    label: str
    name: str
    kind: Literal["cell", "trial", "transfer"]
    commands: tuple[tuple[str, ...], ...]
    configs: tuple[Path, ...]
    output_root: Path
    other_files: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """What people read."""
        return f"{self.label}, {self.name}"

    @cached_property
    def key(self) -> str:
        """Stands for the commands and the content of their files, parts included: another key is another job."""
        return self.key_now()

    def key_now(self) -> str:
        """Returns the key as it is with the files' present content."""
        files = (*self.configs, *self.other_files)
        words = [by_name(command, files) for command in self.commands]
        return digest_of(words, self.configs, self.other_files)[:KEY_LENGTH]

    @property
    def file_stem(self) -> str:
        """Name of its record and of its log."""
        return f"{self.label}-{self.name}".replace(" ", "_") + f"-{self.key}"


def by_name(words: Sequence[str], configs: Sequence[Path]) -> list[str]:
    """Returns a command's words with configuration files by their names, the same from whatever folder it is given."""
    names = {path.as_posix(): path.name for path in configs}
    return [names.get(word, word) for word in words]


def digest_of(decides: Any, configs: Sequence[Path], others: Sequence[Path] = ()) -> str:
    """Returns a hash of a JSON value and of what configuration files and their parts, and others, hold at present."""
    digest = hashlib.sha256(json.dumps(decides).encode())
    for path in (*(part for config in configs for part in files_of(config)), *others):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def shell_line(words: Sequence[str]) -> str:
    """Returns a command as a shell takes it."""
    return shlex.join(["m2pt", *words])


def command_lines(jobs: Sequence[Job]) -> list[str]:
    """Returns every command of jobs in order, as a shell takes them: line i is element i of an array of jobs."""
    return [shell_line(words) for job in jobs for words in job.commands]


def cells(sweep: SweepFile, setting: SweepSettings, rates: Mapping[str, Rates] | None = None) -> list[Job]:
    """Returns one training with its evaluation for every variant and seed.

    Every variant's first seed comes first: a sweep that was stopped early still compares all of them.

    Args:
        sweep: The sweep.
        setting: Backbone and output folder.
        rates: Learning rates by variant's label, where a search chose them.
    """
    return [
        Job(
            variant.label,
            f"seed {seed}",
            "cell",
            (("train", *experiment_words(variant, setting, (rates or {}).get(variant.label, {})), *seed_words(seed)),),
            setting.configs(variant),
            setting.output_root,
            variant.other_files,
        )
        for variant, seed in in_rounds(sweep.variants)
    ]


def in_rounds(variants: Sequence[Variant]) -> list[tuple[Variant, int]]:
    """Returns every variant with its first seed, then every one with its second, and so on."""
    longest = max(len(variant.seeds) for variant in variants)
    return [
        (variant, variant.seeds[number])
        for number in range(longest)
        for variant in variants
        if number < len(variant.seeds)
    ]


def experiment_words(variant: Variant, setting: SweepSettings, rates: Rates) -> list[str]:
    """Returns the words that name a variant's experiment, all but its seed."""
    words = [word for path in setting.configs(variant) for word in ("--config", path.as_posix())]
    words += variant.arguments
    for file in variant.text_files:
        words += [f"--{PROMPT_TEXT}", file.as_posix()]
    words += [f"--allow-import={package}" for package in setting.opened]
    words += [f"--model.{key}={rate!r}" for key, rate in rates.items() if key.startswith(OF_RULE)]
    if by_part := {part: rate for part, rate in rates.items() if not part.startswith(OF_RULE)}:
        words.append(f"--model.optimizer.learning_rate={json.dumps(by_part)}")
    if setting.output_root != DEFAULT_OUTPUT_ROOT:
        words.append(f"--output_root={setting.output_root}")
    return words


def seed_words(seed: int) -> list[str]:
    """Returns the words that set a run's seed."""
    return ["--seed_everything", str(seed)]


def check_backbone(name: str, sweep: SweepFile) -> None:
    """Looks for a backbone's file.

    Raises:
        BadInputError: If there is no backbone of this name, or the sweep itself names several bases.
    """
    if name and sweep.transfer is not None:
        raise BadInputError(
            f"{name!r:.60} would take the place of {', '.join(sweep.transfer.bases)}",
            where="command line: --backbone",
            expected=f"the bases of {sweep.path}",
        )
    if name and not (BACKBONES / f"{name}.yaml").is_file():
        raise BadInputError(
            f"there is no backbone {name!r:.60}",
            where="command line: --backbone",
            expected="one of " + ", ".join(sorted(path.stem for path in BACKBONES.glob("*.yaml"))),
        )
