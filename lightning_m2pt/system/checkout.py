"""The checkout of this project: where experiments, data modules and callbacks are, which no wheel holds.

They have generic names and belong to whoever experiments, so they are never installed. The checkout is the folder
beside this package, as in a clone or after ``pip install -e``, or else the working directory or one of its parents.
Only this module puts it on the path, and modules in it are imported by their names, as strings: no import goes up.
"""

import configparser
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from lightning_m2pt.errors import BadInputError

PACKAGE = Path(__file__).resolve().parents[1]
PROJECT = "lightning-m2pt"
FOLDERS = ("experiments", "data_modules", "callbacks")
COMMANDS = Path("experiments", "commands")
DESCRIPTION = "setup.cfg"
SECONDS_FOR_GIT = 10


def find_checkout() -> Path | None:
    """Returns the checkout's absolute path; None if there is none.

    Raises:
        BadInputError: If what is found beside the working directory's path may not be run.
    """
    if has_form(PACKAGE.parent):
        return PACKAGE.parent
    here = Path.cwd()
    found = next((folder for folder in (here, *here.parents) if has_form(folder)), None)
    if found is not None:
        refuse_others(found)
    return found


def has_form(folder: Path) -> bool:
    """Tells whether a folder holds what only a checkout of this project holds side by side."""
    return (folder / COMMANDS).is_dir() and all((folder / name).is_dir() for name in FOLDERS)


def refuse_others(folder: Path) -> None:
    """Refuses to run code of a folder that another user may have put there, or that is of another version.

    Ownership is what git asks for, too (``safe.directory``). The parts are asked one by one: a folder such as ``/tmp``
    is root's, and what is in it is anybody's.

    Raises:
        BadInputError: Naming the part that is another user's, or what the description says otherwise.
    """
    for part in (folder, *(folder / name for name in (*FOLDERS, DESCRIPTION))):
        if part.exists() and part.lstat().st_uid not in (os.getuid(), 0):
            raise BadInputError(
                "code in here is not run: it belongs to another user",
                where=str(part),
                expected="a checkout that belongs to you or to root",
                hint="clone it yourself, or, if you trust it, install the package from it: pip install -e .",
            )
    described = description_of(folder)
    wanted = (PROJECT, installed_version())
    if described != wanted:
        raise BadInputError(
            f"code in here is not run: it says it is {' '.join(described).strip() or 'nothing'}",
            where=str(folder / DESCRIPTION),
            expected=f"a checkout of {' '.join(wanted)}, the version of this package",
            hint="install the package from the checkout: pip install -e .",
        )


def description_of(folder: Path) -> tuple[str, str]:
    """Returns the name and the version that a checkout's setup.cfg says; empty where it says none."""
    parser = configparser.ConfigParser(interpolation=None)
    if not (folder / DESCRIPTION).is_file():  # a pipe would wait for ever
        return "", ""
    try:
        parser.read(folder / DESCRIPTION, encoding="utf-8")
    except (OSError, configparser.Error, UnicodeDecodeError):
        return "", ""
    return parser.get("metadata", "name", fallback=""), parser.get("metadata", "version", fallback="")


def installed_version() -> str:
    """Returns this package's version; that of the checkout beside it where nothing is installed."""
    try:
        return version(PROJECT)
    except PackageNotFoundError:
        return description_of(PACKAGE.parent)[1]


def checkout_or_refuse(wanted_by: str) -> Path:
    """Returns the checkout.

    Args:
        wanted_by: What needs it, for the message.

    Raises:
        BadInputError: If there is none, or it may not be run.
    """
    folder = find_checkout()
    if folder is None:
        raise BadInputError(
            "this needs a checkout of the project, and there is none here",
            where=wanted_by,
            expected=f"{', '.join(FOLDERS)} beside the package, in {Path.cwd()} or in one of its parents",
            hint="git clone the project's repository, cd into the clone, and give the command there",
        )
    return folder


def checkout_module(name: str, wanted_by: str) -> ModuleType:
    """Imports a module of the checkout.

    Args:
        name: Its dotted name, such as ``experiments.commands.fit``.
        wanted_by: What needs it, for the message.

    Raises:
        BadInputError: If there is no checkout, or it may not be run.
    """
    folder = str(checkout_or_refuse(wanted_by))
    if folder not in sys.path:
        sys.path.insert(0, folder)  # in front: other packages of such names may be installed
    return importlib.import_module(name)


def child_environment(wanted_by: str) -> dict[str, str]:
    """Returns the environment in which a child process finds this checkout, whatever its working directory.

    ``python -m`` would look for every module in the working directory first, which may be a stranger's.
    """
    paths: Sequence[str] = (str(checkout_or_refuse(wanted_by)), *filter(None, [os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def commit_of(folder: Path) -> str | None:
    """Returns the commit that a folder's own repository stands at; None if it is no clone."""
    if not (folder / ".git").exists():  # git would look further up: a package may be installed inside any repository
        return None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS_FOR_GIT,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def version_text() -> str:
    """Returns version, commit and torch's version in one line; imports none of them."""
    commit = commit_of(PACKAGE.parent)
    try:
        torch = f"torch {version('torch')}"
    except PackageNotFoundError:
        torch = "no torch"
    return f"{PROJECT} {installed_version()}, {f'commit {commit}' if commit else 'no commit'}, {torch}"
