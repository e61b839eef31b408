"""A job's script, run by bash: words arrive as they were given, exit codes are kept, one requeue a stop."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cluster.records import BY_ITSELF, Stops, folder_of, read_stops
from experiments.cluster.script import LEFT_OVER, check_pattern, job_script
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.ranks import RANK_VARIABLES
from tests.support.slurm_programs import SlurmPrograms

ROOT = Path(__file__).parents[2]
ODD = ("fit", "--config", "it's a file.yaml", '--x={"a b": "$(touch ran)"}', "`touch ran`", "*", "--empty=", "")
IN_A_JOB = {"SLURM_JOB_ID": "12", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "2", "SLURM_CPUS_PER_TASK": "3"}
OF_AN_ELEMENT = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "7"}


def script(folder: Path, words: dict[str, tuple[str, ...]], **variables: str) -> str:
    options = ["--job-name=a", f"--output={folder}/a b-%j.log"]
    return job_script("m2pt slurm submit a", options, words, folder, ROOT, sys.executable, folder / "out", variables)


def run(folder: Path, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = folder / "job.sbatch"
    path.write_text(text)
    variables = {**os.environ, **IN_A_JOB, **environment}
    return subprocess.run(
        ["bash", path], env=variables, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )


def test_words_arrive_as_they_were_given(tmp_path: Path, slurm: SlurmPrograms) -> None:
    assert run(tmp_path, script(tmp_path, {BY_ITSELF: ODD})).returncode == 0
    assert slurm.asked("srun") == [
        [
            *("--cpus-per-task=3", "--kill-on-bad-exit=1", sys.executable, "-m", "lightning_m2pt.main"),
            *ODD,
            *("--trainer.num_nodes", "1", "--trainer.devices", "2"),
        ]
    ]
    assert not (tmp_path / "ran").exists()
    assert read_stops(folder_of(tmp_path / "out"), "12") == Stops("12", [], ended=0)


def test_an_element_of_an_array_runs_its_own_words(tmp_path: Path, slurm: SlurmPrograms) -> None:
    words = {"3": ("train", "three"), "7": ("train", "seven")}
    assert run(tmp_path, script(tmp_path, words), **OF_AN_ELEMENT, OMP_NUM_THREADS="8").returncode == 0
    assert slurm.asked("srun")[0][5:7] == ["train", "seven"]
    assert read_stops(folder_of(tmp_path / "out"), "12_7").ended == 0


def test_an_element_that_has_no_words_runs_nothing(tmp_path: Path, slurm: SlurmPrograms) -> None:
    assert run(tmp_path, script(tmp_path, {"3": ("train", "three")}), **OF_AN_ELEMENT).returncode == 2
    assert slurm.asked("srun") == []


@pytest.mark.parametrize("code", [1, 2, 4, 137])
def test_other_exit_codes_end_the_job(tmp_path: Path, slurm: SlurmPrograms, code: int) -> None:
    slurm.answer("srun", "srun: error\n", code)
    assert run(tmp_path, script(tmp_path, {BY_ITSELF: ("fit",)})).returncode == code
    assert slurm.asked("scontrol") == []
    assert read_stops(folder_of(tmp_path / "out"), "12").ended == code


@pytest.mark.parametrize(
    ("code", "environment", "job"), [(138, {}, "12"), (143, OF_AN_ELEMENT, "12_7")], ids=["limit", "preempted element"]
)
def test_a_stopped_job_goes_back_once(
    tmp_path: Path, slurm: SlurmPrograms, code: int, environment: dict[str, str], job: str
) -> None:
    """An element of an array by its own name: the array's last one has the number of them all."""
    slurm.answer("srun", "", code)
    run(tmp_path, script(tmp_path, {BY_ITSELF: ("fit",)} if not environment else {"7": ("fit",)}), **environment)
    assert slurm.asked("scontrol") == [["requeue", job]]
    assert read_stops(folder_of(tmp_path / "out"), job) == Stops(job, [None])


def test_what_the_submitting_shell_has_left_is_gone_and_what_is_needed_is_there(
    tmp_path: Path, slurm: SlurmPrograms
) -> None:
    shown = script(tmp_path, {BY_ITSELF: ("fit",)}, M2PT_DATA="/my data").replace("srun --", "env; srun --")
    result = run(tmp_path, shown, **dict.fromkeys(LEFT_OVER, "1"), PYTHONPATH="/mine")
    seen = dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)
    assert not set(LEFT_OVER) & set(seen)
    assert seen["PYTHONPATH"] == f"{ROOT}:/mine"
    assert seen["PYTHONSAFEPATH"] == "1"
    assert seen["M2PT_DATA"] == "/my data"
    assert seen["PWD"] == str(tmp_path)


@pytest.mark.parametrize(("words", "expected"), [({BY_ITSELF: ("fit",)}, "5"), ({"7": ("fit",)}, "1")])
def test_threads_are_the_shells_and_one_in_a_sweep(
    tmp_path: Path, slurm: SlurmPrograms, words: dict[str, tuple[str, ...]], expected: str
) -> None:
    shown = script(tmp_path, words).replace("srun --", "env; srun --")
    result = run(tmp_path, shown, **OF_AN_ELEMENT, OMP_NUM_THREADS="5")
    assert f"\nOMP_NUM_THREADS={expected}\n" in result.stdout


def test_places_with_spaces_and_quotes(tmp_path: Path, slurm: SlurmPrograms) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    interpreter = folder / "my python"
    interpreter.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    interpreter.chmod(0o755)
    text = job_script("a", [], {BY_ITSELF: ("fit",)}, folder, ROOT, str(interpreter), folder / "out", {})
    assert run(folder, text).returncode == 0
    assert slurm.asked("srun")[0][2] == str(interpreter)
    assert read_stops(folder_of(folder / "out"), "12").ended == 0


def test_whatever_would_number_or_connect_processes_is_unset() -> None:
    of_slurm = {name for name in RANK_VARIABLES if name.startswith("SLURM_")}
    of_groups = {"WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"}
    assert set(LEFT_OVER) == {*RANK_VARIABLES, *of_groups} - of_slurm


@pytest.mark.parametrize("name", ["a b", "it's", "a#b"])
def test_options_that_sbatch_would_read_otherwise_are_quoted(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    lines = script(folder, {BY_ITSELF: ("fit",)}).splitlines()
    assert f'#SBATCH --output="{folder}/a b-%j.log"' in lines
    assert "#SBATCH --job-name=a" in lines


@pytest.mark.parametrize("word", ["a\nb", "a\r", "\x1b[2J", "\0"])
def test_a_line_break_is_refused(tmp_path: Path, word: str) -> None:
    with pytest.raises(BadInputError, match="line break or another control character"):
        script(tmp_path, {BY_ITSELF: ("fit", word)})
    with pytest.raises(BadInputError, match="line break or another control character"):
        job_script(word, [], {BY_ITSELF: ("fit",)}, tmp_path, ROOT, sys.executable, tmp_path / "out", {})


@pytest.mark.parametrize("name", ["50%", 'a"b', "a\\b", "a\nb"])
def test_folders_that_mean_something_else_to_slurm(name: str) -> None:
    with pytest.raises(BadInputError, match="means something else"):
        check_pattern(Path("/data", name))
