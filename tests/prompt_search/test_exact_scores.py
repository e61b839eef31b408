"""Scores in float64 are those of the plain forward of the whole rendered text, whatever the template and tokenizer."""

from dataclasses import replace
from types import SimpleNamespace

import numpy
import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from lightning_m2pt.backbones.shortcuts import EVERY_ROW
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.collate import encoded_sample
from lightning_m2pt.inputs.named_templates import NATIVE, PromptFile, template_named
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.reworded_template import PromptText
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.prompt_search.allowed_tokens import allowed_tokens
from lightning_m2pt.prompt_search.placing import question_text, system_text
from lightning_m2pt.prompt_search.prompt_texts import PromptTexts
from lightning_m2pt.prompt_search.scored_samples import batch_of, scored_samples
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.written_prompts import WrittenPrompts
from lightning_m2pt.testing.random_backbone import IMAGE_SIZE, random_backbone
from lightning_m2pt.testing.small_processor import CLIP_MEAN, CLIP_STD
from lightning_m2pt.tuning.losses import supervised_rows
from tests.prompts.test_parity import built_method, float64_islands
from tests.support.chat_templates import chat_tokenizer, in_form

TOLERANCE = 1e-12
PICTURES = [numpy.random.default_rng(seed).integers(256, size=(20, 24, 3), dtype=numpy.uint8) for seed in range(4)]


def sample(name: str, *turns: Turn, pictures: int = 1, **more) -> Sample:
    image, *further = [*PICTURES[:pictures], None][: max(1, pictures)]
    tasks = ("task",) * len(turns)
    return Sample(name, image, name, turns, tasks, "file.json:3", further_images=tuple(further), **more)


ONE = [
    sample("a", Turn("What color is the car?", "blue")),
    sample("b", Turn("Is the car red?", "no it is blue.")),
]
TURNS = [
    sample("a", Turn("What color?", "red."), Turn("Is it?", "yes"), Turn("What is the 7?", "blue")),
    sample("b", Turn("Is the car red?", "no")),
]
SEVERAL = [
    sample("a", Turn("What is 7?", "12"), Turn("What is 12?", "7"), pictures=3),
    sample("b", Turn("Is it?", "no"), pictures=1),
]
LATER = [sample("a", Turn("What is 7?", "12"), Turn("And the other?", "7"), pictures=2, shown_in_turns=(1, 1))]
WITHOUT = [
    sample("a", Turn("What is 7?", "12"), pictures=0),
    sample("b", Turn("Is it?", "no"), Turn("no?", "yes it is"), pictures=0),
]
MIXED = [ONE[0], WITHOUT[1], SEVERAL[0]]


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A tiny base in float64, and processors of it by tokenizer and chat template."""
    language = {"vocab_size": 800, "max_position_embeddings": 512}
    backbone = random_backbone(tmp_path_factory.mktemp("exact"), torch.float64, language=language)
    return backbone.eval()


def processor_of(tokenizer: PreTrainedTokenizerFast, form: str = "") -> Processor:
    chat = in_form(form) if form else None
    return Processor(tokenizer, IMAGE_SIZE, CLIP_MEAN, CLIP_STD, vocabulary_size=800, chat_template=chat)


def searched(backbone, samples, processor, template, position="behind_question", length=3):
    texts = PromptTexts(samples, processor, template, position)
    allowed = allowed_tokens(texts, samples, answer_words=True)
    samples_ready = scored_samples(texts, backbone)
    as_exact = [replace(each, pixel_values=each.pixel_values.double()) for each in samples_ready]
    return texts, allowed, PromptScorer(backbone, processor, as_exact, length)


def plain_losses(backbone, texts, prompt) -> list[float]:
    """What samples lose whose template has the prompt's text in it: read as a whole, every row computed."""
    words, position, processor = texts.words(prompt), texts.position, texts.processor
    system = system_text(texts.template, words) if position == "system" else ""
    text = PromptText(question_text(position, words), **({"system": system} if system else {}))
    worded = PromptFile("prompt", text, None).on(texts.template)
    losses = []
    for each, encoded in zip(texts.samples, processor.encode_all(texts.samples, worded), strict=True):
        ready = encoded_sample(each, encoded, processor, each.source)
        ready = replace(ready, pixel_values=ready.pixel_values.double())
        with torch.no_grad():
            rows = supervised_rows(backbone, batch_of([ready], processor, backbone), EVERY_ROW)
        losses.append(float(rows.losses.sum()))
    return losses


