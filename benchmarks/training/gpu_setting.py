"""At which shape, on which device and how often the GPU script measures."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.answering.shared_prefix import QuestionSet
from benchmarks.training.sizes import GATE, VICUNA_7B, TrainingSize


@dataclass(frozen=True)
class Setting:
    """What every part of the measurement is given.

    Attributes:
        size: Shape of the model, and of its prompts.
        device: ``cuda``; ``cpu`` for trying the script out.
        batches: Samples in a micro-batch.
        warm_up: Steps before the clock starts.
        repeats: Timed steps.
        side: Of the square matrices whose product sets the floor.
        asked: Questions of the evaluation.
        compiler: What layers are compiled with.
    """

    size: TrainingSize
    device: Literal["cuda", "cpu"]
    batches: tuple[int, ...]
    warm_up: int
    repeats: int
    side: int
    asked: QuestionSet
    compiler: Literal["inductor", "aot_eager"]


def setting_of(shape: Literal["7b", "tiny"], device: Literal["cuda", "cpu"]) -> Setting:
    """Returns the setting of a shape."""
    if shape == "7b":
        return Setting(VICUNA_7B, device, (16, 32), 2, 5, 8192, QuestionSet(of_picture=6), "inductor")
    return Setting(GATE, device, (2,), 1, 1, 32, QuestionSet(pictures=3, of_picture=6, tokens=6), "aot_eager")
