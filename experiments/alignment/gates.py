"""What a pair with a projector says of pictures that no training has seen: token by token, and caption by caption."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from experiments.alignment.caption_sets import UNSEEN_ANNOTATION
from experiments.alignment.settings import AlignmentSettings
from experiments.alignment.training import checked
from experiments.backbone_recipe.gates import Gate
from experiments.runs.training import tuning_data
from experiments.testbed.scenes import SceneObject
from experiments.testbed.vocabulary import COLOURS, COLUMNS, NAMES, ROWS, SIZES
from lightning_m2pt.answering.decoding import GreedyAnswering
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.collate import Collator, encoded_sample
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.methods.frozen import Frozen
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule

ATTRIBUTES = ("count", "place", "size", "colour", "name")
LOOKS = rf"({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(NAMES)})"
THING = re.compile(rf"\ban? {LOOKS} at the ({'|'.join(ROWS)}) ({'|'.join(COLUMNS)})\b")


@dataclass(frozen=True)
class Figures:
    """What one projector reached.

    Attributes:
        loss: Cross-entropy of a caption's token behind the right ones, end token included.
        tokens_right: Share of these tokens that are the likeliest.
        tokens: Their number.
        whole_captions: Share of captions that greedy decoding gives letter by letter.
        attributes: For ``count`` the share of captions with as many objects as there are; of the others the share of
            objects whose place is named at all, and with whose place the right size, colour or name stands.
        captions: How many were asked for.
    """

    loss: float
    tokens_right: float
    tokens: int
    whole_captions: float
    attributes: dict[str, float]
    captions: int


@dataclass(frozen=True)
class AlignmentGates:
    """The finished projector's figures and demands, and the untrained one's figures on fewer pictures."""

    gates: list[Gate]
    aligned: Figures
    start: Figures

    def as_json(self) -> dict[str, object]:
        """Returns the report as it stands in ``training.json``."""
        return {
            "gates": [asdict(gate) | {"verdict": gate.verdict} for gate in self.gates],
            "aligned": asdict(self.aligned),
            "start": asdict(self.start),
        }


def gates_of(settings: AlignmentSettings, aligned: Figures, start: Figures) -> AlignmentGates:
    """Compares the finished projector's figures with the demands."""
    gates = [
        Gate("caption tokens", settings.caption_tokens, aligned.tokens_right, aligned.tokens),
        Gate("whole captions", settings.whole_captions, aligned.whole_captions, aligned.captions),
    ]
    return AlignmentGates(gates, aligned, start)


def figures_of(words: Sequence[str], projector: Path, pictures: int, batch: int) -> Figures:
    """Measures a projector on unseen pictures, on one device, in the type and template that it was trained in.

    Args:
        words: Of the alignment's experiment.
        projector: Its file.
        pictures: How many of the unseen ones.
        batch: How many run together.

    Raises:
        BadInputError: If files are missing or do not fit together.
    """
    experiment = checked(
        [
            *words,
            *("--model.backbone.projector", str(projector)),
            *("--data.annotation_file", UNSEEN_ANNOTATION),
            *("--trainer.devices", "1"),
        ]
    )
    data = tuning_data(experiment)
    samples = list(data.read_once()[0])[:pictures]
    # What is shipped is a pair's own projector, in the pair's type: no method stands in its place.
    model = TuningModule(experiment.model.backbone, Frozen())
    model.configure_model()
    model.eval()
    for use in ("training", "answering"):
        model.compare_with_library(use)
    template, processor = data.template, data.processor
    rows = [
        token_figures(model.backbone, each) for each in batches(samples, processor, template, batch, with_answers=True)
    ]
    losses, right = torch.cat([loss for loss, _ in rows]), torch.cat([each for _, each in rows])
    captions = [sample.turns[-1].answer for sample in samples]
    answering = GreedyAnswering(processor, most_tokens(samples, processor, template), template)
    answers = decoded(model.backbone, samples, answering, batch)
    return Figures(
        loss=round(float(losses.mean()), 4),
        tokens_right=round(float(right.double().mean()), 4),
        tokens=len(right),
        whole_captions=share(answer == caption for answer, caption in zip(answers, captions, strict=True)),
        attributes=attributes_right(answers, captions),
        captions=len(captions),
    )


@torch.inference_mode()
def token_figures(backbone: Backbone, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns loss (N,) float64 and whether it is the likeliest (N,) bool of a batch's caption tokens."""
    rows = supervised_rows(backbone, batch)
    return rows.losses.double(), rows.right


def most_tokens(samples: Sequence[Sample], processor: Processor, template: Template) -> int:
    """Returns one token more than the longest right caption has, its end included."""
    return max(text.supervised_tokens for text in processor.encode_all(samples, template)) + 1


def decoded(backbone: Backbone, samples: Sequence[Sample], answering: GreedyAnswering, batch: int) -> list[str]:
    """Returns the greedy caption of every picture."""
    return [
        answer.text
        for each in batches(samples, answering.processor, answering.template, batch, with_answers=False)
        for answer in answering.answer(backbone, each)
    ]


def batches(
    samples: Sequence[Sample], processor: Processor, template: Template, size: int, *, with_answers: bool
) -> Iterator[Batch]:
    """Yields samples in order, padded together; without answers for the model to give."""
    collator = Collator(processor.pad_token_id)
    for start in range(0, len(samples), size):
        some = samples[start : start + size]
        texts = processor.encode_all(some, template, with_answers)
        together = collator(
            [encoded_sample(sample, text, processor, sample.source) for sample, text in zip(some, texts, strict=True)]
        )
        assert isinstance(together, Batch)
        yield together


def things_in(caption: str) -> list[SceneObject]:
    """Returns the objects that a caption describes in the form of the world's captions, in its order."""
    return [SceneObject(name, colour, size, row, column) for size, colour, name, row, column in THING.findall(caption)]


def attributes_right(answers: Sequence[str], captions: Sequence[str]) -> dict[str, float]:
    """Returns the share of right answers by attribute; see ``Figures``.

    Args:
        answers: What a model wrote, anything.
        captions: The right ones.
    """
    found: dict[str, list[bool]] = {attribute: [] for attribute in ATTRIBUTES}
    for answer, caption in zip(answers, captions, strict=True):
        said, there = things_in(answer), things_in(caption)
        found["count"].append(len(said) == len(there))
        by_place = {thing.cell: thing for thing in reversed(said)}  # of two in one place the first counts
        for thing in there:
            placed = by_place.get(thing.cell)
            found["place"].append(placed is not None)
            found["size"].append(placed is not None and placed.size == thing.size)
            found["colour"].append(placed is not None and placed.colour == thing.colour)
            found["name"].append(placed is not None and placed.name == thing.name)
    return {attribute: share(each) for attribute, each in found.items()}


def share(right: Iterable[bool]) -> float:
    """Returns the share of what is true, 0 of nothing."""
    each = list(right)
    return round(sum(each) / max(1, len(each)), 4)
