"""The numbers that a projector begins with, the projector of an adapter, and signals on their way to a training."""

import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.alignment import training
from experiments.alignment.settings import ALIGNMENTS
from experiments.alignment.training import fit_in_processes, passed_on, start_projector, words_of, write_projector
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.stop_signals import StopSignals


def test_first_numbers_are_seeded_normal_and_without_bias():
    first = start_projector(576, 384, 0, 0.02)
    assert {name: tuple(tensor.shape) for name, tensor in first.items()} == {"weight": (576, 384), "bias": (576,)}
    assert not first["bias"].any()
    assert abs(float(first["weight"].std()) - 0.02) < 1e-4
    assert abs(float(first["weight"].mean())) < 2e-4
    assert torch.equal(first["weight"], start_projector(576, 384, 0, 0.02)["weight"])
    assert not torch.equal(first["weight"], start_projector(576, 384, 1, 0.02)["weight"])
    expected = torch.randn(4, 3, generator=torch.Generator().manual_seed(5)) * 0.5
    assert torch.equal(start_projector(4, 3, 5, 0.5)["weight"], expected)


def test_the_recipes_seed_is_the_trainings(tmp_path):
    words = words_of(replace(ALIGNMENTS["smollm2_dinov2"], seed=3), tmp_path / "start", tmp_path, tmp_path)
    assert words[words.index("--seed_everything") + 1] == "3"
    assert words[words.index("--model.backbone.projector") + 1] == str(tmp_path / "start")


def test_an_adapters_projector_becomes_a_pairs(tmp_path):
    (tmp_path / "adapter").mkdir()
    trained = {"interaction.weight": torch.randn(3, 2), "interaction.bias": torch.randn(3).bfloat16()}
    save_file(trained, tmp_path / "adapter" / "adapter_model.safetensors")
    write_projector(tmp_path, tmp_path / "projector.safetensors")
    written = load_file(tmp_path / "projector.safetensors")
    assert {f"interaction.{name}" for name in written} == set(trained)
    for name, tensor in written.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, trained[f"interaction.{name}"].float())


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"interaction.weight": torch.zeros(3, 2)}, "interaction.weight"),
        ({"interaction.weight": torch.zeros(600, 500), "interaction.bias": torch.zeros(600)}, "bytes"),
        (
            {"interaction.weight": torch.zeros(3, 2), "interaction.bias": torch.zeros(3), "prompts": torch.zeros(1)},
            "prompts",
        ),
    ],
)
def test_what_is_no_small_linear_projector_is_refused(tensors, said, tmp_path):
    (tmp_path / "adapter").mkdir()
    save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(BadInputError, match=said):
        write_projector(tmp_path, tmp_path / "projector.safetensors")


COUNTS_SIGNALS = """
import signal, sys, time
came = []
signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
print("ready", flush=True)
end = time.monotonic() + 60
while not came and time.monotonic() < end:
    time.sleep(0.05)
time.sleep(1)
sys.exit(40 + len(came))
"""


def test_a_stop_signal_reaches_the_training_once():
    child = subprocess.Popen([sys.executable, "-c", COUNTS_SIGNALS], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    signals = StopSignals()
    signals.received = signal.SIGTERM
    assert passed_on(child, signals) == 41


@pytest.mark.parametrize(
    ("code", "received", "ended"),
    [
        (0, 0, None),
        (3, 0, 3),
        (0, signal.SIGTERM, 143),  # it finished as the signal came: the recipe ends all the same
        (130, signal.SIGINT, 130),
        (1, signal.SIGTERM, 143),
    ],
)
def test_the_training_runs_as_a_command_and_its_end_is_passed_on(monkeypatch, code, received, ended):
    started = []

    def waited(child, signals):
        assert signal.getsignal(signal.SIGTERM) == signals._note  # taken over while it runs
        signals.received = received
        return code

    monkeypatch.setattr(training, "passed_on", waited)
    run = lambda command, **options: started.append((command, options))  # noqa: E731
    monkeypatch.setattr(training, "subprocess", SimpleNamespace(Popen=run, DEVNULL=subprocess.DEVNULL))
    before = signal.getsignal(signal.SIGTERM)
    if ended is None:
        fit_in_processes(["--seed_everything", "3"])
    else:
        with pytest.raises(SystemExit) as left:
            fit_in_processes(["--seed_everything", "3"])
        assert left.value.code == ended
    assert signal.getsignal(signal.SIGTERM) == before
    ((command, options),) = started
    assert command[1:] == ["-m", "lightning_m2pt.main", "fit", "--seed_everything", "3"]
    assert options["start_new_session"]
    assert options["env"]["OMP_NUM_THREADS"] == "1"
