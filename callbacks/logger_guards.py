"""Loggers of the user's own: they go on where a stopped run stopped, and what fails in them stays with them."""

import logging
import os
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CometLogger, Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.storage.run_record import DECIDING, read_run_record
from lightning_m2pt.system.atomic_files import write_atomically

FOLDER = "loggers"
CONTINUED = (WandbLogger, MLFlowLogger, CometLogger)
"""What of a stopped run is still there; of other loggers every start has a table of its own, or purges what comes."""
GUARDED = ("log_hyperparams", "log_graph", "save", "after_save_checkpoint")
"""Methods that are called as they are, beside the two that have something to add."""
SECRET_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
SHORTEST_SECRET = 6
LONGEST = 200

log = logging.getLogger(__name__)


class LoggerGuards(Callback):
    """Stands before every logger of the user's own for the time of one training.

    A logger draws from generators of its own, logs no step twice after a resume, and where it fails, as with the
    network away, it says so once and is left alone until the next start. What is trained does not notice.

    Args:
        loggers: The loggers; they stay the objects that they are.
        run_folder: The run's folder, which keeps under which name each of them goes on, and what it has.
        resumed_step: Optimizer steps done in the checkpoint that is resumed; 0 for a new run.
        made_here: Whether they were made for this run: then they are closed with it.
    """

    def __init__(self, loggers: Iterable[Logger], run_folder: Path, resumed_step: int, made_here: bool) -> None:
        listed = list(loggers)
        named = zip(listed, names_of([type(logger) for logger in listed]), strict=True)
        self.run_folder = run_folder
        self.guards = [LoggerGuard(logger, name, run_folder, resumed_step, made_here) for logger, name in named]

    def open(self, trainer: Trainer) -> None:
        """Begins, or goes on, before anything is trained; to be called when the run's folder is there.

        Raises:
            EnvironmentFailure: If a logger cannot begin: what the user asked for would be missed from the first step.
        """
        if trainer.is_global_zero:
            settings = read_run_record(self.run_folder).get(DECIDING, {})
            for guard in self.guards:
                guard.open(settings)


class LoggerGuard:
    """Takes the place of one logger's methods, on this object alone, so that it stays of its class for callbacks.

    Args:
        logger: The logger.
        name: What it goes by in the run's folder.
        run_folder: The run's folder.
        resumed_step: Optimizer steps done in the checkpoint that is resumed.
        made_here: Whether to close it when the training ends.
    """

    def __init__(self, logger: Logger, name: str, run_folder: Path, resumed_step: int, made_here: bool) -> None:
        self.logger = logger
        self.name = name
        self.run_folder = run_folder
        self.made_here = made_here
        self.has_failed = False
        # Lightning's step index of the resumed step's validation, which may be made again, is one less.
        self._logged = LoggedSteps(run_folder / FOLDER / f"{name}.steps", resumed_step - 1)
        self._log_metrics, self._finalize = logger.log_metrics, logger.finalize
        vars(logger).update({method: self._guarded(getattr(logger, method)) for method in GUARDED})
        vars(logger).update(log_metrics=self.log_metrics, finalize=self.finalize)

    def open(self, settings: Mapping[str, Any]) -> None:
        """Begins under the name that is kept, or keeps that of a new one.

        Args:
            settings: What decides the run's numbers, for those that show it.

        Raises:
            EnvironmentFailure: If the logger cannot begin.
        """
        try:
            with generators_of_its_own():
                _ = getattr(self.logger, "experiment", None)
                if isinstance(self.logger, CONTINUED):
                    go_on(self.logger)
                    name = str(self.logger.version)
                    self._logged.open(goes_on=kept_name(self.run_folder, self.name) == name)
                    keep_name(self.run_folder, self.name, name)
                    self.logger.log_hyperparams(dict(settings))
        except Exception as error:
            raise EnvironmentFailure(
                f"{type(self.logger).__name__} cannot begin: {in_one_line(error)}",
                where="trainer.logger",
                expected="a service that answers, or the logger's own offline mode",
                hint="the same command without trainer.logger goes on with the same run",
            ) from error

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs what the logger does not have yet."""
        key = self._logged.key(step, metrics)
        if key not in self._logged:
            self._call(self._log_metrics, metrics, step)
            if not self.has_failed:
                self._call(self._logged.add, key)

    def finalize(self, status: str) -> None:
        """Ends the logger's part of this training, and closes what was opened for it."""
        self._call(self._finalize, status)
        if self.made_here:
            self._call(close, self.logger, status)

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., None]:
        return lambda *args, **kwargs: self._call(method, *args, **kwargs)

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self.has_failed or getattr(rank_zero_only, "rank", 0) != 0:
            return
        with generators_of_its_own():
            try:
                method(*args, **kwargs)
            except Exception as error:
                self.has_failed = True
                log.warning(
                    "%s has failed and is left alone until the next start; metrics.csv has everything: %s",
                    self.name,
                    in_one_line(error),
                )


