"""Stage 5: what the finished backbone can do before any method touches it, on pictures and scans it never saw."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from experiments.backbone_recipe.architecture import RecipeModel, normalise_pixels
from experiments.backbone_recipe.conversations import ConversationTokenizer, pad_texts
from experiments.backbone_recipe.settings import RecipeSettings
from experiments.backbone_recipe.slots import slot_ids, slot_rows
from experiments.testbed.asking import AskedQuestion, QuestionType
from experiments.testbed.language_text import raster_slots
from experiments.testbed.pretraining_images import gate_pictures
from experiments.testbed.questions import DESCRIBE_TYPE, QUESTION_TYPES
from experiments.testbed.scenes import Scene, random_generator, sample_training_scene


@dataclass(frozen=True)
class Gate:
    """One demand on the backbone.

    Attributes:
        name: What is measured.
        threshold: What it must reach.
        figure: What it reached.
        questions: On how many questions.
    """

    name: str
    threshold: float
    figure: float
    questions: int

    @property
    def verdict(self) -> str:
        """``passed`` or ``open``."""
        return "passed" if self.figure >= self.threshold else "open"


@dataclass(frozen=True)
class GateReport:
    """All gates, and the accuracy of every question type on text and on images."""

    gates: list[Gate]
    text_accuracy: dict[str, float]
    image_accuracy: dict[str, float]

    def as_json(self) -> dict[str, object]:
        """Returns the report as it stands in ``training.json``."""
        return {
            "gates": [asdict(gate) | {"verdict": gate.verdict} for gate in self.gates],
            "text_accuracy": self.text_accuracy,
            "image_accuracy": self.image_accuracy,
        }


@torch.no_grad()
def whole_answers_right(
    backbone: RecipeModel, conversations: ConversationTokenizer, rows: Tensor, questions: Sequence[AskedQuestion]
) -> list[bool]:
    """Returns whether greedy decoding gives each whole answer and then stops.

    Greedy decoding gives an answer exactly when each of its tokens is the likeliest behind the ones before it, so one
    pass over the right answers decides it.
    """
    texts = pad_texts([conversations.tokenize([question]) for question in questions], backbone.tokenizer.pad_token_id)
    predicted = backbone.logits(rows, texts.token_ids)[:, :-1].argmax(dim=-1)
    right = (predicted == texts.token_ids[:, 1:]) | ~texts.is_answer[:, 1:]
    return right.all(dim=1).tolist()


class GateMeasurement:
    """Asks a backbone questions about slots and about pictures."""

    def __init__(self, backbone: RecipeModel, settings: RecipeSettings) -> None:
        self.backbone = backbone
        self.settings = settings
        self.conversations = ConversationTokenizer(backbone.tokenizer)
        pictures = gate_pictures(settings.seed, settings.gates.pictures)
        self.scenes = pictures.scenes
        with torch.no_grad():
            pixels = normalise_pixels(pictures.images, settings.architecture)
            self.picture_rows = torch.cat([backbone.visual_rows(part) for part in pixels.split(settings.gates.batch)])

    def accuracy(self, kind: QuestionType, scenes: Sequence[Scene], rows: Tensor) -> tuple[float, int]:
        """Returns the share of right answers of one type over scenes, and the number of questions."""
        asked = [
            (index, question)
            for index, scene in enumerate(scenes)
            if (question := kind.ask(scene, random_generator(self.settings.seed, "gate question", kind.name, index)))
        ]
        right: list[bool] = []
        for start in range(0, len(asked), self.settings.gates.batch):
            part = asked[start : start + self.settings.gates.batch]
            chosen = rows[[index for index, _ in part]]
            right += whole_answers_right(self.backbone, self.conversations, chosen, [item for _, item in part])
        return round(sum(right) / max(1, len(right)), 4), len(right)

    def on_text(self) -> dict[str, tuple[float, int]]:
        """Returns accuracy and number of questions of every type on undisturbed slots of unseen scenes."""
        seed = self.settings.seed
        scenes = [
            sample_training_scene(random_generator(seed, "gate text", index))
            for index in range(self.settings.gates.documents)
        ]
        tokenizer = self.backbone.tokenizer
        side = self.settings.architecture.patches_per_cell_side
        ids = slot_ids([raster_slots(scene, side) for scene in scenes], tokenizer)
        with torch.no_grad():
            rows = slot_rows(self.backbone.language.get_input_embeddings(), ids, tokenizer.pad_token_id)
        return {kind.name: self.accuracy(kind, scenes, rows) for kind in QUESTION_TYPES}

    def on_images(self) -> dict[str, tuple[float, int]]:
        """Returns accuracy and number of questions of every type on held-out pictures."""
        return {kind.name: self.accuracy(kind, self.scenes, self.picture_rows) for kind in QUESTION_TYPES}


def measure_gates(backbone: RecipeModel, settings: RecipeSettings) -> GateReport:
    """Measures all gates on a finished backbone."""
    measurement = GateMeasurement(backbone, settings)
    text, images = measurement.on_text(), measurement.on_images()
    thresholds = settings.gates
    text_mean = round(sum(figure for figure, _ in text.values()) / len(text), 4)
    gates = [
        Gate("visual relation", thresholds.relation_and_presence, *images["relation"]),
        Gate("visual presence", thresholds.relation_and_presence, *images["presence"]),
        Gate("text skill, mean over all types", thresholds.text_skill, text_mean, sum(n for _, n in text.values())),
        Gate("whole captions", thresholds.whole_captions, *images[DESCRIBE_TYPE.name]),
    ]
    return GateReport(
        gates,
        {name: figure for name, (figure, _) in text.items()},
        {name: figure for name, (figure, _) in images.items()},
    )
