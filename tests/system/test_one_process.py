"""Each verb in several processes: shared out, done by the first alone, or refused in all of them."""

import pytest

from lightning_m2pt.commands.verbs import SHARED_OUT
from lightning_m2pt.main import main
from tests.support.small_experiment import small_words

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


HALF_LAUNCHES = {
    "mpirun": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
    "its script": {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
}


@pytest.mark.parametrize("verb", SHARED_OUT)
@pytest.mark.parametrize("named", HALF_LAUNCHES)
def test_half_a_launch_is_refused_by_every_verb_that_is_shared_out(capfd, monkeypatch, tmp_path, verb, named) -> None:
    for name, value in HALF_LAUNCHES[named].items():
        monkeypatch.setenv(name, value)
    needed = ("--prompt", "nowhere", "--to", "experiments/frozen.yaml") if verb == "transfer" else ()
    assert main([verb, *needed, *small_words(tmp_path)]) == 2
    said = capfd.readouterr().err
    assert named in said
    assert len(said.strip().splitlines()) == 3


SET = ("--data", "data_modules.vsr.VSR", "--data.root", "nowhere", "--data.template", "vicuna_v1")


@pytest.mark.parametrize(
    "words",
    [
        *([verb, "--config", "experiments/frozen.yaml", *SET] for verb in ("test", "predict")),
        *([verb, "--config", "experiments/m2pt_base.yaml"] for verb in ("fit", "train", "validate", "evaluate")),
        ["transfer", "--prompt", "nowhere", "--to", "experiments/frozen.yaml"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("rank", ["0", "1"])
def test_another_number_of_processes_is_refused_before_anything_is_read(
    capfd, monkeypatch, tmp_path, words, rank
) -> None:
    for name, value in (TORCHRUN | {"RANK": rank, "LOCAL_RANK": rank}).items():
        monkeypatch.setenv(name, value)
    assert main([*words, "--output_root", str(tmp_path / "outputs")]) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: trainer: devices: torchrun started 2 (LOCAL_WORLD_SIZE), the configuration says 1")
    assert len(said.strip().splitlines()) == 3
    assert not (tmp_path / "outputs").exists()
