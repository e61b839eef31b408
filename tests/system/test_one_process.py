"""What needs one process is done by the first of those that a launcher started; the others say and write nothing."""

import pytest

from lightning_m2pt.main import main

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(("launcher", "number"), [(TORCHRUN, "RANK"), (SRUN, "SLURM_PROCID")])
def test_only_the_first_talks(capfd, monkeypatch, launcher, number) -> None:
    said = []
    for process in ("0", "1"):
        for name, value in (launcher | {number: process}).items():
            monkeypatch.setenv(name, value)
        assert main(["list", "methods"]) == 0
        said.append(capfd.readouterr())
    assert "m2pt" in said[0].out
    assert said[1].out + said[1].err == ""


@pytest.mark.parametrize("words", [["sweep", "run", "comparison"], ["chaos"]], ids=lambda words: words[0])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_what_starts_commands_is_refused_in_every_process(capfd, monkeypatch, words, rank) -> None:
    for name, value in (TORCHRUN | {"RANK": rank}).items():
        monkeypatch.setenv(name, value)
    assert main(words) == 2
    said = capfd.readouterr()
    assert said.err.startswith(f"error: m2pt {words[0]}: torchrun started 2 processes")
    assert len(said.err.strip().splitlines()) == 3
    assert said.out == ""
