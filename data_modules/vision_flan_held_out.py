"""Records of Vision-Flan that were never tuned on, as an evaluation set: the tuned tasks, or whole tasks left out.

Source, layout and contamination: see ``vision_flan.py``.

Split: the set has no evaluation part of its own. What is asked here is the validation part of the tuning module, found
with the same code and the same arguments: ``validation_file``, ``validation_fraction`` (no picture is in both parts),
or ``held_out_tasks`` (no record of these tasks is tuned on; their pictures may recur in other tasks). Give the tuning
module the same arguments; whole tasks are left out by ``VisionFlanWithoutTasks``. An experiment whose tuning set has
one of the questions in its training part is refused.

Of every task at most ``questions_per_task`` records are asked: those whose task and picture have the smallest hash, so
the choice depends neither on the order of the file nor on other tasks.

Metric: ``exact`` (accuracy per task), the record's answer being the target.
"""

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from typing_extensions import override

from data_modules.benchmark import BenchmarkDataModule, TemplateName
from data_modules.conversations import unit_hash
from data_modules.index.sample_table import SamplePart
from data_modules.vision_flan import ANNOTATION_FILE, IMAGE_FOLDER, VisionFlan
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import made_of_each
from lightning_m2pt.inputs.samples import ImageSource, Question, Sample


class VisionFlanWithoutTasks(VisionFlan):
    """Vision-Flan to tune on, with whole tasks in the validation part.

    Args:
        root: Folder with the annotation file and the image folder.
        template: Name of the conversation template.
        batch_size: Samples of one whole optimizer step, over all devices and micro-batches.
        held_out_tasks: Names of the tasks that are not tuned on.
        micro_batch_size: At most so many samples per forward and device; None takes a device's whole share of a step.
        questions_per_sample: How many records of one picture become one conversation; 1 as published.
        max_text_length: Limit on a sample's tokens, its picture counted as one. Nothing is ever cut off.
        num_workers: Processes that read pictures.
        order_seed: Decides the order of the samples; None takes the run's seed.
        annotation_file: Name of the annotation file within ``root``.
        image_folder: Name of the image folder within ``root``.
        validation_fraction: Share of the pictures of all other tasks to validate on too.
        skip_empty_answers: Leave out records without an answer instead of refusing them.

    Raises:
        BadInputError: If a number is out of range.
    """

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int,
        held_out_tasks: list[str],
        micro_batch_size: int | None = None,
        questions_per_sample: int = 1,
        max_text_length: int = 1024,
        num_workers: int = 0,
        order_seed: int | None = None,
        annotation_file: str = ANNOTATION_FILE,
        image_folder: str = IMAGE_FOLDER,
        validation_fraction: float = 0.0,
        skip_empty_answers: bool = False,
    ) -> None:
        super().__init__(
            root,
            template,
            batch_size,
            micro_batch_size,
            questions_per_sample,
            max_text_length,
            num_workers,
            order_seed,
            annotation_file,
            image_folder,
            validation_file=None,
            validation_fraction=validation_fraction,
            skip_empty_answers=skip_empty_answers,
        )
        self.held_out_tasks = held_out_tasks

    @override
    def are_held_out(self, samples: Sequence[Sample]) -> list[bool]:
        return [
            held_out or sample.tasks[0] in self.held_out_tasks
            for sample, held_out in zip(samples, super().are_held_out(samples), strict=True)
        ]

    def read(self) -> tuple[list[Sample], list[Sample]]:
        """Returns the training and the validation samples.

        Raises:
            BadInputError: If an annotation is wrong, or there is no such task.
        """
        train, validation = super().read()
        unknown = sorted(set(self.held_out_tasks) - {sample.tasks[0] for sample in validation})
        if unknown:
            raise BadInputError(
                f"there is no task {unknown[0]!r:.80}",
                where=f"{self.root / self.annotation_file}: held_out_tasks",
                expected="names as under task_name in the annotation file",
            )
        return train, validation


