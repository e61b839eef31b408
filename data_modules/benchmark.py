"""Evaluation sets: questions with a right answer each."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

import numpy
from typing_extensions import override

from data_modules.base import DataModule, as_sample, image_bytes, image_key, unique_ids
from data_modules.instruction import SampleDataset
from data_modules.picture_plan import PictureDataset, as_it_is
from data_modules.sample_rows import layouts_of_samples, rows_of_samples
from lightning_m2pt.answering.asked_pictures import asked_pictures, names_of, planned_batches
from lightning_m2pt.answering.asked_set import AskedSet
from lightning_m2pt.answering.decoding import GreedyAnswering
from lightning_m2pt.answering.score_metric import ScoreMetric
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import are_collected, refuse
from lightning_m2pt.inputs.named_templates import TemplateName
from lightning_m2pt.inputs.picture_layout import RunRows
from lightning_m2pt.inputs.samples import Question, Sample
from lightning_m2pt.inputs.templates import IMAGE_MARK
from lightning_m2pt.metrics.choice_letter import MOST_CHOICES, letters_of, plain
from lightning_m2pt.metrics.known_sizes import Revision
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.sample_order import SampleLoader

T = TypeVar("T")


class BenchmarkDataModule(DataModule):
    """A set of questions that are answered first and scored later.

    Class attributes:
        name: What the set is called in predictions, scores and reports.
        rules: Names of its scoring rules, the default first.
        questions_per_group: Questions that are only scored together; a limit never splits them.
        answers_in_turn: After how many questions the right answers come round again, where a set asks yes and no in
            turn; a limit takes whole rounds, or all its questions could have one answer.
        fixed_answers: The answers a set without classes chooses from, as the model should say them.
        revisions: The set's known states with their sizes, the official one first; `m2pt check` says which it is.
        shared_with_tasks: What the set shares with tasks that may be tuned on, by pattern of the tasks' names
            (``"coco+*": "COCO pictures, which may recur"``): it stands below scores that are called zero-shot.

    Args:
        root: Folder of the data set.
        template: Name of the conversation template.
        batch_size: Questions answered at once.
        max_new_tokens: Limit on an answer's tokens.
        limit: How many questions to take, spread evenly over the set; None takes all.

    Raises:
        BadInputError: If a number is out of range.
    """

    name: str  # no ClassVar: Lightning declares it otherwise
    rules: tuple[str, ...]  # no ClassVar: of some sets an argument says
    questions_per_group: ClassVar[int] = 1
    answers_in_turn: ClassVar[int] = 1
    fixed_answers: ClassVar[tuple[str, ...]] = ()
    revisions: ClassVar[tuple[Revision, ...]] = ()
    shared_with_tasks: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, root: FilePath, template: TemplateName, batch_size: int, max_new_tokens: int, limit: int | None
    ) -> None:
        super().__init__(root, template)
        least = self.limit_unit
        for key, value, minimum in (
            ("batch_size", batch_size, 1),
            ("max_new_tokens", max_new_tokens, 1),
            ("limit", least if limit is None else limit, least),
        ):
            if value < minimum:
                raise BadInputError(
                    f"{value} is too few",
                    where=f"benchmarks.{type(self).__name__}.{key}",
                    expected=f"at least {minimum}",
                )
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.limit = limit
        self.read_questions: list[Question] | None = None
        self.number_of_all_questions = 0
        self.answered: frozenset[str] = frozenset()
        self.by_picture = False
        self.samples: list[Sample] | None = None
        self.examples_revision = ""
        self.examples_draw: int | None = None

    @property
    def classes(self) -> list[str]:
        """The possible answers of a closed set; empty for any other."""
        return []

    @property
    def candidates(self) -> list[str]:
        """The answers whose likelihood can be compared: the classes as people write them, or the fixed answers."""
        return [name.replace("_", " ") for name in self.classes] or list(self.fixed_answers)

    def candidates_of(self, question: Question) -> tuple[str, ...]:
        """Returns the answers whose likelihood is compared for a question: its options' letters, or the set's."""
        return letters_of(question.choices) or tuple(self.candidates)

    @property
    def data_revision(self) -> str:
        """The fingerprint of the questions and pictures asked, as prediction files carry it."""
        return self.fingerprint()

    @abstractmethod
    def read(self) -> list[Question]:
        """Returns all questions in the set's own order, read from disk.

        Raises:
            BadInputError: If an annotation is wrong, naming file and line or record.
        """

    def questions(self) -> list[Question]:
        """Returns the questions to ask, in the set's own order.

        Raises:
            BadInputError: If an annotation is wrong, or there is no question at all.
        """
        if self.read_questions is None:
            questions = self.read()
            if not questions and not are_collected():
                raise BadInputError("the set has no questions", where=str(self.root), expected="at least one")
            unique_ids(questions, key=lambda item: item.id)
            refuse([*mistakes_in_texts(questions), *mistakes_in_choices(questions)])
            refuse(mistakes_in_classes(self.classes, str(self.root)))
            self.number_of_all_questions = len(questions)
            self.read_questions = evenly_spread(questions, self.limit, self.limit_unit)
        return self.read_questions

    @property
    def asked_with(self) -> str:
        """What is put to the model beside picture and question, if that changes what a score can be compared with."""
        return ""

    @property
    def limit_unit(self) -> int:
        """How many adjacent questions a limit takes or leaves together."""
        return max(self.questions_per_group, self.answers_in_turn)

    def items(self) -> list[Question]:
        """Returns the questions to ask."""
        return self.questions()

    @override
    def forget(self) -> None:
        self.read_questions = None

    def setup(self, stage: str | None = None) -> None:
        """Reads the questions and looks for every picture.

        Raises:
            BadInputError: If a question or a picture is wrong or missing.
        """
        self.connect_to_module()
        image_bytes(self.questions())
        module = self.trainer.lightning_module if self.trainer is not None and stage in ("predict", "test") else None
        if isinstance(module, TuningModule):
            module.asked = self.asked_by_trainer()

    def asked_by_trainer(self) -> AskedSet:
        """Returns how a Trainer's ``predict`` and ``test`` answer and score the set: greedily, by its default rule."""
        header = {"benchmark": self.name, "classes": self.classes, "default_rule": self.rules[0]}
        answering = GreedyAnswering(self.processor, self.max_new_tokens, self.template)
        return AskedSet(answering, ScoreMetric(header, self.questions()))

    def check_lengths(self, run_rows: RunRows, maximum_rows: int) -> None:
        """Looks whether the longest question, its examples and all pictures fit into the language model.

        Args:
            run_rows: What a picture's rows are in the language model.
            maximum_rows: The longest sequence that the language model knows, without prompts and the answer.

        Raises:
            BadInputError: If a question is longer.
        """
        samples = self.asked_samples()
        texts = self.processor.encode_all(samples, self.template, with_answers=False)
        lengths = rows_of_samples(texts, layouts_of_samples(samples, self.processor), run_rows).tolist()
        rows = max(lengths)
        if rows > maximum_rows:
            sample = samples[lengths.index(rows)]
            images = len(sample.images)
            raise BadInputError(
                f"question {sample.id} of {self.name} has {rows} rows"
                + (f" with {images - 1} examples" * (images > 1)),
                where=sample.source,
                expected=f"at most {max(0, maximum_rows)}: the language model knows no later position",
                hint=f"take --shots {max(0, maximum_rows * images // rows - 1)}"
                if images > 1
                else "lower max_new_tokens, or take a backbone with more positions",
            )

    def predict_dataloader(self) -> SampleLoader:
        """Returns this rank's prompts without answers, the longest first; ``sample_ids`` are questions' ids.

        Batches are ``Batch``es of questions, or, where ``by_picture`` is set and every question has one picture and no
        examples, ``PictureBatch``es; those in which everything is in ``answered`` are left out. What is asked together
        depends neither on what is answered nor on ranks, which share out whole batches. Every rank has as many: a few
        are asked twice where they cannot be shared out evenly.
        """
        samples = self.asked_samples()
        texts = self.processor.encode_all(samples, self.template, with_answers=False)
        if self.by_picture and self.samples is None and all(len(sample.images) == 1 for sample in samples):
            layouts = layouts_of_samples(samples, self.processor)
            asked = asked_pictures(samples, texts, layouts, [image_key(sample) for sample in samples])
            planned = planned_batches(asked, self.batch_size)
            left = [batch for batch in planned if not self.answered.issuperset(names_of(batch))]
            return SampleLoader(PictureDataset(self.share_of_rank(left), self.processor), 1, as_it_is)
        order = sorted(range(len(samples)), key=lambda position: -len(texts[position]))
        batches = [order[begin : begin + self.batch_size] for begin in range(0, len(order), self.batch_size)]
        unanswered = [
            batch for batch in batches if not self.answered.issuperset(samples[position].id for position in batch)
        ]
        # The one batch that may be smaller is the last of its rank, so the loader cuts its share into these batches.
        share = [position for batch in self.share_of_rank(unanswered) for position in batch]
        dataset = SampleDataset(
            [samples[position] for position in share], [texts[position] for position in share], self.processor
        )
        return SampleLoader(dataset, self.batch_size, self.collator)

    def share_of_rank(self, batches: Sequence[T]) -> Sequence[T]:
        """Returns what this rank asks of all batches: all of them where there is one process."""
        if self.trainer is None:
            return batches
        ranks = self.trainer.world_size
        return [*batches, *([*batches] * ranks)[: -len(batches) % ranks]][self.trainer.global_rank :: ranks]

    def asked_samples(self) -> list[Sample]:
        """Returns every question as the sample that is put to the model: with examples where ``samples`` was set."""
        return self.samples or [as_sample(question) for question in self.questions()]

    def examples(self) -> dict[str, int | str]:
        """Returns how many examples stand before every question, of which draw, and a hash of them and their split."""
        if self.samples is None:
            return {}
        shown = [[sample.id, [[turn.question, turn.answer] for turn in sample.turns]] for sample in self.samples]
        return {
            "shots": len(self.samples[0].earlier_images),
            "sha256": hashlib.sha256(json.dumps([self.examples_revision, shown]).encode()).hexdigest(),
            **({} if self.examples_draw is None else {"draw": self.examples_draw}),
        }

    def test_dataloader(self) -> SampleLoader:
        """Returns the same batches as ``predict_dataloader``."""
        return self.predict_dataloader()


