"""What a run's model is looked at with: questions of its sets, or one about a picture of the user's own.

Sets are read by data modules, which are in a checkout; an own question needs none.
"""

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_m2pt.commands.parsers.questions import QUESTIONS_BY_DEFAULT
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inspection.samples import InspectedQuestion, question_batch
from lightning_m2pt.runs.tuned_model import tuned_model
from lightning_m2pt.system.checkout import checkout_module
from lightning_m2pt.tuning.module import TuningModule

QUESTIONS_OF_SETS = "experiments.commands.questions_of_sets"
OWN = "own"
"""What stands in place of a set's name."""
MOST_ANSWER_TOKENS = 32
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
LONGEST_NAME = 150
"""Letters; what is put behind a question's name has room in a file's 255."""


def file_names(questions: Sequence[InspectedQuestion]) -> list[str]:
    """Returns what the files of each question begin with; two questions never share a name.

    Ids of one's own data may differ in nothing that a file's name keeps, such as other letters than English ones.
    """
    whole = [f"{question.set_name}-{question.id}" for question in questions]
    names = [NOT_IN_NAMES.sub("-", each) for each in whole]
    owners = Counter(name.lower() for _, name in sorted(set(zip(whole, names, strict=True))))
    return [
        name
        if owners[name.lower()] == 1 and len(name) <= LONGEST_NAME
        else f"{name[:LONGEST_NAME]}-{hashlib.sha256(each.encode()).hexdigest()[:8]}"
        for each, name in zip(whole, names, strict=True)
    ]


def model_and_questions(
    own: argparse.Namespace, rest: Sequence[str], verb: str, check_model: Callable[[TuningModule], None]
) -> tuple[TuningModule, list[InspectedQuestion]]:
    """Returns a tuned model, without weights, and the questions that are asked of it.

    Args:
        own: The flags of ``add_question_flags``.
        rest: The words that are none of the verb's flags.
        verb: The verb's name, for messages.
        check_model: Called before any data are read.

    Raises:
        BadInputError: If flags do not go together, a question's set needs a checkout and there is none, or run, set,
            question or picture are missing or damaged.
    """
    refuse_both(own)
    if own.image is None:
        sets = checkout_module(QUESTIONS_OF_SETS, f"{verb} without --image")
        experiment = sets.tuned_with_sets(own.run, own.adapter, rest, own.data_root)
        check_model(experiment.model)
        return experiment.model, sets.questions_of_sets(experiment, own.sample, QUESTIONS_BY_DEFAULT)
    tuned = tuned_model(own.run, own.adapter)
    model = tuned.model(rest, verb)
    check_model(model)
    model.backbone.check_files()
    return model, [own_question(own.image, own.question, tuned.template(), model)]


def refuse_both(own: argparse.Namespace) -> None:
    """Refuses half of an own question, and one together with questions of sets.

    Raises:
        BadInputError: If there is either.
    """
    if (own.image is None) != (own.question is None):
        missing = "--question TEXT" if own.question is None else "--image FILE"
        raise BadInputError("a picture and a question belong together", where="command line", expected=missing)
    if own.image is not None and (own.sample or own.data_root is not None):
        raise BadInputError(
            "an own picture is of no set",
            where="command line: --image",
            expected="either --image and --question, or --sample",
        )


def own_question(image: Path, text: str, template: Template, model: TuningModule) -> InspectedQuestion:
    """Returns a question about a picture file.

    Args:
        image: The file.
        text: The question.
        template: The template it is asked in.
        model: Its backbone's tokenizer and image transform are used.

    Raises:
        BadInputError: If the picture or the text cannot be read.
    """
    sample = Sample(image.stem, image, str(image), (Turn(text),), (OWN,), str(image))
    processor = model.backbone.processor()
    batch = question_batch(sample, template, processor)
    ready = processor.bound(template)
    return InspectedQuestion(OWN, image.stem, text, "", ready.label, batch, MOST_ANSWER_TOKENS, ready.end_token_ids)
