"""``m2pt chaos``: kill a real training on this disk again and again, and compare every file with an undisturbed one.

A small ``fit`` or ``train`` (embedded backbone, invented records, dropout, validation during training, loader workers
0 and 2 in turn) is ended by SIGKILL at random instants and inside writes: at a call that changes the disk, before it
or up to a few milliseconds into it. The same command is then given again, until it ends. Every file must be the one
that an uninterrupted command leaves. The seed decides what is aimed at; what a kill at an instant meets is up to the
machine. A start is a copy of this process, in which everything is imported; --fresh-processes starts new interpreters.
"""

import argparse
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from experiments.chaos.comparison import EXCEPTIONS
from experiments.chaos.rounds import Rounds, Tally
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode
from lightning_m2pt.system.console import OUT, VerbParser, say


def argument_parser() -> argparse.ArgumentParser:
    """Returns the verb's flags."""
    parser = VerbParser(prog="m2pt chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often to kill (20)")
    parser.add_argument("--seed", type=int, default=0, help="decides what is aimed at (0)")
    parser.add_argument("--verb", choices=("fit", "train"), default="fit", help="what is killed (fit)")
    parser.add_argument("--folder", type=Path, help="an empty folder on the disk in question (a new one in outputs/)")
    parser.add_argument("--keep", action="store_true", help="keep the folder even if all files are equal")
    parser.add_argument("--fresh-processes", action="store_true", help="start new interpreters: slower by the imports")
    return parser


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
