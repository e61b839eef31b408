"""Runs ``m2pt export predictions``; its flags and what it is for are in ``parsers``."""

from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.commands.parsers.export_forms.predictions import argument_parser
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.metrics.peer_formats.common import Export
from lightning_m2pt.metrics.peer_formats.formats import export_files
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    try:
        export = export_files(read_predictions(own.predictions), own.format)
    except BadInputError as error:
        where = error.where if str(own.predictions) in error.where else f"{own.predictions}: {error.where}"
        raise BadInputError(error.what, where=where, expected=error.expected, hint=error.hint) from error
    write_export(export, own.output, force=own.force)
    say(f"{own.output}: {', '.join(export.files)}")
    if export.note:
        say(f"note: {export.note}")
    return ExitCode.DONE


def write_export(export: Export, folder: Path, *, force: bool = False) -> None:
    """Writes all files of an export, or none if one of them is there already.

    Args:
        export: What to write.
        folder: Where; made if need be.
        force: Overwrite what is there.

    Raises:
        BadInputError: If files are there and ``force`` is not given.
    """
    existing = [name for name in export.files if (folder / name).exists()]
    if existing and not force:
        raise BadInputError(
            f"already there: {', '.join(existing)}", where=str(folder), hint="--force overwrites; or another --output"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in export.files.items():
        write_atomically(folder / name, content)
