"""Task semantics enrichment (TSE): a prompted picture shall look like its own answer to a model of pictures and texts.

Zhang et al., "Exploring the Transferability of Visual Prompting for Multimodal Large Language Models" (CVPR 2024):
CLIP's score of the prompted picture and a sentence with the right answer is made larger. The official code scores
``this is a photo of a {class}`` with OpenAI's ViT-B/32 and multiplies the cosine by CLIP's factor, which is 100: its
weight of 0.001 is 0.1 on the cosine.
"""

import logging
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.tuning.regularisers.base import Regulariser
from lightning_m2pt.tuning.regularisers.seen_pictures import SeenPictures
from lightning_m2pt.tuning.regularisers.teacher import Teacher

ANSWER_MARK = "{answer}"
PUBLISHED_TEXT = "this is a photo of a {answer}"

log = logging.getLogger(__name__)


class TaskSemantics(Regulariser):
    """A teacher's score of every prompted picture and its own answer, which training makes larger.

    A picture of a sample with several answers, or with several pictures, has the mean score of all of them: whatever
    is said in a conversation is said about what it shows. A sample without a picture does not count.

    Args:
        teacher: What scores.
        weight: How much of it counts; published are 0.001 with the published factor.
        factor: ``published``: cosines are multiplied by the factor that the teacher was trained with, at most 100, of
            CLIP 100; ``cosine``: they are not.
        text: What is said about a picture, with ``{answer}`` once.

    Raises:
        BadInputError: If the weight is not above 0, or the text has no place for the answer.
    """

    name = "task_semantics"
    sign = -1

    def __init__(
        self,
        teacher: Teacher,
        weight: float = 0.001,
        factor: Literal["published", "cosine"] = "published",
        text: str = PUBLISHED_TEXT,
    ) -> None:
        super().__init__(weight)
        if text.count(ANSWER_MARK) != 1:
            raise BadInputError(
                f"the text {text!r:.60} has {text.count(ANSWER_MARK)} places for an answer",
                where="model.regularisers: task_semantics.text",
                expected=f"{ANSWER_MARK} once, as in {PUBLISHED_TEXT!r}",
            )
        self.teacher = teacher
        self.factor: Literal["published", "cosine"] = factor
        self.text = text

    def check_files(self) -> None:
        """Looks at the teacher's files.

        Raises:
            BadInputError: If something is missing or does not fit.
        """
        self.teacher.check_files()

    def check_processor(self, processor: Processor) -> None:
        """Looks whether a picture is one square.

        Raises:
            BadInputError: If it may be read in tiles.
        """
        if processor.layouts_vary:
            raise read_in_tiles()

    def check_answers(self, answers: Iterable[str]) -> None:
        """Looks whether the teacher reads the texts whole.

        Raises:
            BadInputError: At the first that it does not.
        """
        self.teacher.check_texts(self.said_of(answer) for answer in answers)

    def build(self, backbone: Backbone) -> None:
        """Loads the teacher, and says so if it is the tower that is tuned on."""
        self.teacher.build()
        self.teacher.to(backbone.token_embedding().weight.device)
        if self.teacher.knows(backbone):
            log.warning(
                "the teacher (%s) is the tower that the prompt is trained on: it is no other model's view of a picture",
                self.teacher.kind,
            )

    def summed(self, seen: SeenPictures, before: Tensor | None) -> Tensor:
        """Returns the sum of the scores of all pictures."""
        answers, device = seen.batch.answers, seen.rows.rows.device
        if len(answers) != len(seen.batch):
            raise BadInputError(
                "the batches do not say what their answers are",
                where="train_dataloaders",
                expected="trainer.fit(model, data) with a data module that can be tuned on",
            )
        if len(seen.batch.pixel_values) != int(seen.counts.sum()):
            raise read_in_tiles()
        samples = torch.arange(len(seen.batch), device=device).repeat_interleave(seen.counts)
        texts = list(dict.fromkeys(self.said_of(answer) for of_sample in answers for answer in of_sample))
        with torch.autocast(device.type, enabled=False):  # a teacher's own type, whatever the Trainer's precision is
            pictures = self.teacher.picture_features(seen.pixels())
            features = self.teacher.text_features(texts)
        numbers = {text: number for number, text in enumerate(texts)}
        of_samples = torch.stack(
            [features[[numbers[self.said_of(answer)] for answer in of_sample]].mean(dim=0) for of_sample in answers]
        )
        scores = (pictures * of_samples.to(pictures)[samples]).sum(dim=-1)
        return scores.sum() * (self.teacher.scale() if self.factor == "published" else 1.0)

    def said_of(self, answer: str) -> str:
        """Returns the text about a picture with an answer, without the answer's outer spaces and full stop."""
        return self.text.replace(ANSWER_MARK, answer.strip().removesuffix("."))

    def deciding(self) -> dict[str, object]:
        """Returns the arguments, and the teacher by its class and its files' content."""
        kind = type(self.teacher)
        return {
            "name": self.name,
            "weight": self.weight,
            "factor": self.factor,
            "text": self.text,
            "teacher": [f"{kind.__module__}.{kind.__qualname__}", self.teacher.content()],
        }

    def held_bytes(self) -> int:
        """Returns the bytes of the teacher."""
        return self.teacher.held_bytes()

    def kept_bytes(self, shape: BackboneShape, pictures: int, rows: int) -> int:
        """Returns what the teacher keeps of pictures, and the pictures themselves."""
        return self.teacher.kept_bytes(pictures) + 4 * pictures * 3 * shape.image_size**2 * torch.float32.itemsize


def read_in_tiles() -> BadInputError:
    """Returns the error about pictures that are several tiles: a teacher would be shown each by itself."""
    return BadInputError(
        "this backbone reads a picture in tiles, and the teacher would be shown each by itself",
        where="model.regularisers: task_semantics",
        expected="a backbone that reads one square picture",
    )