class LoggedSteps:
    """What of the steps that may come again a logger has already: one line for every call, in a file of the run's.

    A kill between the logger's own writing and this line is the one way to log a step twice.

    Args:
        path: The file.
        first_step: Lightning's index of the first step that may come again.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        self.path = path
        self.first_step = first_step
        self._keys: set[str] = set()
        self._is_open = False

    def open(self, *, goes_on: bool) -> None:
        """Reads what is there, or forgets it where another one begins under this name."""
        kept = []
        if goes_on and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if is_key(line) and int(line.split()[0]) >= self.first_step]
        self._keys = set(kept)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, "".join(f"{line}\n" for line in kept).encode())
        self._is_open = True

    @staticmethod
    def key(step: int | None, metrics: Mapping[str, float]) -> str:
        """Returns the line of a call: the step, and which numbers, but not their values."""
        return "" if step is None else f"{step} {zlib.crc32(' '.join(sorted(metrics)).encode()):08x}"

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """Notes a call that has been made."""
        if self._is_open and key:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{key}\n")


@contextmanager
def generators_of_its_own() -> Iterator[None]:
    """Lets a block draw what the run's seed does not decide, and gives the run's generators back.

    Comet draws the name of its archive when it begins: seeded, every start of a run would write over the one before.
    """
    # A list, so that the generators come back when something is raised inside: Lightning's own does not see to that.
    raised: list[BaseException] = []
    with isolate_rng(include_cuda=False):
        random.seed()
        try:
            yield
        except BaseException as error:
            raised.append(error)
    if raised:
        raise raised[0]


def is_key(line: str) -> bool:
    """Tells whether a line of a file is one of these, and whole."""
    return re.fullmatch(r"[0-9]+ [0-9a-f]{8}", line) is not None


def names_of(classes: Sequence[type]) -> list[str]:
    """Returns what loggers go by in a run's folder: their class, and a number from the second one on."""
    names = [found.__name__ for found in classes]
    return [
        name if (number := names[:place].count(name)) == 0 else f"{name}-{number + 1}"
        for place, name in enumerate(names)
    ]


def kept_name(run_folder: Path, name: str) -> str | None:
    """Returns the id under which a logger's service knows this run; None if it has begun none.

    Args:
        run_folder: The run's folder.
        name: What the logger goes by in it.
    """
    path = run_folder / FOLDER / f"{name}.id"
    text = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    return text if re.fullmatch(r"[\w.-]{1,128}", text) else None


def keep_name(run_folder: Path, name: str, its_id: str) -> None:
    """Keeps under which id a logger goes on."""
    if kept_name(run_folder, name) != its_id:
        write_atomically(run_folder / FOLDER / f"{name}.id", f"{its_id}\n".encode())


def go_on(logger: Logger) -> None:
    """Sees to what a service does not do itself for a run that was stopped."""
    if isinstance(logger, MLFlowLogger):
        logger.experiment.update_run(logger.run_id, status="RUNNING")


def close(logger: Logger, status: str) -> None:
    """Closes what Lightning leaves open, so that the next run of this process begins one of its own."""
    if isinstance(logger, WandbLogger):
        logger.experiment.finish(exit_code=0 if status == "success" else 1)
    elif isinstance(logger, CometLogger):
        logger.experiment.end()


def in_one_line(error: BaseException) -> str:
    """Returns what an error says in one line, without any key that stands in the environment."""
    text = " ".join(str(error).split()) or type(error).__name__
    for name, value in os.environ.items():
        if SECRET_VARIABLE.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "***")
    return text[:LONGEST]
