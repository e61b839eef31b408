"""Our forward passes against the libraries' own, on a few rows, with the weights, prompts and type that will be used.

The fast paths are right for the forms that ``backbones/proven_forms.py`` lists, and the reference takes little for
granted, but not nothing. Where a model does more, nothing would fail: it would train and answer wrongly. So nothing
trains or answers before this has passed.

The rows are few: two invented pictures, of which the decoder sees a few rows, and three questions of a few tokens.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_m2pt.answering.decoding_steps import advance, branch
from lightning_m2pt.answering.shared_prefill import prefill_pictures
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.decoders.reference import notice_of_reference
from lightning_m2pt.backbones.shortcuts import Shortcuts
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.picture_batch import PictureBatch, picture_batch
from lightning_m2pt.inputs.processing import EncodedText
from lightning_m2pt.tuning.compared_pictures import ComparedPictures
from lightning_m2pt.tuning.comparison import (
    DISTURBANCES,
    LARGEST_BEHIND_PROMPTS,
    NOISE,
    Comparison,
    difference,
    disturbed_by_rounding,
    limits_of,
    rounding_may_grow,
)

Use: TypeAlias = Literal["training", "answering"]

SEED = 7
PICTURES_OF_QUESTIONS = (0, 1, 0)
LENGTHS = (8, 7, 9)
"""Tokens of the three questions, one of them the picture; the last two count as answer in training."""
PICTURE_PLACE = 2
FURTHER_ROWS = 64
"""Rows of the sequence that shows whether what stands behind a row changes it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Questions:
    """Three questions about two pictures, the two forms they are run in, and what follows them.

    Attributes:
        batch: Every question by itself. Its ``pixel_values`` are the numbers of the pictures.
        by_picture: The same by picture; its questions are the batch's in the order ``order``.
        order: (3,) int64.
        following: (3,) int64 tokens that follow every question: the first two one after the other, or the third.
    """

    batch: Batch
    by_picture: PictureBatch
    order: Tensor
    following: Tensor


@torch.no_grad()
def refuse_unless_like_library(backbone: Backbone, use: Use, shortcuts: Shortcuts) -> None:
    """Compares the passes of training or of answering with the libraries' own.

    Draws from no global generator, and leaves modes, hooks and caches as they were. Where weights are shared out among
    ranks that run in lockstep, all of them compare the same. Where a process has parts of the weights and no way to the
    others nothing can be compared, which is logged.

    Args:
        backbone: Loaded, with the method attached, on the device where it will run.
        use: What comes next.
        shortcuts: What the training step leaves out.

    Raises:
        BadInputError: If a pass differs; it is named, with the size of the difference.
        DivergedError: If the library's own numbers are not finite.
    """
    if not has_whole_weights(backbone) and not backbone.runs_in_lockstep:
        log.warning("the forward pass is not compared with the library's: this process has parts of the weights only")
        return
    generator, kind = torch.Generator().manual_seed(SEED), type(backbone).__name__
    device = backbone.token_embedding().weight.device
    with as_answering(backbone):
        pixels, sizes = backbone.invented_pictures(2, generator)
        pictures = ComparedPictures(backbone, pixels.to(device), None if sizes is None else sizes.to(device))
        is_compared = pictures.compare_tower()
        questions = invented_questions(backbone.shape.vocabulary_size, generator, device, backbone.never_answered)
        if not pictures.compare_assembly(questions.batch) and not is_compared:
            log.warning("the vision tower is not compared: %s offers no pass of its library", kind)
        if backbone.library_decoder(backbone.token_embedding()(questions.following)[None]) is None:
            log.warning("the decoder's passes are not compared: %s offers no pass of its library", kind)
            return
        if backbone.shape.runs_reference:
            log.warning("%s", notice_of_reference(backbone.shape))
            compare_assumptions(backbone, generator)
        with pictures.by_number():
            if rounding_may_grow(backbone):
                with without_textual_prompts(backbone):
                    compare_use(backbone, use, questions, pictures, shortcuts)
            compare_use(backbone, use, questions, pictures, shortcuts)


def has_whole_weights(backbone: Backbone) -> bool:
    """Tells whether this process has every tensor as it is, none of them shared out or without memory."""
    kinds = {type(module).__name__ for module in backbone.modules()}
    if any(kind.startswith(("FullyShardedDataParallel", "FSDP")) for kind in kinds):
        return False
    return all(
        not parameter.is_meta and parameter.numel() and not hasattr(parameter, "full_tensor")
        for parameter in backbone.parameters()
    )


@contextmanager
def as_answering(backbone: Backbone) -> Iterator[None]:
    """Switches off, as long as it lasts, dropout, recomputation and compiling, in what is attached too."""
    attachment = backbone.attachment
    parts = (attachment.visual_prompts, attachment.textual_prompts, attachment.key_value_prefix)
    attached = [part for part in (*parts, attachment.connector, attachment.lm_head, attachment.decoder_dropout) if part]
    modes = {module: module.training for root in (backbone, *attached) for module in root.modules()}
    backbone.release_hooks()
    try:
        for module in modes:
            module.training = False
        # The stance loads the compiler, which takes seconds: only where something is compiled.
        with torch.compiler.set_stance("force_eager") if backbone.compile_backend else nullcontext():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        backbone.release_hooks()


