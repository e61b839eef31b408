"""The exact text of a conversation, which token belongs to what, and both ways to make a picture square."""

import numpy
import pytest
import torch
from PIL import Image

from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.inputs.processing import Processor, spans_of_tokens
from lightning_m2pt.inputs.samples import Turn
from lightning_m2pt.inputs.templates import Piece
from lightning_m2pt.testing.small_processor import word_tokenizer

TURNS = (Turn("What is it?", "A dog"), Turn("What color?", "red"))
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    "USER: <image>\nWhat is it? ASSISTANT: A dog</s>USER: What color? ASSISTANT: red</s>"
)
PLAIN = "<image>Question: What is it? Answer: A dog</s>Question: What color? Answer: red</s>"


@pytest.mark.parametrize(("name", "expected"), [("vicuna_v1", VICUNA), ("plain", PLAIN)])
def test_the_text_is_this_to_the_last_space(name, expected):
    """LLaVA's ``v1`` as the published training writes it, and the embedded backbone's own."""
    template = template_named(name)
    pieces = template.pieces(TURNS)
    assert "".join(piece.text for piece in pieces) == expected
    assert [piece.text for piece in pieces if piece.span == Span.ANSWER] == [" A dog</s>", " red</s>"]
    asked = template.pieces((TURNS[0], Turn(TURNS[1].question)))
    assert "".join(piece.text for piece in asked) == expected[: -len(" red</s>")]


def test_a_token_belongs_to_the_piece_in_which_it_ends():
    pieces = [Piece("abc", Span.QUESTION), Piece("de", Span.ANSWER), Piece("f", Span.QUESTION)]
    offsets = [(0, 0), (0, 2), (2, 4), (3, 5), (4, 6), (3, 3), (5, 6), (6, 6)]
    expected = [Span.QUESTION, Span.QUESTION, Span.ANSWER, Span.ANSWER, Span.QUESTION, Span.ANSWER, Span.QUESTION]
    assert spans_of_tokens(pieces, offsets).tolist() == [*expected, Span.QUESTION]
    assert spans_of_tokens(pieces, []).tolist() == []


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_squashing_keeps_the_whole_picture_and_cropping_its_centre(interpolation):
    """By Pillow's own resizing of the whole picture, and of the square in its middle."""
    image = numpy.random.default_rng(3).integers(0, 256, (16, 48, 3), dtype=numpy.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    kind = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[interpolation]
    for resize, box in (("squash", (0, 0, 48, 16)), ("shortest_edge", (16, 0, 32, 16))):
        processor = Processor(word_tokenizer(), 8, mean, std, interpolation, resize)
        resized = Image.fromarray(image).resize((8, 8), kind, box=box)
        expected = numpy.asarray(resized, dtype=numpy.float64) / 255
        expected = (expected - numpy.array(mean)) / numpy.array(std)
        assert torch.allclose(processor.image(image).double(), torch.from_numpy(expected).permute(2, 0, 1), atol=1e-5)
