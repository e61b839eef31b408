"""Programs that stand for SLURM's on the path: they note what they are asked, and answer what a test has laid down."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = """\
#!{python}
import json, os, sys
from pathlib import Path
folder = Path({folder!r})
with (folder / "asked").open("a") as file:
    file.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
(folder / "{name}.environment").write_text(json.dumps(dict(os.environ)))
answer = folder / "{name}.answer"
if answer.exists():
    code, _, text = answer.read_text().partition("\\n")
    (sys.stderr if int(code) else sys.stdout).write(text)
    sys.exit(int(code))
"""
WIDTHS = (40, 20, 12, 20, 70, 60)
"""Of the columns that squeue is asked for."""


class SlurmPrograms:
    """A folder of such programs.

    Args:
        folder: Where they are written, and what they note.
    """

    NAMES = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "srun")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.NAMES:
            (folder / name).write_text(PROGRAM.format(python=sys.executable, folder=str(folder), name=name))
            (folder / name).chmod(0o755)

    def answer(self, name: str, text: str = "", code: int = 0) -> None:
        """Lays down what a program says, and its exit code."""
        (self.folder / f"{name}.answer").write_text(f"{code}\n{text}")

    def queue(self, *rows: Sequence[str]) -> None:
        """Lays down squeue's rows: job, state, restarts, time left, name, reason."""
        lines = ["".join(cell.ljust(width) for cell, width in zip(row, WIDTHS, strict=True)) for row in rows]
        self.answer("squeue", "".join(f"{line}\n" for line in lines))

    def environment(self, name: str) -> dict[str, str]:
        """Returns the environment variables of a program's last call."""
        found: dict[str, str] = json.loads((self.folder / f"{name}.environment").read_text())
        return found

    def asked(self, name: str) -> list[list[str]]:
        """Returns the words of every call of a program."""
        path = self.folder / "asked"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call[1:] for call in calls if call[0] == name]