def mistakes_in_texts(questions: Sequence[Question]) -> list[BadInputError]:
    """Returns the questions that cannot be asked: those without a word, or with the mark that stands for a picture."""
    mistakes = []
    for question in questions:
        if not question.text.strip():
            mistakes.append(BadInputError("the question is empty", where=question.source, expected="a text"))
        texts = (question.text, question.target, *question.references, *question.choices)
        if any(IMAGE_MARK in text for text in texts):
            mistakes.append(
                BadInputError(
                    f"{IMAGE_MARK} stands in the question or its answer",
                    where=question.source,
                    expected="texts without it: the template says where the picture goes",
                )
            )
    return mistakes


def mistakes_in_choices(questions: Sequence[Question]) -> list[BadInputError]:
    """Returns the multiple-choice questions whose options cannot be told apart, or without a right one."""
    mistakes = []
    for question in questions:
        if not question.choices:
            continue
        names = [plain(choice) for choice in question.choices]
        if not 2 <= len(names) <= MOST_CHOICES or len(set(names)) != len(names) or not all(names):
            expected, found = f"2 to {MOST_CHOICES} that differ", question.choices
            mistakes.append(BadInputError(f"the options are {found!r:.80}", where=question.source, expected=expected))
        elif question.target not in letters_of(question.choices):
            letters = " or ".join(letters_of(question.choices))
            mistakes.append(
                BadInputError(f"the right option is {question.target!r:.40}", where=question.source, expected=letters)
            )
    return mistakes


def mistakes_in_classes(names: Sequence[str], where: str) -> list[BadInputError]:
    """Returns the class names that cannot be told apart or cannot be answers."""
    written = [name.replace("_", " ").strip().casefold() for name in names]
    twice = [name for name, plain in zip(names, written, strict=True) if written.count(plain) > 1]
    marked = [name for name in names if IMAGE_MARK in name]
    return [
        BadInputError(f"the class {name!r:.80} {problem}", where=where, expected="names that differ, and no marks")
        for found, problem in ((twice, "is there twice"), (marked, f"contains {IMAGE_MARK}"))
        for name in found[:1]
    ]


def evenly_spread(questions: Sequence[Question], limit: int | None, group: int) -> list[Question]:
    """Returns at most ``limit`` questions, whole groups of adjacent ones, spread evenly over the set."""
    if limit is None or limit >= len(questions):
        return list(questions)
    groups = len(questions) // group
    chosen = numpy.linspace(0, groups, num=limit // group, endpoint=False).astype(int)
    return [questions[number * group + offset] for number in chosen for offset in range(group)]
