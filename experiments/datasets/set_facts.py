"""How many samples, turns, pictures and tokens a set has, beside what the model takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from data_modules.base import DataModule, distinct_pictures, pictures_of
from data_modules.benchmark import BenchmarkDataModule
from data_modules.instruction import InstructionDataModule
from data_modules.sample_rows import layouts_of_samples, rows_of_samples
from lightning_m2pt.inputs.picture_layout import PictureLayout, RunRows
from lightning_m2pt.inputs.processing import EncodedText
from lightning_m2pt.inputs.samples import Question, Sample

PERCENTILES = (0, 50, 95, 99, 100)


@dataclass(frozen=True)
class Lengths:
    """How long something is, over all samples.

    Attributes:
        of: What it is.
        spread: The shortest, the median, the 95th and the 99th percentile, and the longest.
        limit: The longest that is taken; None where there is no limit.
        limit_of: What sets the limit.
        above: How many samples are longer.
    """

    of: str
    spread: tuple[int, ...]
    limit: int | None = None
    limit_of: str = ""
    above: int = 0


@dataclass(frozen=True)
class SetFacts:
    """What a set holds.

    Attributes:
        counts: Numbers by what is counted, in the order in which they are told.
        lengths: Of texts, answers and pictures.
    """

    counts: dict[str, int]
    lengths: tuple[Lengths, ...]


def facts_of(data: DataModule, run_rows: RunRows, room: int) -> SetFacts:
    """Returns what a connected set holds.

    Args:
        data: A tuning set or an evaluation set.
        run_rows: What a picture's rows are in the language model.
        room: How many rows the language model takes behind the learned ones.

    Raises:
        BadInputError: If the set cannot be read, or a text cannot be encoded.
    """
    if isinstance(data, InstructionDataModule):
        train, validation = data.read_once()
        samples = [*train, *validation]
        if not data.train_texts:  # a check has encoded them
            data.encode_texts()
        texts = [*data.train_texts, *data.validation_texts]
        counts = {"samples to train on": len(train), "samples to validate on": len(validation)}
        return SetFacts(
            {**counts, **counted(samples), **unknown_words(data, texts)},
            lengths_of(data, samples, texts, run_rows, room, data.max_text_length),
        )
    assert isinstance(data, BenchmarkDataModule)
    asked = data.asked_samples()
    questions = data.processor.encode_all(asked, data.template, with_answers=False)
    subtasks = {question.subtask for question in data.questions() if question.subtask}
    counts = {"questions": len(asked), "subtasks": len(subtasks), "pictures": len(distinct_pictures(asked))}
    counts.update(unknown_words(data, questions))
    left = room - data.max_new_tokens
    return SetFacts(counts, lengths_of(data, asked, questions, run_rows, left, None))


def counted(samples: Sequence[Sample]) -> dict[str, int]:
    """Returns numbers of turns, tasks and pictures."""
    pictures = numpy.array([len(pictures_of(sample)) for sample in samples], numpy.int64)
    return {
        "turns": sum(len(sample.turns) for sample in samples),
        "tasks": len({task for sample in samples for task in sample.tasks}),
        "pictures": len(distinct_pictures(samples)),
        "samples without a picture": int((pictures == 0).sum()),
        "samples with several pictures": int((pictures > 1).sum()),
    }


def unknown_words(data: DataModule, texts: Sequence[EncodedText]) -> dict[str, int]:
    """Returns how many texts hold words that the tokenizer does not know, and how many of these are to be learned.

    A model with a fixed list of words reads all others as one token and learns to write that token. Tokenizers that
    spell what they do not know have none. A token that also begins or ends texts says nothing, and is not counted.

    Args:
        data: The set, connected.
        texts: The tokens of its samples.
    """
    tokenizer = data.processor.tokenizer
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        return {}
    return {
        "texts with words that the tokenizer does not know": sum(unknown in text.input_ids for text in texts),
        "answers with such words": sum(unknown in text.labels for text in texts),
    }


def lengths_of(
    data: DataModule,
    samples: Sequence[Sample],
    texts: Sequence[EncodedText],
    run_rows: RunRows,
    room: int,
    most_tokens: int | None,
) -> tuple[Lengths, ...]:
    """Returns how long texts, answers and pictures are, and all of it together in rows.

    Args:
        data: The set, connected.
        samples: Its samples.
        texts: The tokens of each.
        run_rows: What a picture's rows are in the language model.
        room: How many rows the language model takes.
        most_tokens: The set's own limit on the tokens of a text; None where it has none.
    """
    if not samples:
        return ()
    layouts = layouts_of_samples(samples, data.processor)
    tokens = numpy.array([len(text) for text in texts], numpy.int64)
    answers = numpy.array([text.supervised_tokens for text in texts], numpy.int64)
    rows = rows_of_samples(texts, layouts, run_rows)
    found = [lengths("tokens of text", tokens, most_tokens, "max_text_length")]
    if answers.any():
        found.append(lengths("of them supervised", answers))
    found.append(lengths("rows of pictures", picture_rows(layouts, run_rows)))
    return (*found, lengths("rows in all", rows, room, "positions behind the prompts"))


def picture_rows(layouts: Sequence[Sequence[PictureLayout]], run_rows: RunRows) -> numpy.ndarray:
    """Returns (N,) int64: the rows of every sample's pictures."""
    return numpy.array([sum(map(run_rows.of, of_sample)) for of_sample in layouts], numpy.int64)


def lengths(of: str, values: numpy.ndarray, limit: int | None = None, limit_of: str = "") -> Lengths:
    """Returns how values are spread, and how many are above a limit."""
    spread = tuple(int(value) for value in numpy.percentile(values, PERCENTILES, method="higher"))
    above = 0 if limit is None else int((values > limit).sum())
    return Lengths(of, spread, limit, "" if limit is None else limit_of, above)


def records_twice(items: Sequence[Sample | Question]) -> list[tuple[Sample | Question, Sample | Question]]:
    """Returns the items that ask and answer what an earlier one does about the same pictures, with that one."""
    first: dict[object, Sample | Question] = {}
    found = []
    for item in items:
        texts = (item.system, item.turns) if isinstance(item, Sample) else (item.subtask, item.text, item.target)
        key = (tuple(picture.key for picture in pictures_of(item)), texts)
        before = first.setdefault(key, item)
        if before is not item:
            found.append((item, before))
    return found
