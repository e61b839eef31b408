"""What loggers may be told in a configuration: no keys, and nothing that would do nothing or something twice."""

import importlib
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import CometLogger, MLFlowLogger, WandbLogger

from callbacks.logger_guards import kept_name, names_of
from lightning_m2pt.errors import BadInputError

SECRET_WORD = r"(?:api[_-]?keys?|access[_-]?key|secret|token|password|passwd|credentials?|authorization)"
SECRET_NAME = re.compile(rf"(?:^|[_-]){SECRET_WORD}(?:$|[_-])", re.I)
SECRET_IN_ADDRESS = re.compile(
    rf"[a-z][a-z0-9+.-]*://(?:[^/?#\s]*@|\S*[?&;](?:[\w-]*[_-])?{SECRET_WORD}(?:[_-][\w-]*)?=)", re.I
)
"""An address with a user, a key or a password in front of its host, or a key among what it asks for."""

# Before anything imports comet_ml, as the parser does to read its signatures: otherwise it puts itself in front of
# TensorBoard's writer, and every number of the run's own board arrives there a second time.
os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")

FROM_ENVIRONMENT: dict[type, str] = {
    WandbLogger: "`wandb login`, or the variable WANDB_API_KEY",
    MLFlowLogger: "the variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    CometLogger: "`comet login`, or the variable COMET_API_KEY",
}

UPLOADS = ("it uploads checkpoints, which are written by a callback of the run's own", "a copy of the run's adapter/")
GOES_ON = ("a resumed run goes on under the name that its folder keeps", "a name of your own, or none")
REFUSED_ARGUMENTS: dict[type, dict[str, tuple[str, str]]] = {
    WandbLogger: {
        "log_model": UPLOADS,
        "resume": GOES_ON,
        "resume_from": GOES_ON,
        "fork_from": GOES_ON,
        "sync_tensorboard": ("every number would be there twice", "the numbers that it is given"),
    },
    MLFlowLogger: {"log_model": UPLOADS},
    CometLogger: {"mode": GOES_ON},
}
"""Arguments, where they are set: the reason, and what to use instead."""


def no_id() -> str | None:
    """Returns none: the service makes it."""
    return None


ID_ARGUMENTS: dict[type, tuple[str, Callable[[], str | None]]] = {
    WandbLogger: ("id", partial(token_hex, 4)),
    MLFlowLogger: ("run_id", no_id),
    CometLogger: ("experiment_key", partial(token_hex, 16)),
}
"""The argument that names the run at a logger's service, and what makes such a name; no global generator does."""


def refuse_logger_arguments(found: type, component: dict[str, Any]) -> None:
    """Refuses what a logger may not be told.

    Args:
        found: The logger's class.
        component: Its class path and arguments, as plain values.

    Raises:
        BadInputError: If an argument is a key, or is not kept. Keys would stand in the run's folder for everybody to
            read; the error does not repeat them.
    """
    where = f"trainer.logger.{found.__name__}"
    instead = next((place for base, place in FROM_ENVIRONMENT.items() if issubclass(found, base)), "the environment")
    for name, value in arguments_of(component):
        if is_key(name.rpartition(".")[2], value):
            raise BadInputError(
                "keys are not written into an experiment: its run's folder would show them",
                where=f"{where}.{name}",
                expected=instead,
                hint="take it out here, and treat the key as known to others if the file has been shared",
            )
    refused = next((names for base, names in REFUSED_ARGUMENTS.items() if issubclass(found, base)), {})
    if issubclass(found, CometLogger) and dict(arguments_of(component)).get("online") is False:
        raise BadInputError(
            "Lightning makes of this an experiment that keeps nothing",
            where=f"{where}.online",
            expected="the variable COMET_START_ONLINE=false, which keeps it offline in COMET_OFFLINE_DIRECTORY",
            hint="take the line out",
        )
    for name, value in arguments_of(component):
        if name in refused and value not in (None, False):
            reason, other = refused[name]
            raise BadInputError(reason, where=f"{where}.{name}", expected=other, hint="take the line out")


def is_key(name: str, value: Any) -> bool:
    """Tells whether an argument is a key to a service, by its name, or an address with one in it."""
    is_named_so = SECRET_NAME.search(name) is not None and value is not None
    return is_named_so or (isinstance(value, str) and SECRET_IN_ADDRESS.search(value) is not None)


def arguments_of(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every argument of a component with its dotted name, those inside mappings and lists among them."""
    if isinstance(value, dict):
        for name, inner in value.items():
            is_group = name in ("init_args", "dict_kwargs") and not place
            yield from arguments_of(inner, place if is_group else f"{place}.{name}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from arguments_of(inner, place)
    elif place and place != "class_path":
        yield place, value


def name_logged_runs(values: Namespace, run_folder: Path | None) -> None:
    """Gives loggers the id under which their service knows this run, or a new one, where no id is set.

    Args:
        values: The Trainer's settings as parsed, nothing instantiated; changed in place.
        run_folder: The run's folder, which keeps ids; None for a run that begins again.
    """
    logger = values.get("logger")
    listed = [item for item in (logger if isinstance(logger, list) else [logger]) if isinstance(item, Namespace)]
    classes = [class_at(item.class_path) for item in listed]
    for component, found, name in zip(listed, classes, names_of(classes), strict=True):
        argument, make_id = next((way for base, way in ID_ARGUMENTS.items() if issubclass(found, base)), (None, no_id))
        arguments = component.get("init_args") or Namespace()
        if argument is None or any(arguments.get(key) is not None for key in (argument, "version")):
            continue
        its_id = (kept_name(run_folder, name) if run_folder is not None else None) or make_id()
        if its_id is not None:
            arguments[argument] = its_id
        if issubclass(found, WandbLogger):
            arguments["resume"] = "allow"  # Lightning's own, which the parser's None would take the place of
        component.init_args = arguments


def class_at(class_path: str) -> type:
    """Returns the class of a path; the parser has imported it already."""
    module, _, name = class_path.rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found