class VisionFlanHeldOut(BenchmarkDataModule):
    """The part of Vision-Flan that a tuning module with the same arguments does not train on.

    Args:
        root: Folder with the annotation file and the image folder.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many questions to take, spread evenly over the set; None takes all.
        annotation_file: Name of the annotation file within ``root``.
        image_folder: Name of the image folder within ``root``.
        validation_file: Name of an annotation file whose records are all held out.
        validation_fraction: Share of the pictures that is held out.
        held_out_tasks: Names of tasks that are held out; with them only their records are asked.
        questions_per_task: How many records of every task to ask; None asks all.
        skip_empty_answers: Leave out records without an answer instead of refusing them.

    Raises:
        BadInputError: If nothing is held out, or a number is out of range.
    """

    name = "vision_flan"
    rules = ("exact",)

    def __init__(
        self,
        root: FilePath,
        template: TemplateName,
        batch_size: int = 32,
        max_new_tokens: int = 128,
        limit: int | None = None,
        annotation_file: str = ANNOTATION_FILE,
        image_folder: str = IMAGE_FOLDER,
        validation_file: str | None = None,
        validation_fraction: float = 0.0,
        held_out_tasks: list[str] | None = None,
        questions_per_task: int | None = 50,
        skip_empty_answers: bool = False,
    ) -> None:
        super().__init__(root, template, batch_size, max_new_tokens, limit)
        where = f"benchmarks.{type(self).__name__}"
        if not (validation_file or validation_fraction or held_out_tasks):
            raise BadInputError(
                "nothing is held out",
                where=where,
                expected="validation_file, validation_fraction or held_out_tasks, as in the tuning set",
            )
        if questions_per_task is not None and questions_per_task < 1:
            raise BadInputError(
                f"{questions_per_task} is too few", where=f"{where}.questions_per_task", expected="at least 1"
            )
        if validation_file and held_out_tasks:
            raise BadInputError(
                "both validation_file and held_out_tasks are set",
                where=f"{where}.held_out_tasks",
                expected="one of them",
            )
        self.questions_per_task = questions_per_task
        self.held_out_tasks = held_out_tasks or []
        make: Callable[..., VisionFlan] = (
            partial(VisionFlanWithoutTasks, held_out_tasks=held_out_tasks)
            if held_out_tasks
            else partial(VisionFlan, validation_file=validation_file)
        )
        self.tuning_set = make(
            root=root,
            template=template,
            batch_size=batch_size,
            annotation_file=annotation_file,
            image_folder=image_folder,
            validation_fraction=validation_fraction,
            skip_empty_answers=skip_empty_answers,
        )

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes the tuning set's invented records."""
        VisionFlan.write_fake(root)

    def read(self) -> list[Question]:
        """Returns the held-out questions, in the order of the file.

        Raises:
            BadInputError: If an annotation is wrong, or there is no such task.
        """
        _, held_out = self.tuning_set.read()
        wanted = [sample for sample in held_out if not self.held_out_tasks or sample.tasks[0] in self.held_out_tasks]
        return made_of_each(some_of_every_task(wanted, self.questions_per_task), question_of)


def question_of(sample: Sample) -> Question:
    """Returns a record's first question.

    Raises:
        BadInputError: If it is not about one picture alone.
    """
    return Question(
        id=sample.id,
        subtask=sample.tasks[0],
        text=sample.turns[0].question,
        target=sample.turns[0].answer,
        image=only_picture(sample),
        image_id=sample.image_id,
        source=sample.source,
    )


def some_of_every_task(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """Returns at most ``count`` samples of every task, those with the smallest hash of task and picture, in order."""
    if count is None:
        return list(samples)
    of_task: dict[str, list[int]] = {}
    for position, sample in enumerate(samples):
        of_task.setdefault(sample.tasks[0], []).append(position)

    def rank(position: int) -> tuple[float, int]:
        sample = samples[position]
        return unit_hash(f"{sample.tasks[0]}/{sample.image_id}"), position

    chosen = [position for positions in of_task.values() for position in heapq.nsmallest(count, positions, key=rank)]
    return [samples[position] for position in sorted(chosen)]


def only_picture(sample: Sample) -> ImageSource:
    """Returns the picture of a sample.

    Raises:
        BadInputError: If it has none or several, or a system text of its own: questions have none.
    """
    if len(sample.images) != 1 or sample.system:
        raise BadInputError(
            f"the held-out record {sample.id!r:.80} has {len(sample.images)} images"
            + " and a system text" * bool(sample.system),
            where=sample.source,
            expected="one image, and no system text",
            hint="hold out other records, or tune on this one",
        )
    return sample.images[0]


def refuse_tuned_questions(held_out: VisionFlanHeldOut, training: SamplePart) -> None:
    """Refuses an evaluation set that asks what is tuned on: the same question about the same picture.

    Raises:
        BadInputError: If there is such a question, naming both places.
    """
    questions = held_out.questions()
    tuned = training.sources_of({(question.image_id, question.text) for question in questions})
    for question in questions:
        place = tuned.get((question.image_id, question.text))
        if place is not None:
            raise BadInputError(
                f"the question {question.id!r:.80} is tuned on, at {place}",
                where=question.source,
                expected="the tuning set's own validation_file, validation_fraction or held_out_tasks",
                hint="give data and this benchmark the same; whole tasks: VisionFlanWithoutTasks as data",
            )
