"""Process time of bare training steps over batches that lie ready."""

import time
from collections.abc import Iterable, Sequence

from torch.nn.utils import clip_grad_norm_

from benchmarks.training.overhead import prepared
from experiments.configuration.cli import Experiment
from experiments.runs.training import tuning_data
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.tuning.losses import supervised_rows


class TrainingSteps:
    """A loaded experiment and its optimizer.

    Args:
        words: Command-line words of the experiment.
    """

    def __init__(self, words: list[str]) -> None:
        self.experiment: Experiment = prepared(words)
        self.data = tuning_data(self.experiment)
        self.dataset = self.data.train_dataloader().dataset
        self.model = self.experiment.model
        self.model.train()
        self.optimizer = self.model.optimizer_settings.build(self.model.method.parts())
        self.trained = list(trained_parameters(self.model).values())

    def batch(self, positions: Sequence[int]) -> Batch:
        """Returns these training samples as one batch."""
        collated = self.data.collator([self.dataset[position] for position in positions])
        if not isinstance(collated, Batch):
            raise collated
        return collated

    def seconds(self, batches: Iterable[Batch]) -> float:
        """Trains one step on each batch; returns process seconds in all."""
        clip = self.experiment.trainer_config["gradient_clip_val"]
        started = time.process_time()
        for batch in batches:
            rows = supervised_rows(self.model.backbone, batch, self.model.shortcuts)
            self.optimizer.zero_grad()
            rows.losses.mean().backward()
            clip_grad_norm_(self.trained, clip)
            self.optimizer.step()
        return time.process_time() - started