def invented_questions(
    vocabulary: int, generator: torch.Generator, device: torch.device, never: Sequence[int] = ()
) -> Questions:
    """Returns questions of random tokens that begin alike, up to the picture.

    Args:
        vocabulary: Rows of the token embedding.
        generator: Draws the tokens.
        device: Where they are put.
        never: Tokens that stand for pictures, of which none is drawn.
    """
    free = next(token for token in range(len(never) + 1) if token not in never)
    tokens = without(torch.randint(vocabulary, (len(LENGTHS), max(LENGTHS)), generator=generator), never, free)
    tokens[:, :PICTURE_PLACE] = tokens[0, :PICTURE_PLACE]
    tokens[:, PICTURE_PLACE] = IMAGE_TOKEN_ID
    tokens[2, PICTURE_PLACE + 1] = tokens[0, PICTURE_PLACE + 1]  # a word that two questions of a picture begin with
    places, lengths = torch.arange(max(LENGTHS)), torch.tensor(LENGTHS)[:, None]
    spans = torch.where(places >= lengths - 2, int(Span.ANSWER), int(Span.QUESTION)).masked_fill(places >= lengths, 0)
    spans[:, PICTURE_PLACE] = Span.IMAGE
    labels = torch.where(spans == Span.ANSWER, tokens, IGNORED_LABEL)
    names = [str(number) for number in range(len(LENGTHS))]
    pictures = torch.tensor(PICTURES_OF_QUESTIONS, dtype=torch.float32)
    batch = Batch(pictures, tokens, labels, spans, names, [("",)] * len(names)).to(device)
    order = sorted(range(len(names)), key=lambda number: PICTURES_OF_QUESTIONS[number])
    texts = [
        EncodedText(tokens[number, : LENGTHS[number]].numpy(), numpy.zeros(LENGTHS[number], numpy.int8))
        for number in order
    ]
    of_pictures = [[texts[0], texts[1]], [texts[2]]]
    named = [[["0"], ["2"]], [["1"]]]
    by_picture = picture_batch(torch.arange(2, dtype=torch.float32), of_pictures, named).to(device)
    following = without(torch.randint(vocabulary, (3,), generator=generator), never, free).to(device)
    return Questions(batch, by_picture, torch.tensor(order, device=device), following)


def without(tokens: Tensor, never: Sequence[int], free: int) -> Tensor:
    """Returns tokens with another one in the place of those that stand for pictures."""
    return tokens.masked_fill(torch.isin(tokens, torch.tensor(list(never), dtype=tokens.dtype)), free)


def continued(questions: Questions) -> Batch:
    """Returns the questions with the first two of the following tokens behind them, then again with the third."""
    batch, rows = questions.batch, []
    for behind in (questions.following[:2], questions.following[2:]):
        for ids, spans in zip(batch.input_ids, batch.spans, strict=True):
            rows.append(torch.cat([ids[spans != Span.PADDING], behind]))
    ids = pad_sequence(rows, batch_first=True)
    spans = pad_sequence([torch.full_like(row, int(Span.QUESTION)) for row in rows], batch_first=True)
    pictures = torch.cat([batch.pixel_values, batch.pixel_values])
    return replace(batch, pixel_values=pictures, input_ids=ids, labels=torch.full_like(ids, IGNORED_LABEL), spans=spans)


