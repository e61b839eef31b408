"""``run.json``: what a run was, one section per writer."""

import hashlib
import json
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.strict_json import parse_json

RECORD_FILE = "run.json"
CONFIG_FILE = "config.yaml"
DECIDING, MADE_WITH = "deciding", "made_with"
"""Sections of run.json: what decides the numbers, and one entry for every start of the run."""
BACKBONE_NAMES = "backbone_names"
"""Key of such an entry: the backbone's fingerprint and the one that folders made before this version go by."""
SLURM_JOB = "slurm_job"
"""Key of such an entry, if it was a job of SLURM's: its number, as SLURM's commands take it."""
COMPLETED, TRAINABLE = "completed", "trainable"
"""Sections of run.json: what tuning took once it is over, and what was trained."""
BEST_ADAPTER = "best_adapter"
"""Section of run.json where one was asked for: its step, number and monitor, and which adapter is evaluated."""
CHOSEN_BY_SETS = "chosen_by_sets"
"""Section of run.json: the evaluation sets whose scores have stopped a run, or chosen the adapter that is evaluated."""
LAST_VALIDATION = "last_validation"
"""Section of run.json: what was measured on the whole validation part after the last step, by name."""
HASH_LENGTH = 8


def read_run_record(run_folder: Path) -> dict[str, Any]:
    """Returns the sections of a run's record; empty if there is none yet.

    Raises:
        BadInputError: If the file is not a JSON object, or a section that is read by its keys has none.
    """
    path = run_folder / RECORD_FILE
    if not path.exists():
        return {}
    if not path.is_file():
        raise BadInputError("this is no file", where=str(path), expected="a run's record", hint="move the folder away")
    record = parse_json(path.read_bytes(), path, expected="a run's record", hint="move the run's folder away")
    if not isinstance(record, dict):
        raise BadInputError("not a JSON object", where=str(path), hint="move the run's folder away")
    check_sections(record, path)
    return record


def check_sections(record: dict[str, Any], path: Path) -> None:
    """Looks whether sections have the form in which they are written; a record may be anybody's.

    Raises:
        BadInputError: At the first that has not.
    """
    for section in (DECIDING, COMPLETED, TRAINABLE, BEST_ADAPTER):
        if not isinstance(record.get(section, {}), dict):
            raise damaged(path, section, "a JSON object")
    starts = record.get(MADE_WITH, [])
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise damaged(path, MADE_WITH, "a list with an object for every start")
    if not all(isinstance(start.get(BACKBONE_NAMES, []), list) for start in starts):
        raise damaged(path, f"{MADE_WITH}: {BACKBONE_NAMES}", "a list of names")
    seconds = record.get(COMPLETED, {}).get("seconds", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise damaged(path, f"{COMPLETED}: seconds", "a number")


def is_unfinished(record: dict[str, Any]) -> bool:
    """Tells whether a run was started and is not complete: an adapter it has is of a step before its last."""
    return MADE_WITH in record and COMPLETED not in record


def damaged(path: Path, section: str, expected: str) -> BadInputError:
    """Returns the error about a section of another form."""
    return BadInputError(
        "this is of another form", where=f"{path}: {section}", expected=expected, hint="move the run's folder away"
    )


def update_run_record(run_folder: Path, section: str, value: Any) -> None:  # noqa: ANN401  (any JSON value)
    """Sets one section of a run's record and leaves the others alone.

    Args:
        run_folder: The run's folder; made if missing.
        section: Name of the section.
        value: What it shall hold, JSON-able.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    record = read_run_record(run_folder) | {section: value}
    write_atomically(run_folder / RECORD_FILE, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


def short_hash(value: Any) -> str:  # noqa: ANN401  (any JSON value)
    """Returns the first digits of the SHA-256 of a JSON value: what run folders are named by."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:HASH_LENGTH]
