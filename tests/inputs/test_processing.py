"""Text encoding against expectations written by hand, and picture preparation against Pillow and CLIP's rule."""

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Span
from lightning_m2pt.inputs.collate import Collator, EncodedSample
from lightning_m2pt.inputs.processing import EncodedText, Processor
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.templates import PLAIN, VICUNA_V1
from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD, small_processor, word_tokenizer

BOS, EOS, UNKNOWN, PADDING_ID = 1, 2, 0, 3


def sample(*turns: tuple[str, str]) -> Sample:
    """Returns a sample without a real picture."""
    return Sample("one", Path("none.png"), "none.png", tuple(Turn(*turn) for turn in turns), "task", "file.json:3")


def words(processor: Processor, text: EncodedText) -> list[str]:
    """Returns the tokens as words, the picture as <image>."""
    vocabulary = {number: word for word, number in processor.tokenizer.get_vocab().items()}
    return ["<image>" if token == IMAGE_TOKEN_ID else vocabulary[token] for token in text.input_ids.tolist()]


def test_plain_template_with_one_question() -> None:
    processor = small_processor()
    text = processor.encode(sample(("what color ?", "it is red")), PLAIN)
    assert words(processor, text) == (
        "<s> <image> Question : what color ? Answer : it is red </s>".split()  # noqa: SIM905
    )
    spans = [Span.SYSTEM, Span.IMAGE, *[Span.QUESTION] * 7, *[Span.ANSWER] * 4]
    assert text.spans.tolist() == spans
    assert text.labels.tolist() == [IGNORED_LABEL] * 9 + text.input_ids.tolist()[9:]
    assert text.supervised_tokens == 4


def test_plain_template_with_two_questions() -> None:
    processor = small_processor()
    text = processor.encode(sample(("what ?", "red"), ("what color ?", "blue")), PLAIN)
    expected = [
        *[("<s>", Span.SYSTEM), ("<image>", Span.IMAGE)],
        *[(word, Span.QUESTION) for word in ("Question", ":", "what", "?", "Answer", ":")],
        *[("red", Span.ANSWER), ("</s>", Span.ANSWER)],
        *[(word, Span.QUESTION) for word in ("Question", ":", "what", "color", "?", "Answer", ":")],
        *[("blue", Span.ANSWER), ("</s>", Span.ANSWER)],
    ]
    assert words(processor, text) == [word for word, _ in expected]
    assert text.spans.tolist() == [span for _, span in expected]
    supervised = [word for word, label in zip(words(processor, text), text.labels, strict=True) if label >= 0]
    assert supervised == ["red", "</s>", "blue", "</s>"]


def test_vicuna_template_with_two_questions() -> None:
    processor = small_processor()
    text = processor.encode(sample(("what ?", "red"), ("color ?", "it is blue")), VICUNA_V1)
    tokens = words(processor, text)
    image = tokens.index("<image>")
    assert tokens[:3] == ["<s>", "A", "<unk>"]
    assert tokens[image - 2 : image] == ["USER", ":"]
    assert tokens[image + 1 :] == (
        "what ? ASSISTANT : red </s> USER : color ? ASSISTANT : it is blue </s>".split()  # noqa: SIM905
    )
    system, question, answer = int(Span.SYSTEM), int(Span.QUESTION), int(Span.ANSWER)
    assert text.spans.tolist() == [
        *[system] * (image - 2),
        *[question, question, int(Span.IMAGE)],
        *[question] * 4,
        *[answer] * 2,
        *[question] * 6,
        *[answer] * 4,
    ]
    assert (text.labels >= 0).sum() == 6


def test_a_prompt_without_answer_ends_where_the_model_goes_on() -> None:
    processor = small_processor()
    for template, last in ((VICUNA_V1, ["ASSISTANT", ":"]), (PLAIN, ["Answer", ":"])):
        with_answer = processor.encode(sample(("what ?", "red")), template)
        without = processor.encode(sample(("what ?", "red")), template, with_answers=False)
        assert words(processor, without)[-2:] == last
        assert without.input_ids.tolist() == with_answer.input_ids.tolist()[:-2]
        assert without.supervised_tokens == 0


@pytest.mark.parametrize(("add_bos", "bos", "expected"), [(True, True, 1), (False, True, 0), (False, False, 0)])
def test_the_begin_token_comes_once_or_never(add_bos: bool, bos: bool, expected: int) -> None:
    processor = Processor(word_tokenizer(add_bos, bos), 24, CLIP_MEAN, CLIP_STD)
    for template in (VICUNA_V1, PLAIN):
        assert processor.encode(sample(("what ?", "red")), template).input_ids.tolist().count(BOS) == expected


