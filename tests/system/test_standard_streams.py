"""Standard output and error that are closed, full or read by nobody: the right exit code, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_m2pt.system.standard_streams import output_fault

M2PT = f"{sys.executable} -m lightning_m2pt.main"
LINES_OF_NUMBERS = """
import os, sys
from lightning_m2pt.system.standard_streams import open_closed_streams
open_closed_streams()
print("said")
kept = open("kept", "w")
os.write(1, b"by another library")
os.write(2, b"by another library")
kept.close()
"""


def ended(line: str, folder: Path | None = None, **variables: str) -> tuple[int, list[str]]:
    """Returns a shell line's exit code, and the lines on standard error, which may be that of the shell's own."""
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **variables},
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("words", ["--help", "list --help", "list methods"])
def test_a_closed_output_hinders_nothing(words: str) -> None:
    assert ended(f"{M2PT} {words} >&-") == (0, [])


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_mistake_has_its_exit_code_where_nobody_can_be_told(closed: str) -> None:
    assert ended(f"{M2PT} lst {closed}") == (2, [])


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    line = f'{sys.executable} -c "$PROGRAM" <&- >&- 2>&-'
    assert ended(line, tmp_path, PROGRAM=LINES_OF_NUMBERS) == (0, [])
    assert (tmp_path / "kept").read_bytes() == b""


def test_another_program_gets_what_stands_in_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    program = "import subprocess; from lightning_m2pt.system.standard_streams import open_closed_streams as opened; "
    program += "opened(); subprocess.run(['sh', '-c', 'echo said'], check=True)"
    for closed in (">&-", "<&- >&- 2>&-"):
        assert ended(f'{sys.executable} -c "{program}" {closed}', tmp_path) == (0, [])


def test_an_error_of_another_pipe_is_no_fault_of_standard_output() -> None:
    assert output_fault(BrokenPipeError()) is None


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["--version", "models list"])
def test_a_reader_that_has_gone_ends_it_in_silence(words: str, unbuffered: str) -> None:
    line = f"{M2PT} {words} | true; exit ${{PIPESTATUS[0]}}"
    assert ended(line, PYTHONUNBUFFERED=unbuffered) == (141, [])


def test_tables_end_in_the_same_way() -> None:
    # What the console writes is rich's to write, and rich's to end.
    program = "from lightning_m2pt.system.console import say; import sys; sys.stdin.read(); say('x' * 200000)"
    line = f'(sleep 0.2; true) | {sys.executable} -c "{program}" | true; exit ${{PIPESTATUS[1]}}'
    assert ended(line) == (141, [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_behind_standard_output_is_named() -> None:
    code, lines = ended(f"{M2PT} --version >/dev/full", PYTHONUNBUFFERED="")
    assert code == 3
    assert lines == [
        "error: standard output: No space left on device",
        "  expected: a place that takes what is written there",
    ]
