"""Floating-point operations of one training step, by formula: as published, and with every exact saving.

Two operations a multiply-add. Frozen weights get no gradient, so a linear layer costs as much backward as forward; a
trained one twice as much. Fused attention computes its scores again: five products backward for two forward; eager
attention four. Fused causal attention costs the pairs that are visible, eager attention all. Rows the loss cannot reach
cost nothing in ``ideal_step``. The patch embedding is frozen and sees pixels: forward only.
"""

from dataclasses import dataclass

from benchmarks.training.sizes import TrainingSize

FUSED_BACKWARD, EAGER_BACKWARD = 2.5, 2.0


@dataclass(frozen=True)
class Formula:
    """Operations of parts of a step.

    Args:
        size: Sizes of model, prompts and batch.
    """

    size: TrainingSize

    def patch_embedding(self) -> int:
        """Returns the convolution over one picture."""
        size = self.size
        return 2 * size.patches * 3 * size.patch_size**2 * size.vision_width

    def vision_linear(self, rows: int) -> int:
        """Returns one block's linear layers: queries, keys, values, output and an MLP of four times the width."""
        return 2 * rows * 12 * self.size.vision_width**2

    def vision_attention(self, queries: int, keys: int) -> int:
        """Returns one block's two products; everybody sees everybody."""
        return 4 * queries * keys * self.size.vision_width

    def text_linear(self, rows: int) -> int:
        """Returns one decoder layer's linear layers: four of attention, three of the gated MLP."""
        return 2 * rows * (4 * self.size.text_width**2 + 3 * self.size.text_width * self.size.text_hidden)

    def text_attention(self, pairs: int) -> int:
        """Returns one decoder layer's two products over pairs of rows."""
        return 4 * pairs * self.size.text_width

    def keys_and_values(self, rows: int, width: int) -> int:
        """Returns the projection of rows to keys and values."""
        return 2 * rows * 2 * width**2

    def projector(self, rows: int) -> int:
        """Returns the trained projector: forward, and gradients of input and weight."""
        return 3 * 2 * rows * self.size.vision_width * self.size.text_width

    def head(self, rows: int, trained: bool) -> int:
        """Returns the head, forward and backward."""
        return (3 if trained else 2) * 2 * rows * self.size.text_width * self.size.vocabulary


def visible_pairs(queries: int, keys: int) -> int:
    """Returns how many pairs a causal mask leaves of the last ``queries`` of ``keys`` rows with all of them."""
    return queries * keys - queries * (queries - 1) // 2


def published_step(size: TrainingSize, *, recompute: bool, fused: bool) -> float:
    """Returns a step of the published code's form.

    Args:
        size: Sizes.
        recompute: Decoder layers are computed again in the backward pass, up to what the backward pass needs: the
            MLP's last product is not.
        fused: Fused attention in the place of eager.
    """
    formula, backward = Formula(size), FUSED_BACKWARD if fused else EAGER_BACKWARD
    vision_rows = size.visual_length + 1 + size.patches
    text_rows = size.textual_length + vision_rows - 1 + size.text_tokens
    block, pairs = formula.vision_linear(vision_rows), formula.vision_attention(vision_rows, vision_rows)
    used = size.vision_layers - 1
    vision = formula.patch_embedding() + size.vision_layers * (block + pairs) + used * (block + backward * pairs)
    computed = visible_pairs(text_rows, text_rows) if fused else text_rows**2
    layer, pairs = formula.text_linear(text_rows), formula.text_attention(computed)
    once_more = layer - 2 * text_rows * size.text_width * size.text_hidden + pairs if recompute else 0
    text = size.text_layers * (2 * layer + (1 + backward) * pairs + once_more)
    head = formula.head(text_rows, trained=True)
    return size.batch * (vision + formula.projector(vision_rows - 1) + text + head)


def ideal_step(size: TrainingSize, *, trained_head: bool) -> float:
    """Returns a step with the published slice and every exact saving.

    Args:
        size: Sizes; every sample has ``text_tokens`` tokens, the last of which predicts nothing.
        trained_head: Whether the head gets a gradient.
    """
    formula, both = Formula(size), 1 + FUSED_BACKWARD
    raw_prompts = size.visual_length - 1
    shared = size.system_tokens + raw_prompts
    own = 1 + size.patches + size.text_tokens - size.system_tokens - 1
    text = ideal_text(formula, shared, own) + formula.head(size.batch * size.supervised, trained_head)
    states, prompts = size.patches + 1, size.visual_length
    blocks = size.vision_layers - 1
    pairs = formula.vision_attention(states, prompts + states)
    # Pixels need no gradient: the first block's queries, keys and values of the picture have none either.
    linear = 2 * blocks * formula.vision_linear(states) - 2 * states * 3 * size.vision_width**2
    once = 2 * blocks * formula.keys_and_values(prompts, size.vision_width)
    vision = size.batch * (formula.patch_embedding() + linear + both * blocks * pairs) + once
    return vision + formula.projector(size.batch * states + raw_prompts) + text


def ideal_text(formula: Formula, shared: int, own: int) -> float:
    """Returns the decoder's part, head excluded.

    Args:
        formula: Of the size.
        shared: Rows that every sample begins with.
        own: Rows of each sample after them that the loss depends on.
    """
    size, both = formula.size, 1 + FUSED_BACKWARD
    keys = size.textual_length + shared + own
    rows = size.batch * own + shared
    prompts = 2 * size.text_layers * formula.keys_and_values(size.textual_length, size.text_width)
    whole = 2 * formula.text_linear(rows)
    whole += both * formula.text_attention(visible_pairs(shared, size.textual_length + shared))
    whole += both * size.batch * formula.text_attention(visible_pairs(own, keys))
    supervised = size.batch * size.supervised
    keys_only = formula.keys_and_values(1, size.text_width)
    last = 2 * (rows * keys_only + supervised * (formula.text_linear(1) - keys_only))
    last += both * size.batch * formula.text_attention(visible_pairs(size.supervised, keys))
    return prompts + (size.text_layers - 1) * whole + last
