"""Which runs are in an output folder, from their records alone; without torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.storage.run_record import COMPLETED, DECIDING, MADE_WITH, RECORD_FILE, read_run_record


@dataclass(frozen=True)
class FoundRun:
    """A run's folder.

    Attributes:
        folder: The folder, below the one that was searched as it was named.
        about: What it is and where it stands, in a line.
    """

    folder: Path
    about: str


def found_runs(root: Path) -> Iterator[FoundRun]:
    """Yields the runs of all experiments, by name.

    Args:
        root: An output folder: ``EXPERIMENT/RUN/run.json`` below it.

    Raises:
        BadInputError: If there is no such folder.
    """
    if not root.is_dir():
        raise BadInputError(
            "the folder does not exist",
            where=f"command line: --output_root {root}",
            expected="a folder that runs have been written to",
            hint="`m2pt train` writes to outputs, below the folder where it is called",
        )
    for file in sorted(root.glob(f"*/*/{RECORD_FILE}")):
        try:
            record = read_run_record(file.parent)
        except BadInputError as error:
            yield FoundRun(file.parent, f"its record is damaged: {error.what}")
        else:
            if MADE_WITH in record:
                yield FoundRun(file.parent, about_run(record))


def about_run(record: Mapping[str, Any]) -> str:
    """Returns what a run is and where it stands.

    Args:
        record: Of a run that was started.
    """
    steps, started = record.get(COMPLETED, {}).get("optimizer_steps"), record[MADE_WITH][-1:]
    seed = record.get(DECIDING, {}).get("seed")
    parts = [f"complete, {steps} steps" if COMPLETED in record else "not complete: the same command goes on"]
    parts += [f"seed {seed}"] if seed is not None else []
    parts += [f"last started {each['started']}" for each in started if "started" in each]
    return ", ".join(parts)
