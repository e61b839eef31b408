"""SLURM's programs for tests that need no cluster."""

from pathlib import Path

import pytest

from tests.support.slurm_programs import SlurmPrograms

OF_LAUNCHERS = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmPrograms:
    """SLURM's programs, first on the path."""
    programs = SlurmPrograms(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(programs.folder), prepend=":")
    for name in OF_LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    return programs