def compare_assumptions(backbone: Backbone, generator: torch.Generator) -> None:
    """Compares what the reference takes for granted of a model that no list names, by the library's own passes.

    It reads embeddings as it reads tokens, and rows behind a row change nothing: neither its mask nor its rotations
    depend on the length.
    """
    embedding = backbone.token_embedding()
    length = min(FURTHER_ROWS, backbone.shape.maximum_positions - backbone.attachment.rows_before_text())
    tokens = torch.randint(backbone.shape.vocabulary_size, (1, length), generator=generator)
    rows = embedding(tokens.to(embedding.weight.device))
    passes = library_passes(backbone, rows)
    compare = Comparison(backbone, limit_of(backbone, rows, None, passes)).refuse_difference
    few = max(1, length // 4)
    compare("a sequence that ends earlier", library_passes(backbone, rows[:, :few])[0], passes[0][:, :few])
    with without_textual_prompts(backbone):
        of_tokens = backbone.library_logits_of_tokens(tokens.to(rows.device))
        assert of_tokens is not None
        compare("reading embeddings in the place of tokens", library_passes(backbone, rows)[1], of_tokens)


@contextmanager
def without_textual_prompts(backbone: Backbone) -> Iterator[None]:
    """Leaves textual prompts out as long as it lasts, and the queries that are learned for their rows."""
    attachment = backbone.attachment
    backbone.attachment = replace(attachment, textual_prompts=None, query_rows=())
    try:
        yield
    finally:
        backbone.attachment = attachment


def compare_use(
    backbone: Backbone, use: Use, questions: Questions, pictures: ComparedPictures, shortcuts: Shortcuts
) -> None:
    """Compares the passes of training or of answering with what is attached."""
    if use == "training":
        compare_training(backbone, questions, pictures, shortcuts)
    else:
        compare_answering(backbone, questions, pictures)


def compare_training(
    backbone: Backbone, questions: Questions, pictures: ComparedPictures, shortcuts: Shortcuts
) -> None:
    """Compares the rows that predict a supervised token, and their logits."""
    embeddings, labels, _ = backbone.assemble(questions.batch)
    positions = pictures.positions_in(questions.batch)
    states, logits = library_passes(backbone, embeddings, positions=positions)
    compare = Comparison(backbone, limit_of(backbone, embeddings, positions, (states, logits))).refuse_difference
    predicts = labels[:, 1:] != IGNORED_LABEL
    found, _ = backbone.supervised_states(questions.batch, shortcuts)
    compare("the training step", found, states[:, :-1][predicts])
    compare("the training step (logits)", backbone.logits(found), logits[:, :-1][predicts])


def compare_answering(backbone: Backbone, questions: Questions, pictures: ComparedPictures) -> None:
    """Compares decoding token by token and candidate answers side by side, from questions alone and by picture."""
    batch, following = questions.batch, questions.following
    embeddings, _, spans = backbone.assemble(batch)
    lengths = (spans != Span.PADDING).sum(dim=1).tolist()
    tokens = backbone.token_embedding()(following)
    several = [
        torch.cat([embeddings[number, :length], behind])
        for behind in (tokens[:2], tokens[2:])
        for number, length in enumerate(lengths)
    ]
    rows, positions = pad_sequence(several, batch_first=True), pictures.positions_in(continued(questions))
    states, logits = library_passes(backbone, rows, positions=positions)
    compare = Comparison(backbone, limit_of(backbone, rows, positions, (states, logits))).refuse_difference
    numbers, ends = torch.arange(len(lengths), device=states.device), torch.tensor(lengths, device=states.device)
    steps = [logits[numbers, ends + step] for step in (-1, 0, 1)]
    beside = torch.stack([states[numbers, ends], states[numbers, ends + 1], states[len(lengths) + numbers, ends]], 1)
    depths = torch.tensor([0, 1, 0], device=states.device)
    tree_mask = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool, device=states.device)

    state = backbone.prefill(batch)
    compare("reading questions", state.logits, steps[0])
    for step in (1, 2):
        state = advance(backbone, state, following[step - 1].expand(len(lengths)))
        compare("decoding token by token", state.logits, steps[step])
    branches = branch(backbone, backbone.prefill(batch), following, depths, tree_mask)
    compare("candidate answers side by side", branches, beside)
    if not backbone.shares_prefix():
        return
    order, by_picture = questions.order, questions.by_picture
    shared = prefill_pictures(backbone, by_picture)
    compare("reading questions by picture", shared.logits, steps[0][order])
    going_on = torch.tensor([0, 2], device=order.device)
    for step, kept in ((1, going_on), (2, torch.arange(2, device=order.device))):
        shared = advance(backbone, shared, following[step - 1].expand(2), kept)
        compare("decoding by picture", shared.logits, steps[step][order[going_on]])
    branches = branch(backbone, prefill_pictures(backbone, by_picture), following, depths, tree_mask)
    compare("candidate answers by picture", branches, beside[order])


def library_passes(
    backbone: Backbone,
    embeddings: Tensor,
    attention: Literal["eager"] | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns hidden states and logits as the library makes them, of a backbone that offers its library's pass."""
    # A backbone whose rows have no positions of their own need not know of any.
    placed = {} if positions is None else {"positions": positions}
    passes = backbone.library_decoder(embeddings, attention, **placed)
    assert passes is not None
    return passes


def limit_of(backbone: Backbone, embeddings: Tensor, positions: Tensor | None, numbers: tuple[Tensor, Tensor]) -> float:
    """Returns by how much our numbers may differ from the library's.

    Args:
        backbone: The backbone.
        embeddings: What the library was given.
        positions: As ``library_passes`` takes them.
        numbers: Its hidden states and logits.
    """
    smallest, largest = limits_of(backbone)
    if rounding_may_grow(backbone):
        largest = LARGEST_BEHIND_PROMPTS
    others = [library_passes(backbone, embeddings, "eager", positions)]
    if rounding_may_grow(backbone):
        generator = torch.Generator().manual_seed(SEED)
        for _ in range(DISTURBANCES):
            rows = disturbed_by_rounding(embeddings, generator)
            others.append(library_passes(backbone, rows, positions=positions))
    noise = [difference(*pair) for other in others for pair in zip(other, numbers, strict=True)]
    return min(max(smallest, NOISE * max(noise)), largest)
