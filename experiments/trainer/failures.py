"""What a callback, plug-in, logger or strategy refuses by itself, in three lines that name it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed import DistError

from experiments.trainer.components import components, is_own
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, M2PTError

LONGEST = 200
EXTRAS = {"comet": "comet", "mlflow": "mlflow", "wandb": "wandb"}
"""Which extra brings a package, by the first word of its name."""
KEYS = ("callbacks", "plugins", "logger", "profiler", "strategy")
OF_A_UNION = re.compile(r"^  - (.+)$", re.MULTILINE)
"""What each type of a union said about a value."""
SAYS_NOTHING = ("Not a valid subclass", "Expected a")
NOT_MADE = re.compile(r"Given value: \[.*?Namespace\(class_path='([\w.]+)'")
"""Of a list, the first component that has not become an object."""
MISSING_PACKAGE = re.compile(r"(?:No module named|[Rr]equirement|package) ['\"`]?([\w.-]+)")


def in_one_line(error: BaseException) -> str:
    """Returns what an error says, in one line of bearable length; a parser's error around it says much more."""
    reasons = [line for line in OF_A_UNION.findall(str(error)) if not line.startswith(SAYS_NOTHING)]
    while isinstance(error, ValueError) and isinstance(error.__cause__ or error.__context__, Exception):
        error = error.__cause__ or error.__context__ or error
    return " ".join((reasons[-1:] or [str(error)])[0].split())[:LONGEST] or type(error).__name__


def cannot_be_made(error: BaseException, trainer: dict[str, Any]) -> M2PTError:
    """Returns the error of a component that could not be instantiated.

    Args:
        error: What its constructor, or the parser around it, raised.
        trainer: The Trainer's settings as plain values.
    """
    key, name = origin_of(error, trainer)
    where = f"trainer.{key}" if key else "trainer"
    lines = [line.strip(" -") for line in str(error).splitlines()]
    reasons = [line for line in lines if "installed" in line or "requires" in line or "No module named" in line]
    package = MISSING_PACKAGE.search(" ".join(reasons) or str(error))
    if key == "strategy" or (reasons and "DeepSpeed" in reasons[0]):
        return EnvironmentFailure(
            (reasons or [in_one_line(error)])[0][:LONGEST],
            where=where,
            expected="a machine with what the strategy needs",
            hint="`m2pt doctor` says what is here; pip install -e '.[deepspeed]' brings DeepSpeed",
        )
    if package or reasons or isinstance(error, ImportError):
        needed = package.group(1) if package else "a package that is not here"
        return EnvironmentFailure(
            f"{name} needs {needed}, which is not installed here",
            where=where,
            expected="an environment with what it needs",
            hint=way_to_install(package.group(1)) if package else in_one_line(error)[:LONGEST],
        )
    return BadInputError(
        f"{name}: {in_one_line(error)}" if name else in_one_line(error),
        where=where,
        expected="arguments that it accepts",
    )


def way_to_install(package: str) -> str:
    """Returns the command that installs a package, by the extra that brings it where there is one."""
    extra = EXTRAS.get(re.split(r"[-_]", package)[0].lower())
    return f"pip install -c constraints.txt -e '.[{extra}]'" if extra else f"pip install {package}"


def origin_of(error: BaseException, trainer: dict[str, Any]) -> tuple[str, str]:
    """Returns the setting and the class that an error comes from; empty texts if none is to be seen."""
    named = {
        component["class_path"].rpartition(".")[2]: key for key in KEYS for component in components(trainer.get(key))
    }
    if not_made := NOT_MADE.search(str(error)):
        name = not_made.group(1).rpartition(".")[2]
        return named.get(name, ""), name
    seen: BaseException | None = error
    said = ""
    while seen is not None:
        said += str(seen)
        for owner in objects_of(seen.__traceback__):
            if type(owner).__name__ in named:
                return named[type(owner).__name__], type(owner).__name__
        seen = seen.__cause__ or seen.__context__
    return next(((key, name) for name, key in named.items() if name in said), ("", ""))


def objects_of(traceback: TracebackType | None) -> Iterator[Any]:
    """Yields the objects whose methods an error went through, the innermost first."""
    frames = []
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    yield from (frame.f_locals["self"] for frame in reversed(frames) if "self" in frame.f_locals)


@contextmanager
def refusals_named(trainer: dict[str, Any]) -> Iterator[None]:
    """Turns what Lightning or one of its own classes refuses into an error of three lines.

    An error inside a class of the user's own stays what it is: its lines are what they look for.

    Args:
        trainer: The Trainer's settings as plain values.

    Raises:
        BadInputError: If settings do not fit together, naming the class that says so.
        EnvironmentFailure: If one needs a package that is not here, or the processes have not found each other.
    """
    try:
        yield
    except M2PTError:
        raise
    except (MisconfigurationException, ImportError) as error:
        raise refused(error, trainer) from error
    except DistError as error:
        if torch.distributed.is_initialized():  # they had found each other: another one's end
            raise
        raise not_met(error) from error
    except (RuntimeError, TypeError, ValueError) as error:
        innermost = next(objects_of(error.__traceback__), None)
        key, name = origin_of(error, trainer)
        theirs = [item for item in components(trainer.get(key)) if item["class_path"].endswith(f".{name}")]
        if not theirs or is_own(theirs[0]) or type(innermost).__name__ != name:
            raise
        raise refused(error, trainer) from error


def not_met(error: DistError) -> EnvironmentFailure:
    """Returns the error of a process that has not found the others."""
    return EnvironmentFailure(
        f"the processes of this run did not find each other: {in_one_line(error)}",
        where="MASTER_ADDR, MASTER_PORT",
        expected="a first process that listens there, within the timeout of the strategy",
        hint="what the first process has said tells why; between machines, whether a firewall closes the port",
    )


def refused(error: Exception, trainer: dict[str, Any]) -> M2PTError:
    """Returns the error in three lines."""
    if isinstance(error, ImportError):
        return cannot_be_made(error, trainer)
    key, name = origin_of(error, trainer)
    return BadInputError(
        f"{name}: {in_one_line(error)}" if name else in_one_line(error),
        where=f"trainer.{key}" if key else "trainer",
        expected="settings that fit together and that this machine can run",
    )
