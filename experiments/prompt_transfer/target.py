"""The experiment that a prompt is used in: base, sets and devices of a file, and the prompt as its only method."""

from collections.abc import Sequence

from torch import Tensor

from experiments.configuration.cli import Experiment, parse_experiment
from experiments.prompt_transfer.source_prompt import SourcePrompt, placed_delta, refuse_other_units
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.prompts.pixel_prompt import Interpolation
from lightning_m2pt.runs.adapter_settings import METHOD, RATES, class_path, text_of

NOTHING_TRAINED = ("--model.gradient_norm=null", "--model.regularisers=[]")
"""What the target's own experiment trains with plays no part."""


def target_experiment(prompts: Sequence[SourcePrompt], words: Sequence[str]) -> Experiment:
    """Parses the target's experiment with the prompts' method in the place of its own; nothing is loaded.

    Args:
        prompts: Alike in their arguments.
        words: ``--config FILE`` and settings.

    Raises:
        BadInputError: If a word is wrong, the target's base takes no pixel prompt, its picture is too small for the
            border, or it normalises pictures otherwise than a prompt in such units needs.
    """
    experiment = parse_experiment([*method_words(prompts[0]), *words])
    for prompt in prompts:
        refuse_other_units(prompt, experiment.model.backbone)
    return experiment


def method_words(prompt: SourcePrompt) -> list[str]:
    """Returns the words that set an experiment's method to a pixel prompt with the arguments of a trained one."""
    arguments = {name: text_of(value) for name, value in prompt.arguments.items()}
    return [
        f"--{RATES}",
        *NOTHING_TRAINED,
        f"--{METHOD}={class_path(PixelPrompting)}",
        *(f"--{METHOD}.{name}={value}" for name, value in arguments.items()),
    ]


def delta_on_target(prompts: Sequence[SourcePrompt], experiment: Experiment, interpolation: Interpolation) -> Tensor:
    """Returns (3, T, T) float32: the mean of the prompts, resized to the target's picture.

    Args:
        prompts: Alike in their arguments.
        experiment: The target's.
        interpolation: How a prompt is resized.
    """
    method = experiment.model.method
    assert isinstance(method, PixelPrompting)
    side = experiment.model.backbone.shape.image_size
    return placed_delta(prompts, side, method.border, interpolation)
