"""On the embedded backbone and its sets: the answers of shared prefixes are those of a loop of single questions."""

import pytest

from benchmarks.answering.speed import evaluated, naive_loop
from experiments.configuration.cli import parse_experiment
from experiments.runs.prepare import check_experiment

CASES = {
    "pope": ("greedy", 150),
    "mme": ("greedy", 100),
    "text_vqa": ("greedy", 60),
    "vsr": ("likelihood_sum", 60),
    "snli_ve": ("likelihood_sum", 60),
    "cifar10": ("likelihood_sum", 20),
}


@pytest.mark.slow
@pytest.mark.parametrize("config", ["m2pt_base", "ptum_prefix_base", "lora_base"])
def test_answers_are_those_of_a_loop_of_single_questions(config):
    experiment = parse_experiment(["--config", f"experiments/{config}.yaml", "--trainer.accelerator", "cpu"])
    check_experiment(experiment)
    experiment.model.configure_model()
    experiment.model.eval()
    assert experiment.model.backbone.shares_prefix()
    for benchmark in experiment.benchmarks:
        if benchmark.name not in CASES:
            continue
        method, benchmark.limit = CASES[benchmark.name]
        benchmark.read_questions = None
        expected = naive_loop(experiment, benchmark, method)
        assert len(expected) == benchmark.limit
        assert evaluated(experiment, benchmark, method, by_picture=True) == expected, benchmark.name
        assert evaluated(experiment, benchmark, method, by_picture=False) == expected, benchmark.name