def test_one_by_one_is_the_same_as_all_at_once() -> None:
    processor = small_processor()
    samples = [sample(("what ?" * number, "red")) for number in range(1, 600)]
    together = processor.encode_all(samples, VICUNA_V1)
    for position in (0, 511, 512, 598):
        alone = processor.encode(samples[position], VICUNA_V1)
        assert together[position].input_ids.tolist() == alone.input_ids.tolist()
        assert together[position].spans.tolist() == alone.spans.tolist()


def test_bytes_and_marks_at_the_front_belong_to_the_piece_they_stand_in() -> None:
    """A sentence-piece tokenizer writes a lone word mark in front of each part and splits emoji into bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], "\u2581", "a", "b"]
    backend = Tokenizer(
        models.BPE({piece: number for number, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    processor = Processor(tokenizer, 24, CLIP_MEAN, CLIP_STD)
    text = processor.encode(sample(("a", "b\N{GRINNING FACE}")), PLAIN)
    supervised = [token for token, label in zip(words(processor, text), text.labels, strict=True) if label >= 0]
    assert supervised == ["\u2581", "b", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "</s>"]
    assert words(processor, text)[:2] == ["<image>", "\u2581"]
    assert text.spans[1] == Span.QUESTION


def test_a_lone_word_mark_before_an_answer_is_supervised() -> None:
    """Llama's tokenizer splits " 7" into a word mark and the digit; the question ends before the mark."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", "\u2581", "7", "\u2581red", "r", "e", "d"]
    merges = [("e", "d"), ("r", "ed"), ("\u2581", "red")]
    pieces[6:6] = ["ed", "red"]
    backend = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    processor = Processor(tokenizer, 24, CLIP_MEAN, CLIP_STD)
    for answer, expected in (("7", ["\u2581", "7", "</s>"]), ("red", ["\u2581red", "</s>"])):
        text = processor.encode(sample(("7", answer)), VICUNA_V1)
        supervised = [token for token, label in zip(words(processor, text), text.labels, strict=True) if label >= 0]
        assert supervised == expected
        question = processor.encode(sample(("7", answer)), VICUNA_V1, with_answers=False)
        assert text.input_ids[: len(question)].tolist() == question.input_ids.tolist()
        assert len(text) == len(question) + len(expected)


def of_vocabulary(tokenizer, size: int) -> Processor:
    return Processor(tokenizer, 24, CLIP_MEAN, CLIP_STD, vocabulary_size=size)


def test_padding_is_a_token_of_the_model() -> None:
    """A padding token that was added later has no row in the model's embedding."""
    tokenizer = word_tokenizer()
    tokens = len(tokenizer)
    assert of_vocabulary(tokenizer, tokens).pad_token_id == PADDING_ID
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert of_vocabulary(tokenizer, tokens + 1).pad_token_id == tokens
    processor = of_vocabulary(tokenizer, tokens)
    assert processor.pad_token_id == EOS
    texts = processor.encode_all([sample(("what ?", "red")), sample(("what color ?", "blue"))], PLAIN)
    pixels = torch.zeros(1, 3, 24, 24)
    batch = Collator(processor.pad_token_id)([EncodedSample(text, pixels, "a", ("t",)) for text in texts])
    assert int(batch.input_ids.max()) < tokens


def test_a_token_beyond_the_vocabulary_is_refused_with_both_sizes() -> None:
    tokenizer = word_tokenizer()
    tokens = len(tokenizer)
    last = tokenizer.convert_ids_to_tokens(tokens - 1)
    processor = of_vocabulary(tokenizer, tokens - 1)
    processor.encode_all([sample(("what ?", "red"))], PLAIN)
    for turn in ((f"what {last} ?", "red"), ("what ?", last)):
        with pytest.raises(BadInputError, match=f"sample one has the token '{last}', id {tokens - 1}") as refusal:
            processor.encode_all([sample(("what ?", "red")), sample(turn)], PLAIN)
        assert f"ids below {tokens - 1}, as the model has; the tokenizer has {tokens}" in str(refusal.value)
    with pytest.raises(BadInputError, match="sample one has the token"):  # the template's own words
        of_vocabulary(tokenizer, tokenizer.convert_tokens_to_ids("Answer")).encode_all([sample(("a", "a"))], PLAIN)


