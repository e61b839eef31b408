"""A file of your own to tune on: conversations, messages, instructions, questions or captions, in any usual form.

Layout: one file (``.json``, ``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``, ``.tar``), a folder of Parquet files or tar
shards, a folder of pictures with texts beside them, or a data set of the hub that was fetched before. Pictures lie
below ``image_root``, inside of Parquet files or shards, or in base64; nothing is downloaded.

What a column is goes by its usual names (``data_modules/reading/columns.py``) or by ``columns``; what was recognised is
said at every start. A record's id is its place in the file and its own id, so that ids need not be unique.

Split: none of its own. Name a ``validation_file`` of the same form, or a ``validation_fraction``: then a record belongs
to the validation part by the hash of its picture's name, or of its id if it has none. Records that share a picture,
directly or through others with several pictures, go together by the first name in the alphabet.

Metric: the loss per supervised token, in total and per task.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from typing_extensions import override

from data_modules.base import unique_ids
from data_modules.instruction import InstructionDataModule, TemplateName
from data_modules.reading.columns import recognised, told
from data_modules.reading.files import Record, fake_image, write_image, write_text
from data_modules.reading.parquet_rows import parquet_files
from data_modules.reading.picture_cells import PictureCells
from data_modules.reading.picture_files import image_folder_of
from data_modules.reading.picture_groups import group_names
from data_modules.reading.record_samples import RecordSamples, form_of
from data_modules.reading.records_per_class import PerClassOf, check_per_class, chosen_of_each_class
from data_modules.reading.rows import rows_of
from data_modules.reading.sources import Source, source_of
from data_modules.reading.tar_rows import tar_files
from lightning_m2pt.backbones.hub_ids import cache_of
from lightning_m2pt.configuration.paths import HUB, FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import check_image
from lightning_m2pt.inputs.mistakes import are_collected, collecting, kept_of_each, kind_of, refuse
from lightning_m2pt.inputs.samples import ImageSource, Question, Sample

OnError: TypeAlias = Literal["refuse", "leave_out"]
KINDS_TOLD = 5


class Conversations(InstructionDataModule):
    """A file or folder of your own, in any usual form.

    Args:
        file: The file, a folder, ``hub:OWNER/NAME`` or ``hub:OWNER/NAME/FILE``.
        template: Name of the conversation template.
        batch_size: Samples of one whole optimizer step, over all devices and micro-batches.
        image_root: Folder that names of pictures stand in; None takes the file's own.
        columns: Which column plays which role, such as ``{image: path, question: q, answer: label}``; the others go by
            their usual names.
        question: What is asked of every picture where no column asks.
        on_error: ``leave_out`` leaves out records that are wrong, whose pictures cannot be read, or whose text is too
            long or not for the template, and counts them by reason.
        one_picture_only: Leave out records without a picture and with several.
        name: The task of records that name none, for the loss of each; None takes the file's name.
        revision: Branch, tag or commit of the hub's repository, for a ``validation_file`` of the same one, too; None
            takes ``main`` as it was fetched last.
        split: Which of several splits in a folder is read.
        validation_file: A file of the same form to validate on.
        validation_fraction: Share of the pictures to validate on when there is no ``validation_file``.
        micro_batch_size: At most so many samples per forward and device; None takes a device's whole share of a step.
        questions_per_sample: How many records of one picture become one conversation; 1 as published.
        max_text_length: Limit on a sample's tokens, its picture counted as one. Nothing is ever cut off.
        num_workers: Processes that read pictures.
        order_seed: Decides the order of the samples; None takes the run's seed.
        group_by_length: How many optimizer steps' samples are sorted by length together, so that less is padded; 0
            leaves the order alone, 1 evens the micro-batches of each step and leaves it its samples.
        index: Whether what was read and encoded of a large set is kept for the next start.
        index_folder: Where it is kept, whatever the set's size; None: a large set's in the user's cache folder.
        per_class: Train on so many records of every class alone (K-shot tuning); None takes all. What is validated on
            is not chosen from.
        per_class_of: What a class is: an ``answer`` of a task, or a ``task``.
        per_class_seed: Decides which records; no other seed does.

    Raises:
        BadInputError: If a number is out of range, or both ways to validate are asked for.
    """

    hint_for_empty = "repair the record, or set on_error: leave_out"
    """What to do about an empty answer."""
    skip_empty_answers = False
    """Whether records without an answer are left out, whatever else is wrong."""
    later_arguments = MappingProxyType({"per_class": None, "per_class_of": "answer", "per_class_seed": 0})

    def __init__(
        self,
        file: FilePath,
        template: TemplateName,
        batch_size: int,
        image_root: FilePath | None = None,
        columns: dict[str, str] | None = None,
        question: str | None = None,
        on_error: OnError = "refuse",
        one_picture_only: bool = False,
        name: str | None = None,
        revision: str | None = None,
        split: str | None = None,
        validation_file: FilePath | None = None,
        validation_fraction: float = 0.0,
        micro_batch_size: int | None = None,
        questions_per_sample: int = 1,
        max_text_length: int = 1024,
        num_workers: int = 0,
        order_seed: int | None = None,
        group_by_length: int = 0,
        index: bool = True,
        index_folder: FilePath | None = None,
        per_class: int | None = None,
        per_class_of: PerClassOf = "answer",
        per_class_seed: int = 0,
    ) -> None:
        super().__init__(
            place_of(file),
            template,
            batch_size,
            micro_batch_size,
            questions_per_sample,
            max_text_length,
            num_workers,
            order_seed,
            group_by_length,
            index,
            index_folder,
        )
        check_validation(validation_file, validation_fraction)
        check_per_class(per_class, per_class_of, per_class_seed)
        if question is not None and not question.strip():
            raise BadInputError("the question is empty", where="data.question", expected="a text, or no such key")
        self.file = file
        self.image_root = image_root
        self.columns = columns
        self.question = question
        self.on_error = on_error
        self.one_picture_only = one_picture_only
        self.name = name
        self.revision = revision
        self.split = split
        self.validation_file = validation_file
        self.validation_fraction = validation_fraction
        self.per_class, self.per_class_seed = per_class, per_class_seed
        self.per_class_of: PerClassOf = per_class_of

    @staticmethod
    def write_fake(root: Path) -> None:
        """Writes ``records.jsonl``: eight invented messages about pictures, with their pictures."""
        lines = []
        for number in range(8):
            write_image(root / "pictures" / f"{number}.png", fake_image(number))
            question = {"role": "user", "content": f"<image>\nWhat is the number {number} ?"}
            answer = {"role": "assistant", "content": "yes it is" if number % 3 else "no"}
            lines.append(json.dumps({"messages": [question, answer], "images": [f"pictures/{number}.png"]}))
        write_text(root / "records.jsonl", "\n".join(lines) + "\n")

    @property
    @override
    def set_name(self) -> str:
        return self.name or Path(self.file.removeprefix(HUB)).stem or "own"

    @override
    def files_read(self) -> Sequence[Path] | None:
        if self.on_error == "leave_out":
            return None  # which records are left out hangs on the pictures, too
        sources = [source_of(self.file, self.revision, self.split)]
        if self.validation_file is not None:
            sources.append(self.validation_source(self.validation_file))
        return [path for source in sources for path in files_of(source)]

    def read(self) -> tuple[list[Sample], list[Sample]]:
        """Returns the training and the validation samples.

        Raises:
            BadInputError: If an annotation is wrong, naming file and record, a record is in both parts, a
                ``validation_fraction`` sets none aside, or a class has fewer records than are taken of each.
        """
        training, validation = self.parts_of_records()
        if self.per_class is not None:
            by = self.per_class, self.per_class_of, self.per_class_seed
            training, said = chosen_of_each_class(training, *by, self.set_name)
            self.notes += (said,)
        return training, validation

    def parts_of_records(self) -> tuple[list[Sample], list[Sample]]:
        """Returns all records of the training and of the validation part."""
        self.notes = ()
        train = self.read_file(source_of(self.file, self.revision, self.split), "")
        if self.validation_file is not None:
            validation = self.read_file(self.validation_source(self.validation_file), "validation/")
            questions = {image_and_question(sample): sample for sample in train}
            for sample in validation:
                unique_ids([questions.get(image_and_question(sample), sample), sample], key=image_and_question)
            return train, validation
        held_out = self.are_held_out(train)
        if self.validation_fraction and train and not any(held_out):
            groups = len(set(group_names(train)))
            raise BadInputError(
                f"validation_fraction {self.validation_fraction} sets none of {len(train):,} records aside: "
                f"those that share a picture stay together, and only {groups:,} group{'s' * (groups > 1)} can be drawn",
                where="data.validation_fraction",
                expected="a larger share, or 0 for no validation",
                hint="data.validation_file names records to validate on",
            )
        return (
            [sample for sample, held in zip(train, held_out, strict=True) if not held],
            [sample for sample, held in zip(train, held_out, strict=True) if held],
        )

    def place_of_validation(self, name: str) -> str:
        """Returns the path of the file to validate on."""
        return name

    def validation_source(self, name: str) -> Source:
        """Returns where the records to validate on are read from: of the same repository, at the same revision.

        Raises:
            BadInputError: If it is not there, or of no form that is read.
        """
        place = self.place_of_validation(name)
        is_of_the_same = place.startswith(HUB) and place_of(place) == place_of(self.file)
        return source_of(place, self.revision if is_of_the_same else None, key="data.validation_file")

    def are_held_out(self, samples: Sequence[Sample]) -> list[bool]:
        """Tells of each sample of the annotation file whether it is validated on instead of trained on."""
        if not self.validation_fraction:
            return [False] * len(samples)
        return [unit_hash(name) < self.validation_fraction for name in group_names(samples)]

    def read_file(self, source: Source, id_prefix: str) -> list[Sample]:
        """Returns the samples of one file, and notes what is worth knowing of it.

        Raises:
            BadInputError: If a record is wrong and not to be left out, or none is left.
        """
        rows = list(rows_of(source))
        names = list(dict.fromkeys(key for row in rows if not isinstance(row, BadInputError) for key in row[1]))
        if not names:
            refuse([row for row in rows if isinstance(row, BadInputError)])
            if are_collected():
                return []
            raise BadInputError("no sample is left of 0", where=str(source.path), expected="at least one record")
        found = recognised(names, self.columns, str(source.path))
        columns = form_of(found, names, self.question, str(source.path))
        folder = source.folder if self.image_root is None else image_folder_of(Path(self.image_root), "")
        maker = RecordSamples(
            columns,
            PictureCells(source, folder),
            self.set_name,
            self.question,
            id_prefix,
            self.hint_for_empty,
            self.skip_empty_answers,
            self.one_picture_only,
        )
        left_out = maker.left_out
        samples, mistakes = kept_of_each(numbered_rows(rows), lambda numbered: maker.sample(numbered[0], *numbered[1]))
        kept = [sample for sample in samples if sample is not None]
        if self.on_error == "leave_out":
            kept, of_pictures = with_readable_pictures(kept)
            kept, of_texts = self.with_fitting_texts(kept)
            left_out.update(kind_of(mistake.what) for mistake in [*mistakes, *of_pictures, *of_texts])
        else:
            refuse(mistakes)
        if not kept and not are_collected():
            raise BadInputError(
                f"no sample is left of {len(rows):,}" + (f": {told_kinds(left_out)}" if left_out else ""),
                where=str(source.path),
                expected="at least one record with an answer",
            )
        self.notes += tuple(self.notes_of(source, len(rows), told(columns, names), maker))
        return kept

    def with_fitting_texts(self, samples: Sequence[Sample]) -> tuple[list[Sample], list[BadInputError]]:
        """Returns the samples that can be encoded, and why the others are left out: too long, or not for the template.

        Raises:
            BadInputError: If something is wrong with the template itself.
        """
        with collecting() as mistakes:
            for _ in self.processor.encode_each(samples, self.template, max_text_length=self.max_text_length):
                pass
        sources = {sample.source for sample in samples}
        refuse([mistake for mistake in mistakes if mistake.where not in sources])
        wrong = {mistake.where: mistake for mistake in mistakes}
        return [sample for sample in samples if sample.source not in wrong], list(wrong.values())

    def notes_of(self, source: Source, records: int, said_of_columns: str, maker: RecordSamples) -> Iterator[str]:
        """Yields what is worth knowing of a file that was read, a line each.

        Args:
            source: The file.
            records: How many records it has.
            said_of_columns: What its columns are.
            maker: What made samples of them.
        """
        yield f"{source.path.name}: {records:,} records; {said_of_columns}"
        yield from notes_of_unusual(source.path.name, records, maker)


def notes_of_unusual(name: str, records: int, maker: RecordSamples) -> Iterator[str]:
    """Yields a line about records that are unusual, and one about those left out, where there are any."""
    if maker.noted:
        yield f"{name}: records " + "; ".join(f"{what}: {count:,}" for what, count in sorted(maker.noted.items()))
    if maker.left_out:
        left_out = sum(maker.left_out.values())
        yield f"{name}: {left_out:,} of {records:,} records are left out: {told_kinds(maker.left_out)}"


def told_kinds(counts: Mapping[str, int]) -> str:
    """Returns kinds of records with their numbers, the most frequent first."""
    kinds = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = [f"{len(kinds) - KINDS_TOLD} more kinds"] if len(kinds) > KINDS_TOLD else []
    return "; ".join([*(f"{count:,} because {what}" for what, count in kinds[:KINDS_TOLD]), *more])


def files_of(source: Source) -> list[Path]:
    """Returns the files that rows are read from; the folder itself where its pictures' names and texts are the rows."""
    if not source.path.is_dir():
        return [source.path]
    return parquet_files(source.path, source.split) or tar_files(source.path, source.split) or [source.path]


