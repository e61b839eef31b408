"""How many positions a language model has left for a text, when prompts and a picture have taken theirs.

Behind its last position a model has never learned anything: it would compute numbers that mean nothing.
"""

from lightning_m2pt.backbones.shape import BackboneShape
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.picture_layout import ONE_RUN, RunRows
from lightning_m2pt.methods.base import Method


def run_rows(shape: BackboneShape, method: Method) -> RunRows:
    """Returns what a picture's runs of rows become in the language model."""
    return RunRows(shape.connected_patches, method.rows_beside_patches())


def rows_of_image(shape: BackboneShape, method: Method) -> int:
    """Returns how many rows a picture of one run becomes in the language model; no picture becomes fewer."""
    return run_rows(shape, method).of(ONE_RUN)


def room_for_rows(shape: BackboneShape, method: Method) -> int:
    """Returns how many rows of pictures and text the language model takes behind the learned ones."""
    return shape.maximum_positions - method.rows_before_text()


def refuse_without_room(shape: BackboneShape, method: Method) -> None:
    """Refuses prompts that leave no position for a word beside one picture; known before anything is built.

    Raises:
        BadInputError: If learned rows and the picture's rows take all positions.
    """
    learned, image = method.rows_before_text(), rows_of_image(shape, method)
    if learned + image >= shape.maximum_positions:
        raise BadInputError(
            f"{learned:,} learned rows before the text and {image:,} of a picture leave no room for a word",
            where="model.method",
            expected=f"fewer than {shape.maximum_positions:,} together, its max_position_embeddings: "
            f"{shape.end_of_positions}",
            hint="take shorter prompts, or a backbone with more positions",
        )
