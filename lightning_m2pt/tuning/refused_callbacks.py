"""Callbacks of Lightning's that change what is trained in a way that no run can keep, and what to use instead."""

from lightning.pytorch import callbacks

AVERAGES = ("its average is of the whole model and in no checkpoint", "the tuned tensors as they are")

REFUSED_CALLBACKS: dict[type, tuple[str, str]] = {
    callbacks.BaseFinetuning: ("it decides what is trained", "model.method, which decides that"),
    callbacks.BatchSizeFinder: (
        "it changes the samples of an optimizer step, and with them what is learned",
        "data.batch_size samples a step, in micro-batches of data.micro_batch_size",
    ),
    callbacks.GradientAccumulationScheduler: (
        "it would add up whole optimizer steps, and their losses",
        "data.batch_size samples a step, in micro-batches of data.micro_batch_size",
    ),
    callbacks.LearningRateFinder: (
        "it trains before the run does, with one rate for all parts",
        "`m2pt sweep`, which searches rates",
    ),
    callbacks.ModelPruning: ("it puts other tensors in place of the tuned ones", "no pruning"),
    callbacks.SpikeDetection: (
        "the batches that it leaves out come again in a resumed run",
        "the gradient check of every run, which stops at what is not finite",
    ),
    callbacks.StochasticWeightAveraging: AVERAGES,
    callbacks.WeightAveraging: AVERAGES,
}
"""Classes, with all that are made of them: the reason, and what to use instead."""
