"""Samples as the model reads them: the template's text with special tokens, what is supervised, pictures' rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy

from data_modules.base import DataModule, PictureOfItem, pictures_of
from data_modules.instruction import InstructionDataModule
from lightning_m2pt.inputs.batch import IGNORED_LABEL, Span
from lightning_m2pt.inputs.picture_layout import RunRows
from lightning_m2pt.inputs.processing import EncodedText
from lightning_m2pt.inputs.samples import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

HALF_A_CHARACTER = "\ufffd"


@dataclass(frozen=True)
class Stretch:
    """Tokens side by side that are of one kind.

    Attributes:
        text: What they say; of a picture ``[image x ROWS]``.
        span: What they are.
        is_supervised: Whether the loss is taken of them.
        is_special: Whether they are special tokens.
    """

    text: str
    span: Span
    is_supervised: bool = False
    is_special: bool = False


@dataclass(frozen=True)
class RenderedSample:
    """One sample as the model reads it.

    Attributes:
        id: The sample's.
        source: Its record.
        pictures: Its pictures.
        stretches: Its text, in order.
        tokens: How many tokens it has, a picture counted as one.
        supervised: Of how many of them the loss is taken.
        rows: How many rows the language model reads, pictures included, without learned rows in front.
        notes: What keeps it from being used.
    """

    id: str
    source: str
    pictures: tuple[PictureOfItem, ...]
    stretches: tuple[Stretch, ...]
    tokens: int
    supervised: int
    rows: int
    notes: tuple[str, ...] = ()


def rendered(sample: Sample, data: DataModule, run_rows: RunRows, room: int) -> RenderedSample:
    """Returns a sample as the model reads it: of a tuning set with its answers, of an evaluation set as it is asked.

    Args:
        sample: One of the set's.
        data: The set, connected.
        run_rows: What a picture's rows are in the language model.
        room: How many rows the language model takes behind the learned ones.

    Raises:
        BadInputError: If the sample cannot be encoded, or the size of a picture is needed and cannot be read.
    """
    is_tuning = isinstance(data, InstructionDataModule)
    text = data.processor.encode(sample, data.template, with_answers=is_tuning)
    layouts = data.processor.layouts(sample.images, f"{sample.source}: sample {sample.id}")
    rows_of_pictures = [run_rows.of(layout) for layout in layouts]
    rows = len(text) + sum(rows_of_pictures) - len(layouts)
    notes = []
    if isinstance(data, InstructionDataModule) and len(text) > data.max_text_length:
        notes.append(f"refused: {len(text):,} tokens, and max_text_length is {data.max_text_length:,}")
    if rows > room:
        notes.append(f"refused: {rows:,} rows, and the language model takes {room:,} behind the prompts")
    return RenderedSample(
        sample.id,
        sample.source,
        tuple(pictures_of(sample)),
        tuple(stretches(text, data.processor.tokenizer, rows_of_pictures)),
        len(text),
        text.supervised_tokens,
        rows,
        tuple(notes),
    )


def stretches(
    text: EncodedText, tokenizer: "PreTrainedTokenizerFast", rows_of_pictures: list[int]
) -> Iterator[Stretch]:
    """Yields the stretches of an encoded text.

    Args:
        text: Its tokens.
        tokenizer: What they say.
        rows_of_pictures: What each of its pictures becomes.
    """
    rows = iter(rows_of_pictures)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    is_picture = text.spans == Span.IMAGE
    is_special = numpy.isin(text.input_ids, list(special))
    kinds = numpy.stack([text.spans, text.labels != IGNORED_LABEL, is_special], axis=1)
    changes = numpy.flatnonzero((kinds[1:] != kinds[:-1]).any(axis=1) | is_picture[1:] | is_picture[:-1]) + 1
    edges = [0, *changes.tolist(), len(text)] if len(text) else []
    begin, written = 0, ""
    for start, stop in pairwise(edges):
        span = Span(int(text.spans[start]))
        if span == Span.IMAGE:
            begin, written = stop, ""
            yield Stretch(f"[image x {next(rows):,}]", span)
            continue
        # Alone, the tokens of a stretch could lose the space in front of them, or half a character.
        whole = decoded(tokenizer, text.input_ids[begin:stop])
        if stop < len(text) and not is_picture[stop]:
            whole = whole.rstrip(HALF_A_CHARACTER)
        yield Stretch(whole[len(written) :], span, bool(kinds[start, 1]), bool(is_special[start]))
        written = whole


def decoded(tokenizer: "PreTrainedTokenizerFast", ids: numpy.ndarray) -> str:
    """Returns what tokens say, special ones too."""
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))
