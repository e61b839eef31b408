"""``m2pt export predictions``: write our answers in a peer's format, so that its own tool can score them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.metrics.peer_formats.common import Export
from lightning_m2pt.metrics.peer_formats.formats import FORMATS, export_files
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import VerbParser, say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    parser = VerbParser(
        prog="m2pt export predictions", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    width = max(map(len, FORMATS))
    listed = "\n".join(f"{name.ljust(width)}  {peer.reader} ({', '.join(peer.sets)})" for name, peer in FORMATS.items())
    parser.add_argument("predictions", type=Path, help="a prediction file (predictions/<set>.jsonl)")
    parser.add_argument("--format", choices=FORMATS, required=True, help=listed)
    parser.add_argument("--output", type=Path, required=True, help="folder of the peer's files")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    own = parser.parse_args(list(arguments))
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
