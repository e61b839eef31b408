"""The experiment that a prompt is used in: base, sets and devices of a file, and the prompt as its only method."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from experiments.configuration.cli import Experiment, parse_experiment
from experiments.prompt_transfer.source_prompt import SourcePrompt, placed_delta, refuse_other_units
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.prompts.pixel_prompt import Interpolation
from lightning_m2pt.runs.adapter_settings import METHOD, RATES, class_path, text_of

NOTHING_TRAINED = ("--model.gradient_norm=null", "--model.regularisers=[]")
"""What the target's own experiment trains with plays no part."""


def any_prompt_on_target(words: Sequence[str]) -> Experiment:
    """Parses the target's experiment with a pixel prompt of default arguments, for what depends on none of them.

    Args:
        words: ``--config FILE`` and settings.

    Raises:
        BadInputError: If a word is wrong.
    """
    return parse_experiment([*method_words({}), *words])


def target_experiment(prompts: Sequence[SourcePrompt], words: Sequence[str]) -> Experiment:
    """Parses the target's experiment with the prompts' method in the place of its own; nothing is loaded.

    Args:
        prompts: Alike in their arguments.
        words: ``--config FILE`` and settings.

    Raises:
        BadInputError: If a word is wrong or changes the method, the target's base takes no pixel prompt, its picture
            is too small for the border, or it normalises pictures otherwise than a prompt in such units needs.
    """
    experiment = parse_experiment([*method_words(prompts[0].arguments), *words])
    refuse_other_arguments(experiment.model.method, prompts[0].arguments)
    for prompt in prompts:
        refuse_other_units(prompt, experiment.model.backbone)
    return experiment


def method_words(arguments: Mapping[str, Any]) -> list[str]:
    """Returns the words that set an experiment's method to a pixel prompt with the arguments of a trained one."""
    return [
        f"--{RATES}",
        *NOTHING_TRAINED,
        f"--{METHOD}={class_path(PixelPrompting)}",
        *(f"--{METHOD}.{name}={text_of(value)}" for name, value in arguments.items()),
    ]


def refuse_other_arguments(method: Method, arguments: Mapping[str, Any]) -> None:
    """Refuses words that change how a prompt is composed.

    Raises:
        BadInputError: If there are any; the first argument that differs is named.
    """
    own = method.adapter_config()
    differing = next((key for key in arguments if own.get(key) != arguments[key]), None)
    if differing is not None:
        raise BadInputError(
            f"{differing} is {own.get(differing)}, and the prompt says how pictures are composed",
            where=f"command line: --{METHOD}.{differing}",
            expected=f"{arguments[differing]}, as it was trained",
            hint="the rows clipped and eight_bits are always there",
        )


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
