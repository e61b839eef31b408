"""Pieces of an answer join to its text, and no piece holds half a character."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.answering.kept_rows import read_conversation
from lightning_m2pt.answering.text_pieces import text_pieces
from lightning_m2pt.answering.token_stream import TokenStream
from lightning_m2pt.errors import DivergedError
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.testing.random_backbone import random_backbone
from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD
from tests.answering.test_kept_rows import FIRST, conversation, picture
from tests.methods.test_every_method import built
from tests.support.answers.counted_rows import counted
from tests.support.chat_templates import chat_tokenizer

FORMS = ("bytes", "pieces")


def processor_of(form: str) -> Processor:
    """Returns a processor with a tokenizer as GPT-2's (``bytes``), or as Llama's (``pieces``)."""
    tokenizer = chat_tokenizer(form) if form == "bytes" else llama_tokenizer()
    return Processor(tokenizer, 16, CLIP_MEAN, CLIP_STD)


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer of letters and a few words, which splits every other character into bytes."""
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    pieces = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], "\u2581", *letters, "ye", "yes"]
    backend = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)},
            [("y", "e"), ("ye", "s")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "Gr\u00fc\u00dfe, \u6771\u4eac \U0001f600!",
        "a\u0301 e\u0301",
        "  two  spaces and\na line ",
        "\U0001f468\u200d\U0001f469 \u20ac5",
        " ",
    ],
)
def test_pieces_of_a_text_are_whole_characters(form: str, text: str) -> None:
    processor = processor_of(form)
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = list(text_pieces(processor, ids))
    assert "".join(pieces) == processor.decode(ids)
    assert "" not in pieces
    assert "".join(pieces) == text.strip()
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("form", FORMS)
def test_pieces_of_any_tokens_join_to_their_text(form: str) -> None:
    """Random tokens are mostly bytes that are no characters, ends of characters without beginnings, and spaces."""
    processor = processor_of(form)
    generator = torch.Generator().manual_seed(0)
    number = len(processor.tokenizer)
    later = 0
    for length in range(1, 60):
        ids = torch.randint(number, (length,), generator=generator).tolist()
        ids = [each for each in ids if each != processor.eos_token_id]
        pieces = list(text_pieces(processor, ids))
        assert "".join(pieces) == processor.decode(ids)
        for piece in pieces:
            piece.encode()
        later += len(pieces) > 1
    assert later > 20


def test_what_is_not_settled_waits() -> None:
    """SentencePiece writes a run of bytes anew when one more makes it no text."""
    processor = processor_of("pieces")
    euro = processor.tokenizer.convert_tokens_to_ids(["<0xE2>", "<0x82>", "<0xAC>"])
    word = processor.tokenizer("yes", add_special_tokens=False)["input_ids"]
    assert next(text_pieces(processor, [*euro, *word])).startswith("\u20ac")
    ids = [*word, *euro, euro[0], *word]
    pieces = list(text_pieces(processor, ids))
    assert "".join(pieces) == processor.decode(ids)
    assert "\u20ac" not in "".join(pieces)


@pytest.mark.parametrize("name", ["m2pt", "lora", "aprompt"])
def test_tokens_are_those_of_greedy_answers(tmp_path: Path, name: str) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    built(name, backbone).double().attach(backbone)
    asked = conversation(FIRST, picture())
    tokens = greedy_answers(backbone, asked, 6, -1)[0].token_ids
    for limit, ends in ((6, (-1,)), (1, (-1,)), (6, (-1, tokens[3])), (6, (tokens[0],))):
        stream = TokenStream(backbone, read_conversation(backbone, asked), limit, ends)
        expected = greedy_answers(backbone, asked, limit, *ends)[0].token_ids
        with counted(backbone) as counts:
            assert list(stream) == expected
        assert counts.rows == (len(expected) if stream.is_complete else limit - 1)
        assert stream.is_complete == (len(expected) < limit)


def test_stopping_early_leaves_a_state_to_go_on_from(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    asked = conversation(FIRST, picture())
    expected = greedy_answers(backbone, asked, 6, -1)[0].token_ids
    stream = TokenStream(backbone, read_conversation(backbone, asked), 6, (-1,))
    assert [token for token, _ in zip(stream, range(2), strict=False)] == expected[:2]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert stream.kept.tokens.tolist()[: len(FIRST)] == list(FIRST)
    longer = conversation((*FIRST, *expected[:2]), picture())
    assert list(TokenStream(backbone, read_conversation(backbone, longer, stream.kept), 4, (-1,))) == expected[2:]


def test_tokens_that_stand_for_pictures_are_never_given(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    asked = conversation(FIRST, picture())
    first = greedy_answers(backbone, asked, 1, -1)[0].token_ids[0]
    backbone.never_answered = (first,)
    assert next(iter(TokenStream(backbone, read_conversation(backbone, asked), 1, (-1,)))) != first


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.float64)
    with torch.no_grad():
        next(backbone.pretrained_lm_head().parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError):
        next(iter(TokenStream(backbone, read_conversation(backbone, conversation(FIRST, picture())), 3, (-1,))))


class Rewriting:
    """Decodes so that what comes behind may rewrite what was there before."""

    def __init__(self, texts: Mapping[int, str]) -> None:
        self.texts, self.tokenizer = texts, self
        self.all_special_ids: list[int] = []

    def decode(self, ids: list[int]) -> str:
        return self.texts[len(ids)]

    def convert_ids_to_tokens(self, token: int) -> str:
        return str(token)


def test_words_that_are_rewritten_wait_and_are_never_joined_wrongly() -> None:
    settles = Rewriting({1: "ab", 2: "xyz", 3: "abc"})
    assert list(text_pieces(settles, [7, 8, 9])) == ["ab", "c"]  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="wrote 'ab' at first, and 'xyz' in the end"):
        list(text_pieces(Rewriting({1: "ab", 2: "xyz"}), [7, 8]))  # type: ignore[arg-type]
