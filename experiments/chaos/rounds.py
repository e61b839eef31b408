"""Rounds of the harness: a run is started, killed a few times, finished, and compared with an undisturbed one."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from experiments.chaos.comparison import compare
from experiments.chaos.killer import KillPlan, Outcome, follow
from lightning_m2pt.errors import EnvironmentFailure, ExitCode
from lightning_m2pt.system.console import say

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
        import experiments.commands.train  # noqa: F401  (what is imported here is imported in every forked start)
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
        outcome = self.start(workers, KillPlan())
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
        for plan in self.plans(kills, seconds, writes):
            outcome = self.start(workers, plan)
            if outcome.place is None:
                break
            self.tally.places[outcome.place] += 1
            self.tally.inside_writes += outcome.inside_write
        if (outcome := self.start(workers, KillPlan())).code == ExitCode.DONE:
            compared = compare(self.reference(workers), self.outputs)
            self.tally.equal.update(one.name for one in compared if not one.problem)
            differences = [(one.name, one.problem) for one in compared if one.problem]
        else:
            differences = [("the command itself", f"exit code {outcome.code}: {last_words(self.log)}")]
        self.tally.different.update(differences)
        kept = self.outputs.rename(self.folder / f"killed-{self.tally.runs}")
        if not differences:
            shutil.rmtree(kept)
        self.tally.runs += 1

    def plans(self, kills: int, seconds: float, writes: int) -> Iterator[KillPlan]:
        """Yields when to kill: inside a write until half of all kills were, else at an instant."""
        for _ in range(kills):
            if 2 * self.tally.inside_writes > self.tally.kills:
                yield KillPlan(after=self.chance.random() * seconds)
            else:
                delay = self.chance.choice((None, self.chance.random() * LONGEST_DELAY))
                yield KillPlan(aimed_at=self.chance.randint(1, writes), delay=delay)

    def start(self, workers: int, plan: KillPlan) -> Outcome:
        """Gives the command once."""
        from experiments.chaos.small_run import command_words

        words = command_words(self.verb, self.folder / "records", self.outputs, workers)
        return follow(words, self.outputs, plan, self.log, fresh=self.fresh)


def last_words(log: Path) -> str:
    """Returns the last 20 words of a log."""
    return " ".join(log.read_text(encoding="utf-8", errors="replace").split()[-20:])