def numbered_rows(rows: Sequence[Record | BadInputError]) -> Iterator[tuple[int, Record] | BadInputError]:
    """Yields every record with its place, from 0, or the mistake in its place."""
    for number, row in enumerate(rows):
        yield row if isinstance(row, BadInputError) else (number, row)


def with_readable_pictures(samples: Sequence[Sample]) -> tuple[list[Sample], list[BadInputError]]:
    """Returns the samples whose pictures are there and whole, and why the others are left out.

    Headers are read, and pictures that do not end as their format does are decoded; each picture once.
    """
    found: dict[str, BadInputError | None] = {}

    def refusal(image: ImageSource, where: str) -> BadInputError | None:
        key = str(image)
        if key not in found:
            found[key] = None
            try:
                check_image(image)
            except BadInputError as error:
                found[key] = error.with_traceback(None)
        return found[key]

    kept, mistakes = [], []
    for sample in samples:
        first = next((error for image in sample.images if (error := refusal(image, sample.source))), None)
        if first is None:
            kept.append(sample)
        else:
            mistakes.append(first)
    return kept, mistakes


def check_validation(validation_file: str | None, validation_fraction: float) -> None:
    """Looks at the two ways to validate.

    Raises:
        BadInputError: If both are asked for, or the fraction is none.
    """
    if not 0 <= validation_fraction < 1:
        raise BadInputError(
            f"validation_fraction is {validation_fraction}",
            where="data.validation_fraction",
            expected="at least 0 and below 1",
        )
    if validation_file is not None and validation_fraction:
        raise BadInputError(
            "both validation_file and validation_fraction are set",
            where="data.validation_fraction",
            expected="one of them",
        )


def place_of(file: str) -> str:
    """Returns the folder that a set's name in messages stands for: its own, its file's, or its place in the cache."""
    if file.startswith(HUB):
        return str(cache_of("/".join(file.removeprefix(HUB).split("/")[:2]), "dataset"))
    path = Path(file)
    return str(path if path.is_dir() else path.parent)


def image_and_question(sample: Sample | Question) -> str:
    """Returns what makes two samples the same one."""
    question = sample.turns[0].question if isinstance(sample, Sample) else sample.text
    return f"{sample.image_id}: {question}"


def unit_hash(name: str) -> float:
    """Returns a number in 0..1 that depends on the name only."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
