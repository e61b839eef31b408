"""What SLURM's own commands are asked, and what is made of their answers."""

import os

import pytest

from experiments.cluster import slurm_commands
from experiments.cluster.slurm_commands import Queued, accounted, asked, queued, submit
from lightning_m2pt.errors import EnvironmentFailure
from tests.support.slurm_programs import SlurmPrograms


def test_the_queue_is_asked_for_each_element_of_this_users_jobs_ended_ones_too(slurm: SlurmPrograms) -> None:
    slurm.queue(
        ("12_0", "RUNNING", "2", "1:00", "a", "None"),
        ("12_1", "PENDING", "", "", "a", "(JobHeldUser)"),
        ("", "", "", "", "", ""),
    )
    assert queued() == {
        "12_0": Queued("12_0", "RUNNING", 2, "1:00", "a", "None"),
        "12_1": Queued("12_1", "PENDING", 0, "", "a", "(JobHeldUser)"),
    }
    [words] = slurm.asked("squeue")
    assert words[:4] == [f"--user={os.getuid()}", "--states=all", "--array", "--noheader"]
    assert words[4] == "--Format=JobArrayID:40,State:20,RestartCnt:12,TimeLeft:20,Name:70,Reason:60"


def test_accounting_is_asked_for_jobs_without_their_steps(slurm: SlurmPrograms) -> None:
    slurm.answer("sacct", "14|CANCELLED by 0\n15_2|COMPLETED\n16|\n")
    assert accounted(["14", "15_2", "16"]) == {"14": "CANCELLED", "15_2": "COMPLETED"}
    [words] = slurm.asked("sacct")
    assert words == ["--noheader", "--parsable2", "--allocations", "--jobs=14,15_2,16", "--format=JobID,State"]
    assert accounted([]) == {}
    slurm.answer("sacct", "Slurm accounting storage is disabled\n", 1)
    assert accounted(["14"]) == {}


@pytest.mark.parametrize("said", ["17\n", "17;cluster\n"])
def test_options_are_given_as_words_because_variables_win_over_a_scripts_lines(
    slurm: SlurmPrograms, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_CLUSTERS"):
        monkeypatch.setenv(name, "1")
    slurm.answer("sbatch", said)
    assert submit(["--time=1:00", "--mem=2G"], "a script") == "17"
    assert slurm.asked("sbatch") == [["--parsable", "--time=1:00", "--mem=2G", "a script"]]
    assert {name for name in slurm.environment("sbatch") if name.startswith("SLURM_")} == {"SLURM_CLUSTERS"}


@pytest.mark.parametrize(
    ("states", "is_over"),
    [
        (["PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "REQUEUED", "STOPPED"], False),
        (["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"], True),
    ],
)
def test_states_in_which_a_job_is_over(states: list[str], is_over: bool) -> None:
    assert {Queued("1", state, 0, "", "a", "").is_over for state in states} == {is_over}


def test_a_controller_that_does_not_answer_and_a_refusal_without_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_commands, "SECONDS_TO_ANSWER", 0.05)
    with pytest.raises(EnvironmentFailure, match=r"sleep: no answer in 0\.05 seconds"):
        asked(["sleep", "20"])
    monkeypatch.setattr(slurm_commands, "SECONDS_TO_ANSWER", 20)
    with pytest.raises(EnvironmentFailure, match="false: exit code 1"):
        asked(["false"])
