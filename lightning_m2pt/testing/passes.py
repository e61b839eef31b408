"""What holds for every backbone with whatever is attached: decoding, candidates, padding, the library's own pass."""

from dataclasses import replace

import torch
from torch import Tensor

from lightning_m2pt.answering.decoding_steps import advance
from lightning_m2pt.answering.likelihood import Candidates, candidate_log_probabilities
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.testing.claims import claim, claim_accepted, claim_close
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.self_test import refuse_unless_like_library

LIMIT = 1e-5
"""In float64 the library's norms and rotary tables, and trained tensors, still round as float32 does."""
DECODED = 3
ANSWER_TOKENS = 3
CANDIDATES = Candidates(("a", "b", "c", "d"), ((5, 0), (6, 7, 8, 0), (6, 7, 9, 0), (10,)))


def batch_for(backbone: Backbone, *, answers: bool = True) -> Batch:
    """Returns questions of differing lengths that hold every token of a small vocabulary, in the backbone's type.

    Args:
        backbone: Its shape and type are followed.
        answers: Whether answers follow the questions.
    """
    size, dtype = backbone.shape.image_size, getattr(torch, backbone.dtype_name)
    vocabulary, samples = min(backbone.shape.vocabulary_size, 200), 4
    generator = torch.Generator().manual_seed(0)
    width = -(-vocabulary // samples)
    questions = torch.randperm(samples * width, generator=generator).remainder(vocabulary).view(samples, width)
    length = 2 + width + (ANSWER_TOKENS if answers else 0)
    ids = torch.randint(vocabulary, (samples, length), generator=generator)
    ids[:, 0], ids[:, 1], ids[:, 2 : 2 + width] = ids[0, 0], IMAGE_TOKEN_ID, questions
    spans = torch.full_like(ids, int(Span.QUESTION))
    spans[:, 2 + width :] = int(Span.ANSWER)
    spans[:, 1] = int(Span.IMAGE)
    spans[-1, -1] = int(Span.PADDING)
    labels = torch.where(spans == Span.ANSWER, ids, IGNORED_LABEL)
    pixels = torch.randn(samples, 3, size, size, generator=generator, dtype=torch.float64).to(dtype)
    names = [str(number) for number in range(samples)]
    return Batch(pixels, ids, labels, spans, names, [("task",)] * samples, int((labels != IGNORED_LABEL).sum()))


@torch.no_grad()
def logits_of(backbone: Backbone, batch: Batch) -> Tensor:
    """Returns (B, S, V) of whole sequences."""
    return backbone.logits(backbone(batch).hidden_states)


def only(batch: Batch, sample: int, cut: int = 0) -> Batch:
    """Returns one sample of a batch, without its last ``cut`` tokens."""
    length = batch.input_ids.shape[1] - cut
    columns = {name: getattr(batch, name)[sample : sample + 1, :length] for name in ("input_ids", "labels", "spans")}
    return replace(
        batch,
        pixel_values=batch.pixel_values[sample : sample + 1],
        sample_ids=batch.sample_ids[sample : sample + 1],
        tasks=batch.tasks[sample : sample + 1],
        **columns,
    )


def check_samples_do_not_meet(backbone: Backbone, name: str) -> None:
    """A sample's numbers depend neither on the batch around it nor on padding behind it (float64)."""
    batch = batch_for(backbone)
    together = logits_of(backbone, batch)
    for sample in (0, len(batch) - 1):
        padded = int((batch.spans[sample] == Span.PADDING).sum())
        alone = logits_of(backbone, only(batch, sample, padded))[0]
        what = "padding" if padded else "the other samples of its batch"
        claim_close(together[sample, : len(alone)], alone, LIMIT, f"{name}: a sample's logits depend on {what}")


@torch.no_grad()
def check_decoding(backbone: Backbone, name: str) -> None:
    """Decoding with the cache gives each token's logits as the whole sequence does (float64)."""
    batch = batch_for(backbone, answers=False)
    embeddings, _, spans = backbone.assemble(batch)
    state = backbone.prefill(batch)
    rows = [embeddings[sample, : int((spans[sample] > 0).sum())] for sample in range(len(batch))]
    for step in range(DECODED):
        whole = torch.stack([backbone.logits(backbone.decode_rows(row[None]))[0, -1] for row in rows])
        where = "prefill" if step == 0 else f"advance, token {step}"
        claim_close(state.logits, whole, LIMIT, f"{name}: {where} does not give the whole sequence's logits")
        tokens = whole.argmax(dim=-1)
        embedded = backbone.token_embedding()(tokens)
        rows = [torch.cat([row, embedded[sample : sample + 1]]) for sample, row in enumerate(rows)]
        state = advance(backbone, state, tokens)


@torch.no_grad()
def check_candidates(backbone: Backbone, name: str) -> None:
    """Candidate answers side by side are as likely as each by itself (float64)."""
    batch = batch_for(backbone, answers=False)
    found = candidate_log_probabilities(backbone, batch, CANDIDATES)
    embeddings, _, spans = backbone.assemble(batch)
    for sample in (0, len(batch) - 1):
        question = embeddings[sample, : int((spans[sample] > 0).sum())]
        for number, ids in enumerate(CANDIDATES.token_ids):
            tokens = torch.tensor(ids, device=question.device)
            rows = torch.cat([question, backbone.token_embedding()(tokens[:-1])])[None]
            logits = backbone.logits(backbone.decode_rows(rows))[0, -len(ids) :]
            alone = logits.log_softmax(dim=-1)[range(len(ids)), tokens].sum()
            sentence = f"{name}: branch gives candidate answers another log-probability than each has by itself"
            claim_close(found[sample, number], alone, LIMIT, sentence)


@torch.no_grad()
def check_numbers_of_pictures(backbone: Backbone, name: str) -> None:
    """Samples with none, one and two pictures are in one batch what each is alone; their rows are known before."""
    one_each = batch_for(backbone)
    mixed = replace(one_each, input_ids=one_each.input_ids.clone(), spans=one_each.spans.clone())
    mixed.input_ids[1, 1], mixed.spans[1, 1] = 0, int(Span.QUESTION)
    mixed.input_ids[2, 3], mixed.spans[2, 3] = IMAGE_TOKEN_ID, int(Span.IMAGE)
    counts = backbone.connected_rows(mixed.pixel_values).counts
    known = backbone.rows_of_runs(mixed.pixel_values)
    claim(known == counts, f"{name}: rows_of_runs says {known}, and connected_rows gives {counts}")
    together = logits_of(backbone, mixed)
    for sample, pictures in enumerate((slice(0, 1), slice(0, 0), slice(1, 3), slice(3, 4))):
        padded = int((mixed.spans[sample] == Span.PADDING).sum())
        alone = replace(only(mixed, sample, padded), pixel_values=mixed.pixel_values[pictures])
        found = logits_of(backbone, alone)[0]
        what = f"a sample with {pictures.stop - pictures.start} pictures is another one beside others"
        claim_close(together[sample, : len(found)], found, LIMIT, f"{name}: {what}")


def check_like_library(backbone: Backbone, name: str) -> None:
    """Every pass of training and answering is the libraries' own, in the backbone's type."""
    with claim_accepted(f"{name}, {backbone.dtype_name}"):
        refuse_unless_like_library(backbone, "training", Shortcuts())
        refuse_unless_like_library(backbone, "training", EVERY_ROW)
        refuse_unless_like_library(backbone, "answering", Shortcuts())


@torch.no_grad()
def check_both_paths(backbone: Backbone, name: str) -> None:
    """Prompt rows in the sequence (the reference) and prompt keys computed once give the same numbers (float64)."""
    batch, attached = batch_for(backbone), backbone.attachment
    chosen = logits_of(backbone, batch)
    losses = supervised_rows(backbone, batch, Shortcuts()).losses
    backbone.release_hooks()
    backbone.attachment = replace(attached, path="token")
    try:
        reference = logits_of(backbone, batch)
        reference_losses = supervised_rows(backbone, batch, EVERY_ROW).losses
    finally:
        backbone.release_hooks()
        backbone.attachment = attached
    claim_close(chosen, reference, LIMIT, f"{name}: the prefix path does not give the token path's logits")
    claim_close(losses, reference_losses, LIMIT, f"{name}: the step's shortcuts change the losses")
