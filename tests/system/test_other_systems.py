"""A system that is not supported says so in three lines, with nothing imported that it lacks."""

import subprocess
import sys

import pytest

from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.main import refuse_other_systems

WITHOUT_POSIX = """
import signal, sys
sys.modules["fcntl"] = sys.modules["resource"] = None
del signal.SIGHUP, signal.SIGUSR1
from lightning_m2pt.main import main
sys.platform = "win32"
sys.exit(main(["fit", "--config", "experiments/m2pt_base.yaml"]))
"""


def test_windows_is_refused_in_three_lines() -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert ended.stderr.splitlines() == [
        "error: this system: win32 is not supported: there are no file locks and signals of POSIX",
        "  expected: Linux, or macOS",
        "  hint: on Windows, WSL 2 is a Linux",
    ]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_posix_is_not(platform: str) -> None:
    refuse_other_systems(platform)
    with pytest.raises(EnvironmentFailure, match="cygwin is not supported"):
        refuse_other_systems("cygwin")
