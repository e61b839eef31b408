"""Runs ``m2pt chaos``; its flags and what it is for are in ``experiments.commands.parsers``."""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from experiments.chaos.comparison import EXCEPTIONS
from experiments.chaos.rounds import Rounds, Tally
from experiments.commands.parsers.chaos import argument_parser
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode
from lightning_m2pt.system.console import OUT, say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb; exit code 1 if a file differs."""
    own = argument_parser().parse_args(list(arguments))
    if own.kills < 1:
        raise BadInputError(f"{own.kills} kills", where="command line: --kills", expected="at least 1")
    folder = own_folder(own.folder)
    say(f"folder       {folder}")
    rounds = Rounds(folder, own.verb, random.Random(own.seed), fresh=own.fresh_processes)
    tally = rounds.kill(own.kills)
    show(tally)
    if tally.different:
        say(f"different: {tally.different.total()} of {tally.different.total() + tally.equal.total()} files; {folder}")
        return ExitCode.BUG
    say(f"all {tally.equal.total()} files of {tally.runs} runs are equal")
    if own.keep:
        say(f"kept: {folder}")
    else:
        shutil.rmtree(folder)
    return ExitCode.DONE


def own_folder(folder: Path | None) -> Path:
    """Returns the absolute path of the folder to work in; a new one below ``outputs`` if none is named.

    Raises:
        BadInputError: If it holds something.
        EnvironmentFailure: If it cannot be made.
    """
    try:
        if folder is None:
            Path("outputs").mkdir(exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="chaos-", dir="outputs")).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BadInputError("this folder is not empty", where=str(folder), expected="an empty folder, or none")
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot be made: {error.strerror}", where=str(folder or "outputs"), expected="a folder to write to"
        ) from error
    return folder.resolve()


def show(tally: Tally) -> None:
    """Prints where the kills hit and what was compared."""
    places = Table(title=f"{tally.kills} kills, {tally.inside_writes} inside a write")
    places.add_column("where they hit")
    places.add_column("kills", justify="right")
    for place, number in sorted(tally.places.items()):
        places.add_row(place, str(number))
    files = Table(title=f"files of {tally.runs} killed runs, compared with undisturbed ones")
    files.add_column("file")
    files.add_column("equal", justify="right")
    files.add_column("different", justify="right")
    different: Counter[str] = Counter()
    for (name, _), number in tally.different.items():
        different[name] += number
    for name in sorted({*tally.equal, *different}):
        files.add_row(name, str(tally.equal[name]), str(different[name] or ""))
    OUT.print(places)
    OUT.print(files)
    for (name, problem), number in sorted(tally.different.items()):
        say(f"{name}: {problem} ({number} times)")
    for exception in EXCEPTIONS:
        say(f"not compared: {exception}")
