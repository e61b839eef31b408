"""Runs ``m2pt convert``; its flags and what it is for are in ``parsers``."""

import argparse
from collections.abc import Sequence

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.origins.named import named_base
from lightning_m2pt.backbones.tokenizer_files import FAST, SENTENCEPIECE
from lightning_m2pt.commands.parsers.convert import argument_parser
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.storage.foreign.peft.importing import import_peft
from lightning_m2pt.storage.foreign.peft.reading import is_peft_folder
from lightning_m2pt.storage.foreign.pixel_prompt_import import import_pixel_prompt, is_pixel_prompt
from lightning_m2pt.storage.foreign.published_import import ADAPTER, BASE, EXPERIMENT, import_onto, import_with_base
from lightning_m2pt.storage.foreign.published_parts import is_published, read_published
from lightning_m2pt.storage.foreign.weights import convert
from lightning_m2pt.system.checkout import checkout_module
from lightning_m2pt.system.console import say
from lightning_m2pt.tuning.module import TuningModule


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    if is_peft_folder(own.sources):
        import_peft_adapter(own)
        return ExitCode.DONE
    for flag, value in (("--base", own.base), ("--template", own.template)):
        if value is not None:
            raise BadInputError(
                f"{own.sources[0]} is no adapter that PEFT wrote, and {flag} is of one",
                where=f"command line: {flag}",
                expected=f"a folder with PEFT's adapter_config.json, or no {flag}",
            )
    if is_pixel_prompt(own.sources):
        import_pixels(own)
        return ExitCode.DONE
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
        import_onto(parts, own.output, configured_model(own.config).backbone)
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


def import_peft_adapter(own: argparse.Namespace) -> None:
    """Makes an adapter of one that PEFT wrote.

    Raises:
        BadInputError: If flags are missing or do not go together, or the adapter has no form here or fits no base.
    """
    if bool(own.config) == (own.base is not None) or own.output is None or own.layout or own.tower or own.tokenizer:
        raise BadInputError(
            "an adapter of PEFT becomes an adapter for the base that it was tuned on",
            where="command line",
            expected="--base BASE or --config FILE, an experiment on that base, and --output DIR; no other flag but "
            "--template",
        )
    template = None if own.template is None else template_named(own.template)
    notes = import_peft(own.sources[0], own.output, base_of(own), template)
    say("\n".join([f"adapter: {own.output / ADAPTER}", *(f"note: {note}" for note in notes)]))


def base_of(own: argparse.Namespace) -> Backbone:
    """Returns the base that is named, or an experiment's; not loaded."""
    if own.base is not None:
        return named_base(own.base, where="command line: --base")
    return configured_model(own.config).backbone


def import_pixels(own: argparse.Namespace) -> None:
    """Makes an adapter of a prompt in pixels of TVP's published code.

    Raises:
        BadInputError: If flags are missing or do not go together, or the file is wrong or fits no base.
    """
    if not own.config or own.output is None or own.layout or own.tower or own.tokenizer:
        raise BadInputError(
            "a prompt in pixels becomes an adapter for a base that reads pictures of its size",
            where="command line",
            expected="--config FILE, an experiment on such a base, and --output DIR; no other flag",
        )
    model = configured_model(own.config)
    adapter = import_pixel_prompt(own.sources[0], own.output, model.backbone, model.method)
    say(f"adapter: {adapter}\nnote: which base and which template it was trained with, the file does not say")


def configured_model(files: Sequence[str]) -> TuningModule:
    """Returns the model of an experiment, not loaded.

    Raises:
        BadInputError: If there is no checkout to read the files with, or a file is wrong.
    """
    reader = checkout_module("experiments.configuration.cli", "m2pt convert --config")
    words = [word for file in files for word in ("--config", file)]
    model: TuningModule = reader.parse_experiment(words).model
    return model
