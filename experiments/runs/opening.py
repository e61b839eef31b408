"""Opening a run's folder so that a stop at any point leaves one which the same command opens again.

``run.json`` is written first and says whose folder this is; ``--force`` marks it before anything is removed and removes
it never, so that a folder half emptied is emptied by whatever command comes next.
"""

import json
import shutil
from pathlib import Path

from experiments.configuration.cli import Experiment
from experiments.configuration.path_settings import portable_paths
from experiments.runs.folder import deciding, made_with
from experiments.runs.training import checkpoints_folder
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.storage.checkpoint import recover_checkpoints
from lightning_m2pt.storage.run_record import CONFIG_FILE, DECIDING, MADE_WITH, RECORD_FILE, read_run_record
from lightning_m2pt.system.atomic_files import DRAFT, remove_dead_drafts, write_atomically
from lightning_m2pt.system.strict_json import parse_json

EMPTYING = "emptying"
"""Section of run.json while ``--force`` empties the folder."""
OF_A_CONFIGURATION = {"model", "data", "trainer", "seed_everything"}


def refuse_foreign_folder(folder: Path) -> None:
    """Refuses a folder that holds something, but no run.

    Raises:
        BadInputError: If it does.
    """
    if not folder.exists():
        return
    begun = folder.is_dir() and is_begun(folder)  # before the record is read: another rank may be writing it just now
    if not begun and not {DECIDING, EMPTYING} & set(read_run_record(folder)):
        raise BadInputError(
            "this is no run's folder, and not empty",
            where=str(folder),
            expected="a run's folder, or one that is empty or not there yet",
        )


def is_begun(folder: Path) -> bool:
    """Tells whether a folder without a record holds nothing but what a stop has left while it was opened."""
    left = [path for path in folder.iterdir() if DRAFT.fullmatch(path.name) is None]
    return not left or ([path.name for path in left] == [CONFIG_FILE] and is_configuration(left[0]))


def is_configuration(path: Path) -> bool:
    """Tells whether a file is a resolved configuration, which versions before this one wrote first."""
    try:
        config = parse_json(path.read_bytes(), path)
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and set(config) >= OF_A_CONFIGURATION


def is_being_emptied(folder: Path) -> bool:
    """Tells whether a stop came while ``--force`` emptied a run's folder."""
    return EMPTYING in read_run_record(folder)


def empty_run_folder(folder: Path) -> None:
    """Removes everything of a run but the record, which says so first; the folder may not be there.

    Raises:
        EnvironmentFailure: If something cannot be removed.
    """
    if not folder.exists():
        return
    write_atomically(folder / RECORD_FILE, (json.dumps({EMPTYING: True}) + "\n").encode())
    try:
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != RECORD_FILE:
                path.unlink()
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot be removed: {error.strerror}",
            where=str(error.filename or folder),
            expected="a run's folder that this user may empty",
            hint="the same command goes on emptying it",
        ) from error


def open_run_folder(folder: Path, experiment: Experiment) -> None:
    """Makes the folder, clears away what stopped processes have left, and writes record and resolved configuration.

    Raises:
        EnvironmentFailure: If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for inside in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            remove_dead_drafts(inside)
        recover_checkpoints(checkpoints_folder(folder))
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot be made: {error.strerror}", where=str(folder), expected="a folder this user may write to"
        ) from error
    record = {name: section for name, section in read_run_record(folder).items() if name != EMPTYING}
    if DECIDING not in record:  # a run goes on by the settings it was started with
        record[DECIDING] = deciding(experiment)
    record[MADE_WITH] = [*record.get(MADE_WITH, []), made_with(experiment)]
    write_atomically(folder / RECORD_FILE, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())
    if experiment.is_of_objects:  # the record describes them, but no file could make them again
        return
    config = json.dumps(portable_paths(experiment.config, experiment.opened), indent=2) + "\n"
    write_atomically(folder / CONFIG_FILE, config.encode())  # JSON is YAML, and numbers keep their digits
