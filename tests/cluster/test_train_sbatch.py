"""The script that is submitted by hand calls what the submitted ones call."""

import os
import subprocess
from pathlib import Path

from tests.support.slurm_programs import SlurmPrograms

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "slurm" / "train.sbatch"
IN_A_JOB = {"SLURM_JOB_ID": "12", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "8"}


def test_it_trains_and_evaluates_on_all_its_gpus_and_keeps_the_exit_code(tmp_path: Path, slurm: SlurmPrograms) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" >> called\nexit 7\n')
    python.chmod(0o755)
    slurm.answer("srun", "", 138)
    words = ["bash", SCRIPT, "my experiment.yaml", "--trainer.max_steps", "3"]
    result = subprocess.run(words, cwd=tmp_path, env={**os.environ, **IN_A_JOB}, timeout=60, check=False)
    assert result.returncode == 7  # what `after` says
    assert (tmp_path / "called").read_text() == "-m lightning_m2pt.main slurm after 138\n"
    (called,) = slurm.asked("srun")
    assert called == [
        *("--cpus-per-task=8", "--kill-on-bad-exit=1", str(python), "-m", "lightning_m2pt.main", "train"),
        *("--config", "my experiment.yaml", "--config", "experiments/strategies/ddp.yaml"),
        *("--trainer.max_steps", "3", "--trainer.num_nodes", "2", "--trainer.devices", "4"),
    ]
