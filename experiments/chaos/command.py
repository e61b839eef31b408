"""``m2pt chaos``: kill a real training on this disk again and again, and compare every file with an undisturbed one.

A small ``fit`` or ``train`` (embedded backbone, invented records, dropout, validation during training, loader workers 0
and 2 in turn) is ended by SIGKILL at random instants and inside writes: at a call that changes the disk, before it or
up to a few milliseconds into it. The same command is then given again, until it ends. Every file must be the one that an
uninterrupted command leaves. The seed decides what is aimed at; what a kill at an instant meets is up to the machine.
A start is a copy of this process, in which everything is imported; --fresh-processes starts new interpreters.
"""

import argparse
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from experiments.console import OUT, VerbParser, say
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode

KILLS_OF_A_RUN = 5
WORKERS = (0, 2)
LONGEST_DELAY = 0.003
"""Seconds that a write may go on before the kill it was aimed at comes."""


@dataclass
class Tally:
    """What has been killed and compared.

    Attributes:
        places: Kills by the place they hit.
        inside_writes: Kills that hit a write they were aimed at.
        equal: Comparisons of a file without a difference, by its name.
        different: Comparisons with one, by the file's name and what differed.
        runs: Runs compared.
    """

    places: Counter[str] = field(default_factory=Counter)
    inside_writes: int = 0
    equal: Counter[str] = field(default_factory=Counter)
    different: Counter[tuple[str, str]] = field(default_factory=Counter)
    runs: int = 0

    @property
    def kills(self) -> int:
        """Kills in all."""
        return self.places.total()


def argument_parser() -> argparse.ArgumentParser:
    """Returns the verb's flags."""
    parser = VerbParser(
        prog="m2pt chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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


class Rounds:
    """Runs that are killed, finished and compared, one after another under one path.

    Args:
        folder: Everything is below it.
        verb: ``fit`` or ``train``.
        chance: Decides when to kill.
        fresh: Start new interpreters.
    """

    def __init__(self, folder: Path, verb: str, chance: random.Random, *, fresh: bool) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a process with compute threads must not fork
        import experiments.train  # noqa: F401  (what is imported here is imported in every forked start)
        from experiments.chaos.small_run import write_records

        self.folder = folder
        self.verb = verb
        self.chance = chance
        self.fresh = fresh
        self.outputs = folder / "outputs"
        self.log = folder / "log.txt"
        self.tally = Tally()
        write_records(folder / "records")

    def kill(self, kills: int) -> Tally:
        """Kills so often, and compares every run that was killed.

        Raises:
            EnvironmentFailure: If the undisturbed command fails or hangs.
        """
        undisturbed = {workers: self.undisturbed(workers) for workers in WORKERS}
        while self.tally.kills < kills:
            workers = WORKERS[self.tally.runs % len(WORKERS)]
            seconds, writes = undisturbed[workers]
            self.killed_run(workers, min(KILLS_OF_A_RUN, kills - self.tally.kills), seconds, writes)
            say(f"{self.tally.kills} kills, {self.tally.runs} runs, {self.tally.different.total()} files differ")
        return self.tally

    def undisturbed(self, workers: int) -> tuple[float, int]:
        """Runs the command once without a kill; returns its seconds and its writes."""
        from experiments.chaos.killer import Plan

        outcome = self.start(workers, Plan())
        if outcome.code != ExitCode.DONE:
            raise EnvironmentFailure(
                f"the undisturbed command ended with exit code {outcome.code}",
                where=str(self.log),
                expected="a machine on which `m2pt fit` works",
                hint="the log says why",
            )
        self.outputs.rename(self.reference(workers))
        return outcome.seconds, outcome.writes

    def reference(self, workers: int) -> Path:
        """Returns where the undisturbed run is kept."""
        return self.folder / f"undisturbed-{workers}-workers"

    def killed_run(self, workers: int, kills: int, seconds: float, writes: int) -> None:
        """Starts a run, kills it as often as planned unless it ends before, lets it end, and compares it."""
        from experiments.chaos.comparison import compare
        from experiments.chaos.killer import Plan

        for plan in self.plans(kills, seconds, writes):
            outcome = self.start(workers, plan)
            if outcome.place is None:
                break
            self.tally.places[outcome.place] += 1
            self.tally.inside_writes += outcome.inside_write
        if (outcome := self.start(workers, Plan())).code == ExitCode.DONE:
            compared = compare(self.reference(workers), self.outputs)
            self.tally.equal.update(one.name for one in compared if not one.problem)
            differences = [(one.name, one.problem) for one in compared if one.problem]
        else:
            differences = [("the command itself", f"exit code {outcome.code}: {last_line(self.log)}")]
        self.tally.different.update(differences)
        kept = self.outputs.rename(self.folder / f"killed-{self.tally.runs}")
        if not differences:
            shutil.rmtree(kept)
        self.tally.runs += 1

    def plans(self, kills: int, seconds: float, writes: int) -> Iterator["Plan"]:
        """Yields when to kill: inside a write until half of all kills were, else at an instant."""
        from experiments.chaos.killer import Plan

        for _ in range(kills):
            if 2 * self.tally.inside_writes > self.tally.kills:
                yield Plan(after=self.chance.random() * seconds)
            else:
                delay = self.chance.choice((None, self.chance.random() * LONGEST_DELAY))
                yield Plan(aimed_at=self.chance.randint(1, writes), delay=delay)

    def start(self, workers: int, plan: "Plan") -> "Outcome":
        """Gives the command once."""
        from experiments.chaos.killer import follow
        from experiments.chaos.small_run import command_words

        words = command_words(self.verb, self.folder / "records", self.outputs, workers)
        return follow(words, self.outputs, plan, self.log, fresh=self.fresh)


def last_line(log: Path) -> str:
    """Returns the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").split()
    return " ".join(lines[-20:])


def show(tally: Tally) -> None:
    """Prints where the kills hit and what was compared."""
    from experiments.chaos.comparison import EXCEPTIONS

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
