"""Rows of one conversation that are kept, so that what comes next in it runs its own rows alone.

A second question about a picture, and a chat's next turn, begin with the tokens of what was read before. The keys and
values of that beginning stay; only what differs is run behind them. A causal decoder gives the same numbers as for the
whole: every row is at the position, and under the window, that it would have had. The first reading is the reference,
``Backbone.prefill``, whatever the method and its path are.

Nothing is changed in place: whoever holds an earlier state can go on from it, whatever was read since.
"""

import weakref
from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor, nn

from lightning_m2pt.answering.decoding_steps import advance, append_to_pictures
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.model_output import DecodingState
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch
from lightning_m2pt.inputs.picture_batch import SHARED_SEGMENT
from lightning_m2pt.prompts.past_rows import PastRows
from lightning_m2pt.prompts.rotary_axes import behind
from lightning_m2pt.prompts.rows_run_again import RowsRunAgain


@dataclass(frozen=True)
class KeptRows:
    """Where one conversation stands.

    Attributes:
        tokens: (T,) int64 the tokens that were read, and those of answers that were fed since; on the CPU.
        pixel_values: As in ``Batch``, of the conversation's pictures.
        picture_sizes: As in ``Batch``.
        state: What the decoder keeps of them, and the logits behind the last.
        attached: What was attached when they ran.
    """

    tokens: numpy.ndarray
    pixel_values: Tensor
    picture_sizes: Tensor | None
    state: DecodingState
    attached: "Attached"

    def are_of(self, backbone: Backbone) -> bool:
        """Tells whether what is attached is what these rows were run with.

        The same method may have been taken away and attached again. Trained tensors that were overwritten in place
        are not seen.
        """
        return self.attached == attached_to(backbone)


@dataclass(frozen=True)
class Attached:
    """What decides a backbone's rows beside its own weights.

    Attributes:
        method: The method, if one is attached.
        objects: What its attachment holds: modules and tensors by their identity, settings by their value.
    """

    method: "weakref.ref[nn.Module] | None"
    objects: tuple[object, ...]


def attached_to(backbone: Backbone) -> Attached:
    """Returns what is attached now."""
    values = vars(backbone.attachment).values()
    objects = tuple(tuple(map(id, each)) if isinstance(each, list | tuple) else each for each in values)
    return Attached(backbone.attached_method, objects)


@torch.inference_mode()
def read_conversation(backbone: Backbone, batch: Batch, kept: KeptRows | None = None) -> KeptRows:
    """Reads one conversation, as far as it is not among rows that are kept already.

    The whole is run again where a picture is another one, or words before the last picture are, and where something
    else is attached now. Learned rows, keys, values and queries stand in front of all words: they always stay.

    Args:
        backbone: A loaded backbone, with or without an attached method.
        batch: One conversation without its last answer, on any device and without padding.
        kept: Where this or another conversation stood.

    Returns:
        Where it stands now: with the logits of its next token.

    Raises:
        BadInputError: If it has more rows than the language model has positions.
        ValueError: If it is not one conversation.
    """
    if len(batch) != 1:
        raise ValueError(f"{len(batch)} conversations, where rows of one are kept")
    tokens = batch.input_ids[0].cpu().numpy()
    number = 0 if kept is None else tokens_that_stay(backbone, batch, tokens, kept)
    if not number or kept is None:
        state = backbone.prefill(batch.to(backbone.token_embedding().weight.device))
    else:
        state = read_behind(backbone, kept, number, tokens[number:])
    return KeptRows(tokens, batch.pixel_values, batch.picture_sizes, state, attached_to(backbone))


@torch.inference_mode()
def with_token(backbone: Backbone, kept: KeptRows, token: int) -> KeptRows:
    """Feeds one token of an answer.

    Raises:
        BadInputError: If something else was attached since, or there is no position left.
    """
    if not kept.are_of(backbone):
        raise BadInputError(
            "the model was changed while it answered",
            where="model",
            expected="an answer that is read to its end, or closed, before another adapter is used",
        )
    state = advance(backbone, kept.state, torch.tensor([token], device=kept.state.logits.device))
    return replace(kept, tokens=numpy.append(kept.tokens, token), state=state)


def tokens_that_stay(backbone: Backbone, batch: Batch, tokens: numpy.ndarray, kept: KeptRows) -> int:
    """Returns how many of a conversation's first tokens need not be run again: never its last; 0: all have to."""
    if not kept.are_of(backbone) or not same_pictures(batch, kept):
        return 0
    most = min(len(tokens) - 1, len(kept.tokens))
    differing = numpy.flatnonzero(tokens[:most] != kept.tokens[:most])
    number = int(differing[0]) if len(differing) else most
    marks = (kept.tokens == IMAGE_TOKEN_ID, tokens == IMAGE_TOKEN_ID)
    if any(of_one[number:].any() for of_one in marks):  # the rows of a picture are not counted here: it is run again
        return 0
    return number


def same_pictures(batch: Batch, kept: KeptRows) -> bool:
    """Tells whether a conversation shows the same pictures."""
    pairs = (batch.pixel_values, kept.pixel_values), (batch.picture_sizes, kept.picture_sizes)
    return all(
        one is other or (one is not None and other is not None and torch.equal(one.cpu(), other.cpu()))
        for one, other in pairs
    )


def read_behind(backbone: Backbone, kept: KeptRows, number: int, tokens: numpy.ndarray) -> DecodingState:
    """Runs tokens behind the first ``number`` of those that are kept, which hold all pictures."""
    past = first_rows(kept.state.past, kept.state.past.length - (len(kept.tokens) - number))
    embedding = backbone.token_embedding()
    device = embedding.weight.device
    new = torch.from_numpy(tokens).to(device)[None]
    columns = torch.arange(new.shape[1], device=device)
    positions = behind(past.positions[:, -1:]) + columns
    states, past, segments = append_to_pictures(
        backbone,
        past,
        torch.full((1, past.length), SHARED_SEGMENT, device=device),
        embedding(new),
        torch.full_like(new, SHARED_SEGMENT),
        positions,
        (columns[:, None] >= columns)[None],
        wanted=columns[None, -1:],
    )
    zero = torch.zeros(1, dtype=torch.long, device=device)
    return DecodingState(past, segments, zero, zero, positions[:, -1] + 1, backbone.logits(states[:, 0]))


def first_rows(past: PastRows, number: int) -> PastRows:
    """Returns the first of past rows, learned ones in front of them included."""
    positions = past.positions[:, :number]
    if isinstance(past, RowsRunAgain):
        return RowsRunAgain((), positions, embeddings=past.embeddings[:, :number])
    layers = [(keys[:, :, :number], values[:, :, :number]) for keys, values in past.layers]
    return PastRows(layers, positions, past.placeholders)
