"""What several processes have to begin with alike."""

from pathlib import Path

from experiments.configuration.cli import parse_experiment
from experiments.runs.start import ran_in_lockstep
from tests.support.small_experiment import small_words


def test_what_a_device_recomputes_is_compared_where_all_run_the_same_modules_alone(tmp_path: Path) -> None:
    """GPUs of several sizes decide differently; that is nobody's business under DDP."""
    words = small_words(tmp_path)
    whole = parse_experiment([*words, "--config", "experiments/strategies/ddp.yaml"])
    shared = parse_experiment([*words, "--config", "experiments/strategies/fsdp.yaml"])
    decided = []
    for is_on in (False, True):
        for experiment in (whole, shared):
            experiment.model.backbone.recompute_activations(is_on)
        assert ran_in_lockstep(whole) == {}
        decided.append(ran_in_lockstep(shared))
    assert decided == [{"activation_checkpointing": False}, {"activation_checkpointing": True}]
