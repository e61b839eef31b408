"""Contextual calibration: candidates are set against how likely they are behind a question without content.

Zhao et al., "Calibrate Before Use" (ICML 2021), section 5: the prompt stays as it is, examples included, and what is
asked becomes "N/A"; the answer is the candidate with the greatest p / p_cf, the form with W = diag(p_cf)^-1 and b = 0.
Over several such texts ("N/A", "[MASK]" and the empty one) p_cf is the mean of their shares among the candidates. There
a candidate is its first token; here it is whole, with its end token, as everywhere in this project.

What is asked is a question and a picture, so the content-free input has a picture, too: of one colour, none, or the
question's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy

from lightning_m2pt.answering.premises import Premise, Premises
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.reworded_template import QUESTION_MARK, refuse_unreadable_words
from lightning_m2pt.inputs.samples import ImageSource, Sample, Turn
from lightning_m2pt.inputs.templates import IMAGE_MARK

CalibrationPicture = Literal["mean", "none", "own"]

TEXT_FLAG, PICTURE_FLAG = "--calibration-text", "--calibration-picture"
PUBLISHED_TEXT = "N/A"


@dataclass(frozen=True)
class ContentFree:
    """What is asked instead of a question.

    Attributes:
        texts: What stands in the place of the question; of several the mean is taken. ``{question}`` in it is the
            question: then it is the picture alone that has no content. The words of a prompt text stay around it.
        picture: What stands in the place of the picture. ``mean`` is a square of one colour, the mean that the base
            subtracts: words stand where they stand behind a picture, and nothing is shown. ``none`` is no picture:
            words stand at other places than in any question. ``own`` is the question's own, whose evidence is then
            divided out, too: what is left is what the words of the question change.

    Raises:
        BadInputError: If there is no text, one is there twice, the only one is empty, or nothing would be left out.
    """

    texts: tuple[str, ...] = (PUBLISHED_TEXT,)
    picture: CalibrationPicture = "mean"

    def __post_init__(self) -> None:
        """Looks at the texts."""
        if not any(text.strip() for text in self.texts):
            raise BadInputError(
                "the text is empty",
                where=TEXT_FLAG,
                expected=f"a question without content, such as {PUBLISHED_TEXT}; the empty one only beside others",
            )
        for text in self.texts:
            if self.texts.count(text) > 1:
                raise BadInputError(f"{text!r:.60} is there twice", where=TEXT_FLAG, expected="texts that differ")
            if IMAGE_MARK in text:
                raise BadInputError(
                    f"{IMAGE_MARK} stands in {text!r:.60}",
                    where=TEXT_FLAG,
                    expected=f"words: {PICTURE_FLAG} says what stands in the place of the picture",
                )
            if QUESTION_MARK in text and self.picture == "own":
                raise BadInputError(
                    f"{text!r:.60} with the question's own picture has all of the question's content",
                    where=TEXT_FLAG,
                    expected=f"a text without {QUESTION_MARK}, or {PICTURE_FLAG} mean or none",
                )

    def premises(self, samples: Sequence[Sample], processor: Processor, template: Template) -> Premises:
        """Returns the content-free inputs of a set's questions, every distinct one once.

        Args:
            samples: The questions as they are asked, with their examples.
            processor: The base's tokenizer and picture rules.
            template: What they are written in.

        Raises:
            BadInputError: If the tokenizer cannot read a text, or examples are asked for without a picture.
        """
        for text in self.texts:
            words = text.replace(QUESTION_MARK, " ")
            refuse_unreadable_words(words, processor.tokenizer, TEXT_FLAG, f"name one with {TEXT_FLAG}")
        blank = picture_of_one_colour(processor)
        numbers: dict[tuple[object, ...], int] = {}
        inputs: list[Sample] = []
        of_question: dict[str, tuple[int, ...]] = {}
        for sample in samples:
            found = []
            for text in self.texts:
                without = self.without_content(sample, text, blank)
                key = without.turns, without.system, tuple(identity(image) for image in without.images)
                if key not in numbers:
                    numbers[key] = len(inputs)
                    inputs.append(without)
                found.append(numbers[key])
            of_question[sample.id] = tuple(found)
        encoded = processor.encode_all(inputs, template, with_answers=False)
        known = [Premise(sample, text) for sample, text in zip(inputs, encoded, strict=True)]
        return Premises(processor, known, of_question, as_shares=True, said=self.description())

    def without_content(self, sample: Sample, text: str, blank: ImageSource) -> Sample:
        """Returns a question's sample with a text and a picture of no content; its examples stay.

        Args:
            sample: The question.
            text: What stands in the question's place.
            blank: The picture of one colour.

        Raises:
            BadInputError: If there are examples, which have pictures, and none is asked for.
        """
        asked = Turn(text.replace(QUESTION_MARK, sample.turns[-1].question))
        without = replace(sample, turns=(*sample.turns[:-1], asked))
        if self.picture == "own" or sample.image is None:
            return without
        if self.picture == "mean":
            return replace(without, image=blank, further_images=(blank,) * len(sample.further_images))
        if sample.earlier_images:
            raise BadInputError(
                "a question without a picture behind examples with pictures",
                where=PICTURE_FLAG,
                expected="mean or own, where examples stand before the question",
            )
        return replace(without, image=None, image_id="", further_images=(), shown_in_turns=())

    def description(self) -> Mapping[str, Any]:
        """Returns what prediction files say of the content-free inputs."""
        return {"content_free": {"texts": list(self.texts), "picture": self.picture}}


def picture_of_one_colour(processor: Processor) -> numpy.ndarray:
    """Returns a picture (H, W, 3) uint8 of the colour that a base subtracts, as large as its tower reads them."""
    mean, _ = processor.normalisation()
    colour = (255 * mean.flatten()).round().clamp(0, 255).to(dtype=mean.dtype).numpy().astype(numpy.uint8)
    return numpy.broadcast_to(colour, (processor.image_size, processor.image_size, 3)).copy()


def identity(image: ImageSource) -> object:
    """Returns what two samples have alike if they show the same picture; arrays are the same only as one object."""
    return id(image) if isinstance(image, numpy.ndarray) else image