@pytest.mark.parametrize(("size", "token"), [(1, "<s>"), (2, "</s>")])
def test_begin_and_end_are_tokens_of_the_model(size: int, token: str) -> None:
    with pytest.raises(BadInputError, match=f"the tokenizer's own '{token}' has the token '{token}', id {size}"):
        of_vocabulary(word_tokenizer(), size)


def test_wrong_samples_are_refused_with_their_place() -> None:
    processor = small_processor()
    with pytest.raises(BadInputError, match=r"file\.json:3.*one has 16 tokens") as caught:
        processor.encode(sample(("what color ?" * 2, "it is red")), PLAIN, max_text_length=15)
    assert "at most 15" in str(caught.value)
    with pytest.raises(BadInputError, match="inside its text"):
        processor.encode(sample(("what <image> ?", "red")), PLAIN)
    with pytest.raises(BadInputError, match="no answer"):
        processor.encode(sample(("what ?", "")), PLAIN)


def test_decoding_stops_at_the_end_token() -> None:
    processor = small_processor()
    yes, red = processor.tokenizer.convert_tokens_to_ids(["yes", "red"])
    assert processor.decode([yes, EOS, red, red]) == "yes"
    assert processor.decode(torch.tensor([PADDING_ID, yes, red])) == "yes red"


@pytest.mark.parametrize("size", [(24, 24), (64, 40), (40, 65), (25, 24), (1, 1), (7, 3), (201, 100)])
def test_pictures_are_resized_and_cropped_as_clip_does(size: tuple[int, int]) -> None:
    image = numpy.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=numpy.uint8)
    pixels = small_processor(24).image(image)
    short = min(size)
    resized = [24 if side == short else int(24 * side / short) for side in size]
    left, top = [(side - 24) // 2 for side in resized]
    whole = Image.fromarray(image).resize(resized, Image.Resampling.BICUBIC).crop((left, top, left + 24, top + 24))
    expected = (numpy.asarray(whole) / 255 - CLIP_MEAN) / CLIP_STD
    assert pixels.shape == (3, 24, 24)
    assert pixels.dtype == torch.float32
    assert numpy.abs(pixels.permute(1, 2, 0).numpy() - expected).max() < 1e-5


def test_an_extremely_long_picture_costs_no_more_than_any_other() -> None:
    assert small_processor(24).image(numpy.zeros((2, 20_000, 3), numpy.uint8)).shape == (3, 24, 24)


def test_a_batch_is_padded_on_the_right() -> None:
    processor = small_processor()
    texts = processor.encode_all([sample(("what ?", "red")), sample(("what color ?", "it is red"))], PLAIN)
    pixels = torch.zeros(1, 3, 24, 24)
    batch = Collator(processor.pad_token_id)(
        [EncodedSample(text, pixels, f"sample {number}", "task") for number, text in enumerate(texts)]
    )
    short, long = len(texts[0]), len(texts[1])
    assert batch.input_ids.shape == batch.labels.shape == batch.spans.shape == (2, long)
    assert batch.input_ids.dtype == batch.labels.dtype == batch.spans.dtype == torch.int64
    assert batch.pixel_values.shape == (2, 3, 24, 24)
    assert batch.input_ids[0, short:].tolist() == [PADDING_ID] * (long - short)
    assert batch.labels[0, short:].tolist() == [IGNORED_LABEL] * (long - short)
    assert batch.spans[0, short:].tolist() == [Span.PADDING] * (long - short)
    assert batch.sample_ids == ["sample 0", "sample 1"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (PLAIN, "<s> <image> Question : what ? Answer : red </s> <image> Question : what color ? Answer :"),
        (VICUNA_V1, None),
    ],
    ids=["plain", "vicuna_v1"],
)
def test_examples_have_a_picture_each(template, expected) -> None:
    processor = small_processor()
    pictures = (Path("first.png"), Path("second.png"))
    one = Sample(
        "one",
        pictures[1],
        "second.png",
        (Turn("what ?", "red"), Turn("what color ?")),
        ("", ""),
        "file:1",
        pictures[:1],
    )
    text = processor.encode(one, template, with_answers=False)
    shown = " ".join(words(processor, text))
    assert text.spans.tolist().count(Span.IMAGE) == shown.count("<image>") == 2
    assert expected in {None, shown}
    first, second = shown.split("<image>")[1:]
    assert "red </s>" in first
    assert "color" in second
    assert one.images == pictures
