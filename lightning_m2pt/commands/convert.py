"""Runs ``m2pt convert``; its flags and what it is for are in ``parsers``."""

import argparse
from collections.abc import Sequence

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.tokenizer_files import FAST, SENTENCEPIECE
from lightning_m2pt.commands.parsers.convert import argument_parser
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.storage.foreign.published_import import ADAPTER, BASE, EXPERIMENT, import_onto, import_with_base
from lightning_m2pt.storage.foreign.published_parts import is_published, read_published
from lightning_m2pt.storage.foreign.weights import convert
from lightning_m2pt.system.checkout import checkout_module
from lightning_m2pt.system.console import say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    if own.config or own.tower or own.tokenizer or is_published(own.sources):
        import_checkpoint(own)
        return ExitCode.DONE
    if len(own.sources) > 1:
        raise BadInputError(
            f"{len(own.sources)} sources, and no prompts in them",
            where="command line",
            expected="one file or folder; several for a checkpoint of M2PT's published code",
        )
    made = convert(own.sources[0], own.output, own.layout)
    for path in made:
        say(f"{path} ({path.stat().st_size:,} bytes)")
    folder = made[0].parent
    if (folder / SENTENCEPIECE).is_file() and not (folder / FAST).is_file():
        say(f"note: {FAST} is still to come into {folder}: {SENTENCEPIECE} alone is not read")
    return ExitCode.DONE


def import_checkpoint(own: argparse.Namespace) -> None:
    """Makes an adapter of a checkpoint of the published code, and a base unless one is named.

    Raises:
        BadInputError: If flags do not go together, or files are missing, wrong or fit no base.
    """
    if own.output is None or own.layout is not None:
        raise BadInputError(
            "a checkpoint of M2PT's published code, or a part of one, becomes a folder of its own",
            where="command line",
            expected="--output DIR, without --layout",
        )
    parts = read_published(own.sources)
    if own.config:
        import_onto(parts, own.output, configured_backbone(own.config))
        say(f"adapter: {own.output / ADAPTER}")
        return
    if not parts.has_base:
        raise BadInputError(
            "no base stands in it",
            where=str(own.sources[0]),
            expected="--config FILE, an experiment on the base that it was tuned on; or the whole checkpoint",
        )
    folder = own.sources[0] if own.sources[0].is_dir() else own.sources[0].parent
    import_with_base(parts, own.output, folder, own.tower, own.tokenizer)
    say(f"adapter: {own.output / ADAPTER}\nbase:    {own.output / BASE}, named by {own.output / EXPERIMENT}")
    if not (own.output / BASE / "language" / FAST).is_file():
        say(f"note: {FAST} is still to come into {own.output / BASE / 'language'}: the checkpoint has none")


def configured_backbone(files: Sequence[str]) -> Backbone:
    """Returns the backbone of an experiment, not loaded.

    Raises:
        BadInputError: If there is no checkout to read the files with, or a file is wrong.
    """
    reader = checkout_module("experiments.configuration.cli", "m2pt convert --config")
    words = [word for file in files for word in ("--config", file)]
    backbone: Backbone = reader.parse_experiment(words).model.backbone
    return backbone
