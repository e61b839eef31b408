from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from typing_extensions import override

from lightning_m2pt.answering.decoding import GreedyAnswering
from lightning_m2pt.answering.score_metric import ScoreMetric
from lightning_m2pt.tuning.step_boundary import StepBoundary


class BenchmarkScores(Callback):
    """Answers evaluation sets every so many steps while a method is tuned, and logs their scores.

    It costs time, so give it sets with a ``limit``. In an experiment's file, under ``trainer.callbacks``:
    ``{class_path: callbacks.benchmark_scores.BenchmarkScores, init_args: {benchmarks: [...], every_n_steps: 100}}``.
    The numbers are for looking on: choosing a step, a rate or a method by them would be tuning on the test set.

    Args:
        benchmarks: Evaluation sets, complete as in the experiment's own list.
        every_n_steps: Optimizer steps between two looks.

    Raises:
        ValueError: If it is less than one step.
    """

    def __init__(self, benchmarks: list[LightningDataModule], every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}: it must be 1 or more")
        self.benchmarks: list[Any] = list(benchmarks)
        self.every_n_steps = every_n_steps
        self._steps = StepBoundary()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps.begin(trainer)
        for benchmark in self.benchmarks:
            benchmark.connect(trainer.datamodule.processor)  # type: ignore[attr-defined]
            benchmark.setup()

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self._steps.is_reached(trainer) or trainer.global_step % self.every_n_steps:
            return
        pl_module.eval()  # no dropout, and none of its draws: tuning goes on as if nobody had looked
        for benchmark in self.benchmarks:
            # Answers differ in length: where a forward pass needs all processes, each of them asks everything.
            benchmark.trainer = None if pl_module.backbone.runs_in_lockstep else trainer
            header = {
                "benchmark": benchmark.name,
                "classes": benchmark.classes,
                "default_rule": benchmark.rules[0],
            }
            metric = ScoreMetric(header, benchmark.questions()).to(pl_module.device)
            answering = GreedyAnswering(benchmark.processor, benchmark.max_new_tokens, benchmark.template)
            for asked in benchmark.predict_dataloader():
                answers = answering.answer(pl_module.backbone, asked.to(pl_module.device))
                metric.update(asked.sample_ids, [answer.text for answer in answers])
            pl_module.log(f"score/{benchmark.name}", metric.compute())
        pl_module.train()
