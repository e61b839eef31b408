"""How far a prompt moves the rows that a target's language model reads: feature consistency, measured on the target.

It is the training term's relative form (``lightning_m2pt/tuning/regularisers/feature_consistency.py``): the mean
distance of a picture's patch rows to those without the prompt, in units of their mean norm, and the mean over pictures.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from data_modules.base import as_sample
from data_modules.benchmark import BenchmarkDataModule
from data_modules.training_samples import SampleDataset
from experiments.configuration.cli import Experiment
from experiments.prompt_transfer.evaluation import put_in
from experiments.prompt_transfer.rows import Row
from experiments.runs.answering import answering_trainer
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.tuning.regularisers.feature_consistency import FeatureConsistency
from lightning_m2pt.tuning.regularisers.seen_pictures import SeenPictures
from lightning_m2pt.tuning.sample_order import SampleLoader

PICTURES = 200
"""At most so many pictures of a set are measured, spread evenly over it."""


def feature_distances(experiment: Experiment, row: Row) -> dict[str, float]:
    """Returns the relative distance of a row's features by set.

    Args:
        experiment: The target's; its model is loaded if it is not yet.
        row: A row of the prompt's own pictures.
    """
    put_in(experiment, row)
    model = experiment.model
    model.to(answering_trainer(experiment, []).strategy.root_device)
    model.eval()
    return {benchmark.name: distance_on(experiment, benchmark) for benchmark in experiment.benchmarks}


@torch.no_grad()
def distance_on(experiment: Experiment, benchmark: BenchmarkDataModule) -> float:
    """Returns the mean over pictures of one set, with the prompt that is attached."""
    backbone, term = experiment.model.backbone, FeatureConsistency(1.0, norm="relative")
    samples = shown_pictures(benchmark)
    texts = benchmark.processor.encode_all(samples, benchmark.template, with_answers=False)
    dataset = SampleDataset(samples, texts, benchmark.processor)
    total, pictures = 0.0, 0
    for batch in SampleLoader(dataset, benchmark.batch_size, benchmark.collator):
        moved = replace(batch, step_pictures=len(samples)).to(backbone.token_embedding().weight.device)
        seen = SeenPictures(backbone, moved, backbone.connected_rows(moved.pixel_values, moved.picture_sizes))
        total += float(term.summed(seen, term.before(backbone, moved)))
        pictures += sum(moved.picture_counts)
    return total / pictures


def shown_pictures(benchmark: BenchmarkDataModule) -> Sequence[Sample]:
    """Returns the first question of every picture, or of some that are spread evenly over the set."""
    first = {question.image_id: question for question in reversed(benchmark.questions())}
    samples = [as_sample(question) for question in reversed(first.values())]
    step = max(1, -(-len(samples) // PICTURES))
    return samples[::step]
