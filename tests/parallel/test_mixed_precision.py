"""Under autocast a shared-out base gives the adapter that whole ones give, bit for bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.commands_on_ranks import command_on_ranks
from tests.support.small_experiment import small_words

STRATEGIES = {
    "ddp": ["--trainer.strategy", "ddp"],
    "fsdp": ["--config", "experiments/strategies/fsdp.yaml"],
}


def adapter_of(folder: Path, name: str) -> dict[str, Tensor]:
    """Tunes four steps on two ranks at a twentieth of the rate; returns the adapter."""
    words = [
        *("fit", *small_words(folder, steps=4), *STRATEGIES[name]),
        *("--trainer.devices", "2", "--trainer.precision", "bf16-mixed", "--trainer.enable_progress_bar", "false"),
        *("--model.optimizer.learning_rate", "1e-3", "--model.method.path", "token"),
        *("--output_root", str(folder / name)),
    ]
    ended = command_on_ranks(2, lambda _: words, folder / f"said-{name}", timeout=180)
    assert [each.code for each in ended] == [0, 0], ended
    return load_file(next((folder / name).rglob("adapter_model.safetensors")))


@pytest.mark.slow
def test_a_shared_out_base_under_autocast_gives_the_adapter_of_whole_ones(tmp_path: Path) -> None:
    whole, shared_out = (adapter_of(tmp_path, name) for name in STRATEGIES)
    assert whole.keys() == shared_out.keys()
    for name, tensor in whole.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, shared_out[name]), name
