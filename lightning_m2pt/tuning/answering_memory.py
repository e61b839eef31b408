"""How much memory answering takes, by arithmetic, before any weight is loaded."""

from lightning_m2pt.backbones.shape import BackboneShape

FLOAT32 = 4


def answering_bytes(shape: BackboneShape, weights: int, size: int, samples: int, rows: int, patches: int) -> int:
    """Estimates what answering takes of one device.

    Besides the weights these are the keys and values of every row in every layer, what the widest layer holds at a
    time while the questions are read, and the logits of each answer's next token. Flash or memory-efficient attention
    is assumed: the square of a question's length is never held.

    Args:
        shape: The backbone's sizes.
        weights: Bytes of the frozen model.
        size: Bytes of a number in the type that is computed in.
        samples: Questions that are answered at once.
        rows: Rows of the longest question with its pictures, prompts and answer.
        patches: Rows of the tower for a question, over all tiles of its pictures.
    """
    past = samples * rows * shape.text_layers * 2 * shape.text_key_value_heads * shape.text_head_width * size
    attended = shape.text_heads * shape.text_head_width
    text_layer = samples * rows * size * (2 * shape.text_width + 2 * attended + 3 * shape.text_mlp_width)
    vision_layer = samples * patches * size * (6 * shape.vision_width + 2 * shape.vision_mlp_width)
    logits = samples * shape.vocabulary_size * (size + FLOAT32)
    return weights + past + max(text_layer, vision_layer) + logits
