"""What a job asks for: every form that SLURM takes, and a refusal by name of everything else."""

from dataclasses import replace

import pytest

from experiments.cluster.resources import Resources, check_job_name, gpus_in, ranges, seconds_of
from lightning_m2pt.errors import BadInputError

FOUR_GPUS = Resources(2, 4, "a100:4", 8, "12:00:00", 90, partition="gpu", constraint="a100|h100", mem="64G")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("12:00:00", 43200),
        ("2-0", 172800),
        ("1-12:30", 131400),
        ("1-02:03:04", 93784),
    ],
)
def test_every_form_of_a_time_limit(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1h", "1:2:3:4", "-5", "1.5", "UNLIMITED", "1:00 --wrap"])
def test_what_is_no_time(text):
    with pytest.raises(BadInputError, match="is no time"):
        seconds_of(text)


def test_the_options_of_a_job():
    FOUR_GPUS.check()
    assert FOUR_GPUS.processes == 8
    assert FOUR_GPUS.options("/logs/a b-%A_%a.log", [0, 1, 2, 7], 2) == [
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=a100:4",
        "--cpus-per-task=8",
        "--time=12:00:00",
        "--signal=SIGUSR1@90",
        "--requeue",
        "--open-mode=append",
        "--output=/logs/a b-%A_%a.log",
        "--array=0-2,7%2",
        "--partition=gpu",
        "--constraint=a100|h100",
        "--mem=64G",
    ]


def test_a_job_without_gpus_asks_for_none():
    options = Resources(1, 1, "0", 1, "30", 90).options("log", [], 0)
    assert not [option for option in options if "gpu" in option or "array" in option]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"nodes": 0}, "--nodes"),
        ({"cpus_per_task": 0}, "--cpus-per-task"),
        ({"tasks_per_node": 3}, "--tasks-per-node: 3 processes a node and 4 GPUs"),
        ({"gpus_per_node": "a100"}, "--gpus-per-node"),
        ({"mem": "64 GB"}, "--mem"),
        ({"time": "2:30"}, "--time: 2:30 is over before"),
        ({"signal_seconds": 0}, "--signal-seconds"),
        ({"partition": "a b"}, "--partition"),
        ({"account": "x\n#SBATCH --uid=0"}, "--account"),
        ({"more": ("exclusive",)}, "--sbatch"),
        ({"more": ("--output=x",)}, "--sbatch: --output is set"),
        ({"more": ("--outp=x",)}, "--sbatch: --outp is set"),
        ({"more": ("--tasks-per-node=3",)}, "--sbatch: --tasks-per-node is set"),
        ({"more": ("--reservation=a b",)}, "--sbatch"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_values_are_refused_by_their_flag(change, named):
    with pytest.raises(BadInputError) as refused:
        replace(FOUR_GPUS, **change).check()
    assert named in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 3


def test_further_options_go_to_sbatch():
    more = replace(FOUR_GPUS, more=("--exclusive", "--reservation=course-1"))
    more.check()
    assert more.options("log", [], 0)[-2:] == ["--exclusive", "--reservation=course-1"]


@pytest.mark.parametrize("name", ["bash", "interactive", "", "a b", "x" * 65])
def test_names_that_slurm_or_lightning_take_for_something_else(name):
    with pytest.raises(BadInputError, match="--job-name"):
        check_job_name(name)


def test_numbers_of_elements_and_of_gpus():
    assert ranges([3, 1, 2, 9, 11, 10]) == "1-3,9-11"
    assert ranges([]) == ""
    assert [gpus_in(text) for text in ("", "0", "8", "h100:2")] == [0, 0, 8, 2]
