"""Where the rows of images go between the rows of text."""

import pytest
import torch

from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.splice import splice_order
from lightning_m2pt.testing.random_backbone import PATCHES, random_backbone, random_batch


def spliced(tokens: list[str], image_rows: int) -> list[str]:
    """The reference: lists put together in order."""
    rows, images = [], 0
    for token in tokens:
        rows += [f"{images}.{number}" for number in range(image_rows)] if token == "*" else [token]
        images += token == "*"
    return rows


@pytest.mark.parametrize("image_rows", [1, 2, 5])
@pytest.mark.parametrize(
    "rows", [["*abc", "ab*c"], ["abc*", "*abc"], ["*a*b", "ab**", "a**b"], ["***", "***"]], ids=str
)
def test_the_order_is_that_of_lists(rows, image_rows):
    images = rows[0].count("*")
    ids = torch.tensor([[IMAGE_TOKEN_ID if token == "*" else ord(token) for token in row] for row in rows])
    order = splice_order(ids, image_rows, images)
    for row, positions in zip(rows, order.tolist(), strict=True):
        source = [*row, *(f"{image}.{number}" for image in range(images) for number in range(image_rows))]
        assert [source[position] for position in positions] == spliced(list(row), image_rows)


def test_another_number_of_placeholders_is_refused():
    with pytest.raises(ValueError, match="exactly 2"):
        splice_order(torch.tensor([[IMAGE_TOKEN_ID, 5]]), 3, 2)


def test_a_conversation_with_two_pictures_sees_both(tmp_path):
    backbone, batch = random_backbone(tmp_path), random_batch(size=2, answer=1)
    ids = torch.cat([batch.input_ids, batch.input_ids], dim=1)
    spans = torch.cat([batch.spans, batch.spans], dim=1)
    pixels = torch.cat([batch.pixel_values[[0, 1]], batch.pixel_values[[1, 0]]])
    both = Batch(pixels, ids, torch.full_like(ids, -100), spans, ["a", "b"], [("",), ("",)])
    output = backbone(both)
    assert output.hidden_states.shape[1] == ids.shape[1] - 2 + 2 * PATCHES
    assert (output.spans == Span.PATCH).sum(dim=1).tolist() == [2 * PATCHES] * 2
    changed = Batch(pixels.clone(), ids, both.labels, spans, ["a", "b"], [("",), ("",)])
    changed.pixel_values[1] += 1.0  # the second picture of the first sample
    difference = (backbone(changed).hidden_states - output.hidden_states).abs().amax(dim=2)
    assert float(difference[1].max()) == 0
    second = int((output.spans[0] == Span.PATCH).nonzero()[PATCHES])
    assert float(difference[0, :second].max()) == 0
    assert float(difference[0, second:].min()) > 0