def compare(backbone, texts, allowed, scorer, shares, number=5):
    """Scores drawn prompts that are read as written, of two lengths together, beside the plain forward."""
    generator = numpy.random.default_rng(0)
    drawn = [
        tuple(generator.choice(allowed.ids, size=length).tolist()) for length in (3, 1, 3, 2, 3, 3, 1, 2) for _ in "ab"
    ]
    alive = texts.survivors(drawn)[:number]
    assert len(alive) == number
    assert scorer.shares == shares, scorer.why_not
    found = scorer.losses(alive)
    assert found.dtype == torch.float64
    for prompt, losses in zip(alive, found.tolist(), strict=True):
        assert losses == pytest.approx(plain_losses(backbone, texts, prompt), rel=TOLERANCE, abs=TOLERANCE)
    assert len({round(sum(losses), 9) for losses in found.tolist()}) == number


@pytest.mark.parametrize(
    ("samples", "shares"),
    [(ONE, True), (TURNS, True), (SEVERAL, True), (LATER, False), (WITHOUT, True), (MIXED, True)],
    ids=["one", "turns", "several", "later", "without", "mixed"],
)
@pytest.mark.parametrize("tokens", ["bytes", "pieces"])
def test_conversations_of_every_kind(exact, monkeypatch, samples, shares, tokens):
    parts = searched(exact, samples, processor_of(chat_tokenizer(tokens)), template_named("vicuna_v1"))
    with float64_islands(monkeypatch):
        compare(exact, *parts, shares)
    if not shares:
        assert "a picture stands behind the prompt" in parts[2].why_not


@pytest.mark.parametrize("form", ["chatml", "llama3", "gemma", "mistral"])
@pytest.mark.parametrize("position", ["behind_question", "before_question"])
def test_chat_templates_of_models(exact, monkeypatch, form, position):
    processor = processor_of(chat_tokenizer(begins=False), form)
    parts = searched(exact, TURNS, processor, NATIVE, position)
    with float64_islands(monkeypatch):
        compare(exact, *parts, True, number=2)


@pytest.mark.parametrize("name", ["vicuna_v1", "plain", "chatml", "llama_3"])
def test_every_place_of_a_prompt(exact, monkeypatch, name):
    processor = processor_of(chat_tokenizer())
    for position in ("behind_question", "before_question", "system"):
        if (name, position) == ("plain", "system"):
            continue  # it has no system text
        parts = searched(exact, ONE, processor, template_named(name), position)
        with float64_islands(monkeypatch):
            compare(exact, *parts, parts[2].shares, number=3)
        assert parts[2].shares == (position != "system")


def test_with_an_attached_method(exact, monkeypatch):
    method = built_method(exact, torch.float64)
    parts = searched(exact, TURNS, processor_of(chat_tokenizer()), template_named("vicuna_v1"))
    with float64_islands(monkeypatch):
        before = parts[2].losses([tuple(parts[1].ids[:3])])
        method.attach(exact)
        try:
            compare(exact, *parts, True)
            assert (parts[2].losses([tuple(parts[1].ids[:3])]) - before).abs().max() > 0.01
        finally:
            method.detach(exact)


