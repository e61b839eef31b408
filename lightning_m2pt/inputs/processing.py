"""From samples to what a model reads: token ids with labels and spans, and normalised pixels."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy
import torch
from PIL import Image
from torch import Tensor

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Span
from lightning_m2pt.inputs.bound_template import BoundTemplate, bound
from lightning_m2pt.inputs.chat_template import ChatTemplate
from lightning_m2pt.inputs.encoded_text import EncodedText, spans_of_tokens
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.inputs.mistakes import are_collecting, collecting, made_of_each, refuse
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.inputs.picture_layout import ONE_RUN, PictureLayout, PreparedPicture
from lightning_m2pt.inputs.samples import ImageSource, Sample, Turn
from lightning_m2pt.inputs.templates import IMAGE_MARK, Piece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Interpolation = Literal["bicubic", "bilinear"]
ResizeRule = Literal["shortest_edge", "squash"]

INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SAMPLES_AT_ONCE = 512


class Processor:
    """Prepares text and pictures for one backbone, which builds it from its own configuration files.

    Args:
        tokenizer: A fast tokenizer (it must give offsets) with an end token.
        image_size: Side of the square picture the vision tower reads.
        mean: Channel means that are subtracted from values in 0..1.
        std: Channel deviations that they are divided by.
        interpolation: How pictures are resized.
        resize: ``shortest_edge``: the short side becomes ``image_size``, then the centre is cropped (CLIP);
            ``squash``: both sides become ``image_size``.
        vocabulary_size: Rows of the model's token embedding; None looks at no token id.
        chat_template: The model's own conversation template; None where it has none.

    Raises:
        BadInputError: If the tokenizer is not fast, has no end token, or begins or ends texts with a token that the
            model does not have.

    Attributes:
        picture_tokens: Tokens by which the model's own texts stand for pictures; no sample's text may hold one.
    """

    picture_tokens: tuple[int, ...] = ()

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: Interpolation = "bicubic",
        resize: ResizeRule = "shortest_edge",
        vocabulary_size: int | None = None,
        chat_template: ChatTemplate | None = None,
    ) -> None:
        if not tokenizer.is_fast or tokenizer.eos_token is None:
            raise BadInputError(
                f"the tokenizer {tokenizer.name_or_path!r} has no offsets or no end token",
                expected="a fast tokenizer (tokenizer.json) with an end token",
            )
        self.tokenizer = tokenizer
        self.image_size = image_size
        self.mean = torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(3, 1, 1)
        self.interpolation: Interpolation = interpolation
        self.resize: ResizeRule = resize
        self.vocabulary_size = vocabulary_size
        self.chat_template = chat_template
        self.bound_templates: dict[Template, BoundTemplate] = {}
        self.bos_ids = self._bos_ids()
        for token, numbers in ((tokenizer.bos_token, self.bos_ids), (tokenizer.eos_token, [self.eos_token_id])):
            self._refuse_unknown_ids(numbers, f"the tokenizer's own {token!r:.40}", tokenizer.name_or_path)

    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Returns the channels' means and deviations, (3, 1, 1) float32 each."""
        return self.mean, self.std

    @property
    def eos_token_id(self) -> int:
        """Id of the token that ends an answer."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_token_id(self) -> int:
        """Id written where a shorter sequence is padded (no row of it is ever attended to).

        A padding token that was added later may have no row in the model; the end token always has one.
        """
        number = self.tokenizer.pad_token_id
        if number is None or (self.vocabulary_size is not None and number >= self.vocabulary_size):
            return self.eos_token_id
        return int(number)

    def _refuse_unknown_ids(self, ids: Sequence[int] | numpy.ndarray, what: str, where: str) -> None:
        """Refuses token ids beyond the model's vocabulary: on a GPU they would end in an assertion of the device."""
        largest = int(numpy.max(ids, initial=0))
        if self.vocabulary_size is not None and largest >= self.vocabulary_size:
            raise BadInputError(
                f"{what} has the token {self.tokenizer.convert_ids_to_tokens(largest)!r:.40}, id {largest}",
                where=where,
                expected=f"ids below {self.vocabulary_size}, as the model has; the tokenizer has {len(self.tokenizer)}",
                hint="take the tokenizer that belongs to the model, or leave the text out",
            )

    def _refuse_picture_tokens(self, text: EncodedText, sample: Sample) -> None:
        """Refuses words that the tokenizer reads as a picture: their rows would be an embedding nothing has trained."""
        written = [token for token in self.picture_tokens if token in text.input_ids]
        if written:
            raise BadInputError(
                f"sample {sample.id} has {self.tokenizer.convert_ids_to_tokens(written[0])!r:.40} inside its text",
                where=sample.source,
                expected="no token that stands for a picture: pictures have places of their own",
            )

    def _bos_ids(self) -> list[int]:
        """Returns the begin token's id if this tokenizer starts its texts with one, else nothing.

        Asked of the tokenizer's behaviour, because neither ``bos_token`` nor ``add_bos_token`` tells: a post-processor
        may add the token without the one and despite the other.
        """
        ids: list[int] = self.tokenizer("a")["input_ids"]
        return ids[:1] if ids and ids[0] == self.tokenizer.bos_token_id else []

    def bound(self, template: Template) -> BoundTemplate:
        """Returns a template with what it is for this tokenizer.

        Raises:
            BadInputError: If it is the model's own, and there is none or it cannot be used.
        """
        if template not in self.bound_templates:
            self.bound_templates[template] = bound(template, self.tokenizer, self.bos_ids, self.chat_template)
        return self.bound_templates[template]

    def encode(
        self,
        sample: Sample,
        template: Template,
        with_answers: bool = True,
        max_text_length: int | None = None,
    ) -> EncodedText:
        """Encodes one sample; see ``encode_all``."""
        return self.encode_all([sample], template, with_answers, max_text_length)[0]

    def encode_all(
        self,
        samples: Sequence[Sample],
        template: Template,
        with_answers: bool = True,
        max_text_length: int | None = None,
    ) -> list[EncodedText]:
        """Turns conversations into tokens as the published preprocessing does, or as the model's library does.

        The conversation's text is split at its images, each part is tokenised in one go, and a begin token, where the
        tokenizer uses one, comes first. In a model's own template whose images are tokens, the text is tokenised as a
        whole. A token belongs to the piece of text in which it ends; answers end with the end token, so a token that
        overlaps an answer also ends in it. In the published templates, special tokens written in a text are read as
        special tokens, as in the published preprocessing; in the model's own they are refused.

        Args:
            samples: Conversations.
            template: How they become text. A published one's end of answers gives way to the tokenizer's own end token.
            with_answers: False leaves the last answer out, for the model to give.
            max_text_length: Limit on tokens, an image counted as one; nothing is ever cut off.

        Raises:
            BadInputError: If a question or an answer contains the image mark, or a sample is too long or has a token
                that the model does not have.
        """
        return list(self.encode_each(samples, template, with_answers, max_text_length))

    def encode_each(
        self,
        samples: Sequence[Sample],
        template: Template,
        with_answers: bool = True,
        max_text_length: int | None = None,
    ) -> Iterator[EncodedText]:
        """Yields what ``encode_all`` returns, without holding more than a few hundred samples.

        Raises:
            BadInputError: At the end, as ``encode_all`` does.
        """
        ready = self.bound(template)
        in_texts: list[BadInputError] = []
        in_tokens: list[BadInputError] = []
        for start in range(0, len(samples), SAMPLES_AT_ONCE):
            some = samples[start : start + SAMPLES_AT_ONCE]
            in_texts += [*mistakes_in_texts(some, with_answers), *ready.mistakes_in(some, with_answers)]
            if in_texts and not are_collecting():
                continue  # all of them are refused at the end
            if in_texts:
                some = [replace(sample, system="") if sample.system else sample for sample in some]
            encoded = self._encode_some(some, ready, with_answers)
            in_tokens += self._mistakes_in_tokens(some, encoded, max_text_length)
            yield from encoded
        refuse(in_texts)
        refuse(in_tokens)

    def _mistakes_in_tokens(
        self, samples: Sequence[Sample], encoded: Sequence[EncodedText], max_text_length: int | None
    ) -> list[BadInputError]:
        """Returns the texts that are too long, or have tokens that the model does not have or must not be given."""

        def check(encoded_sample: tuple[Sample, EncodedText]) -> None:
            sample, text = encoded_sample
            self._refuse_unknown_ids(text.input_ids, f"sample {sample.id}", sample.source)
            self._refuse_picture_tokens(text, sample)
            if max_text_length is not None and len(text) > max_text_length:
                raise BadInputError(
                    f"sample {sample.id} has {len(text)} tokens",
                    where=sample.source,
                    expected=f"at most {max_text_length} (max_text_length); answers are never cut off",
                    hint="raise max_text_length, or leave the sample out",
                )

        together = numpy.concatenate([text.input_ids for text in encoded])
        is_known = self.vocabulary_size is None or together.max(initial=0) < self.vocabulary_size
        is_short = max_text_length is None or max(map(len, encoded)) <= max_text_length
        if is_known and is_short and not numpy.isin(together, self.picture_tokens).any():
            return []
        with collecting() as mistakes:
            made_of_each(zip(samples, encoded, strict=True), check)
        return mistakes

    def _encode_some(self, samples: Sequence[Sample], template: BoundTemplate, with_answers: bool) -> list[EncodedText]:
        """Encodes a few hundred samples with one call of the tokenizer."""
        parts = [self._parts(sample, template, with_answers) for sample in samples]
        texts = [["".join(piece.text for piece in pieces) for pieces in of_sample] for of_sample in parts]
        # The text before the image is mostly the same one: it is tokenised once.
        distinct = {text: number for number, text in enumerate(dict.fromkeys(chain.from_iterable(texts)))}
        tokens = self.tokenizer(
            list(distinct),
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        encoded = []
        spans_of: dict[str, tuple[list[Piece], numpy.ndarray]] = {}  # the last pieces that a text was joined from
        begin_spans = numpy.full(len(template.begin_ids), Span.SYSTEM, numpy.int8)
        image_span = numpy.array([Span.IMAGE], numpy.int8)
        for parts_of_sample, texts_of_sample in zip(parts, texts, strict=True):
            ids = list(template.begin_ids)
            spans = [begin_spans]
            for number, (pieces, text) in enumerate(zip(parts_of_sample, texts_of_sample, strict=True)):
                if number > 0:
                    ids.append(IMAGE_TOKEN_ID)
                    spans.append(image_span)
                ids += tokens["input_ids"][distinct[text]]
                known = spans_of.get(text)
                if known is None or known[0] != pieces:
                    known = pieces, spans_of_tokens(pieces, tokens["offset_mapping"][distinct[text]])
                    spans_of[text] = known
                spans.append(known[1])
            span_of_each = numpy.concatenate(spans)
            input_ids = numpy.array(ids, numpy.int32)
            input_ids[span_of_each == image_span] = IMAGE_TOKEN_ID
            encoded.append(EncodedText(input_ids, span_of_each))
        return encoded

    def _parts(self, sample: Sample, template: BoundTemplate, with_answers: bool) -> list[list[Piece]]:
        """Returns the pieces of text before, between and after the images; all in one where images are tokens."""
        turns = sample.turns
        if not with_answers:
            turns = (*turns[:-1], Turn(turns[-1].question))
        parts: list[list[Piece]] = [[]]
        for piece in template.form.pieces(turns, sample.images_of_turns, sample.system):
            if piece.span == Span.IMAGE and not template.image_token:
                parts.append([])
            else:
                parts[-1].append(piece)
        return parts

    def image(self, source: ImageSource, where: str = "") -> Tensor:
        """Returns a picture as (3, image_size, image_size) float32, normalised.

        Raises:
            BadInputError: If it cannot be read.
        """
        image = open_image(source, where)
        box = self.crop_box(*image.size) if self.resize == "shortest_edge" else None
        size = (self.image_size, self.image_size)
        resized = image.resize(size, INTERPOLATIONS[self.interpolation], box=box)
        pixels = torch.from_numpy(numpy.array(resized, dtype=numpy.float32)).permute(2, 0, 1) / 255
        return ((pixels - self.mean) / self.std).contiguous()

    def pictures(self, sources: Sequence[ImageSource], where: str = "") -> list[PreparedPicture]:
        """Returns all pictures of one sample as the model reads them.

        Raises:
            BadInputError: If one cannot be read.
        """
        return [PreparedPicture(self.image(source, where)[None], None, ONE_RUN) for source in sources]

    def layouts(self, sources: Sequence[ImageSource], where: str = "") -> list[PictureLayout]:
        """Returns the tokens that stand for the pictures of one sample, known from the sizes in their files at most.

        Raises:
            BadInputError: If the size has to be known and cannot be read.
        """
        return [ONE_RUN] * len(sources)

    @property
    def layouts_vary(self) -> bool:
        """Whether the tokens that stand for a picture depend on the picture."""
        return type(self).layouts is not Processor.layouts

    def identity(self) -> dict[str, object] | None:
        """Returns all that decides tokens and layouts besides samples and template, as plain values.

        A class of one's own says what decides its own; of one that does not, nothing is kept between two starts.
        """
        return self._identity() if type(self) is Processor else None

    def _identity(self) -> dict[str, object]:
        """Returns what decides tokens."""
        tokenizer = self.tokenizer
        return {
            "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            "begins": self.bos_ids,
            "ends": [tokenizer.eos_token, self.eos_token_id],
            "vocabulary": self.vocabulary_size,
            "pictures": list(self.picture_tokens),
            "libraries": [version(name) for name in ("tokenizers", "transformers", "pillow")],
        }

    def check_picture(self, source: ImageSource, where: str = "") -> None:
        """Looks at what is known of a picture before it is decoded; here every picture will do.

        Raises:
            BadInputError: If the model takes no picture of such a size.
        """

    def no_pixels(self) -> Tensor:
        """Returns the pixels of no picture, (0, ...), as those of several would be joined."""
        return torch.empty(0, 3, self.image_size, self.image_size, dtype=torch.float32)

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Returns the part of a picture that resizing its short side and cropping the centre would keep.

        Resizing only this part gives the same pixels, and a 20000 x 2 picture costs no more than any other.
        """
        short, size = min(width, height), self.image_size
        edges = []
        for side in (width, height):
            resized = size if side == short else int(size * side / short)
            offset = (resized - size) // 2
            edges.append((offset * side / resized, (offset + size) * side / resized))
        (left, right), (top, bottom) = edges
        return left, top, right, bottom

    def decode(self, ids: Sequence[int] | Tensor) -> str:
        """Returns generated tokens as text up to the first end token, without special tokens and outer spaces."""
        numbers = [int(token) for token in ids]
        if self.eos_token_id in numbers:
            numbers = numbers[: numbers.index(self.eos_token_id)]
        text = self.tokenizer.decode(numbers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()


def mistakes_in_texts(samples: Sequence[Sample], with_answers: bool) -> list[BadInputError]:
    """Returns the conversations that cannot be encoded: with the image mark in a text, or without an answer."""
    mistakes = []
    for sample in samples:
        if any(IMAGE_MARK in turn.question + turn.answer for turn in sample.turns) or IMAGE_MARK in sample.system:
            mistakes.append(BadInputError(f"sample {sample.id} has {IMAGE_MARK} inside its text", where=sample.source))
        if with_answers and not all(turn.answer for turn in sample.turns):
            sentence = f"sample {sample.id} has no answer"
            mistakes.append(BadInputError(sentence, where=sample.source, expected="an answer"))
    return mistakes