def test_what_is_no_proven_form_shares_nothing_and_says_so(exact):
    _, _, scorer = searched(exact, ONE, processor_of(chat_tokenizer()), template_named("vicuna_v1"))
    unproven = SimpleNamespace(shape=SimpleNamespace(runs_reference="gpt_x"))
    reference = PromptScorer(unproven, scorer.processor, scorer.samples, 3)
    assert not reference.shares
    assert "the library's own forward runs gpt_x" in reference.why_not
    assert (reference.rows_in_front, reference.rows_of_prompt) == (0, scorer.rows_of_samples)


def joining_tokenizer() -> PreTrainedTokenizerFast:
    """Letters, a few words with a space in front, and a sign that is joined with one of these words."""
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>"])}
    for token in [*map(chr, range(32, 127)), "\n", " x", " b", " z", "? b", " xy", " b z"]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [(" ", "x"), (" ", "b"), (" ", "z"), (" x", "y"), ("?", " b"), (" b", " z")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def test_what_the_tokenizer_joins_with_a_neighbour_is_no_survivor(exact, monkeypatch):
    tokenizer = joining_tokenizer()
    x, b, z, y, xy = (tokenizer.convert_tokens_to_ids(token) for token in (" x", " b", " z", "y", " xy"))
    samples = [sample("a", Turn("What.", "blue")), sample("b", Turn("Is it?", "red"))]
    texts, allowed, scorer = searched(exact, samples, processor_of(tokenizer), template_named("vicuna_v1"), length=2)
    assert {x, b, z, xy} <= set(allowed.ids)  # in the first conversation each is read as written
    assert y not in allowed.ids
    proposed = [(x, b), (b, x), (x, y), (b, z), (x, z), (xy, b), (z, x)]
    assert texts.survivors(proposed, of_samples=1) == [(x, b), (b, x), (x, z), (xy, b), (z, x)]
    # "? b" is one token in the second one; "x" and "y" are read as " xy"; "b" and "z" are one token anywhere.
    assert texts.survivors(proposed) == [(x, b), (x, z), (xy, b), (z, x)]
    with float64_islands(monkeypatch):
        alive = texts.survivors(proposed)
        for prompt, losses in zip(alive, scorer.losses(alive).tolist(), strict=True):
            assert losses == pytest.approx(plain_losses(exact, texts, prompt), rel=TOLERANCE, abs=TOLERANCE)
    assert WrittenPrompts(texts, allowed).read("x y z") == (x, tokenizer.convert_tokens_to_ids(" "), y, z)


def test_a_text_of_subwords_is_read_as_it_stands(exact, monkeypatch):
    for tokens in ("bytes", "pieces"):
        texts, allowed, scorer = searched(exact, TURNS, processor_of(chat_tokenizer(tokens)), template_named("plain"))
        lengths = [
            len(each) + 2 * len(opened.places) for each, opened in zip(texts.untouched, texts.opened, strict=True)
        ]
        texts.max_text_length = max(lengths)
        assert [texts.has_room(length) for length in (2, 3)] == [True, False]
        texts.max_text_length = None
        read = WrittenPrompts(texts, allowed).read
        prompts = [read("It is the modest."), read("USER: yes"), read("the  car")]
        assert texts.survivors(prompts) == prompts
        assert [texts.words(prompt) for prompt in prompts] == ["It is the modest.", "USER: yes", "the car"]
        assert len(prompts[0]) > 4
        with float64_islands(monkeypatch):
            for prompt, losses in zip(prompts, scorer.losses(prompts).tolist(), strict=True):
                assert losses == pytest.approx(plain_losses(exact, texts, prompt), rel=TOLERANCE, abs=TOLERANCE)


def test_where_no_place_is_found_it_is_said(exact):
    tokenizer = joining_tokenizer()
    samples = [sample("a", Turn("What?", "blue"))]
    texts = PromptTexts(samples, processor_of(tokenizer), template_named("vicuna_v1"), "behind_question")
    with pytest.raises(BadInputError, match="no place for a prompt is found in sample a"):
        texts.open([tokenizer.convert_tokens_to_ids(" b")])
