"""Where the rows of images go between the rows of text."""

import pytest
import torch

from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.splice import splice
from lightning_m2pt.testing.random_backbone import PATCHES, random_backbone, random_batch

RUNS = [1, 3, 2, 5, 1, 4]
"""Rows of each run, in the order of the placeholders."""


def spliced(samples: list[str], runs: list[int]) -> list[str]:
    """The reference: lists put together in order, run after run; ``_`` is padding."""
    of_run = iter(range(len(runs)))
    rows = []
    for sample in samples:
        row = []
        for token in sample:
            run = next(of_run) if token == "*" else None
            row += [token] if run is None else [f"{run}.{number}" for number in range(runs[run])]
        rows.append(row)
    longest = max(len([each for each in row if each != "_"]) for row in rows)
    return [(row + ["_"] * longest)[:longest] for row in rows]


@pytest.mark.parametrize(
    "samples",
    [
        ["*abc", "ab*c"],
        ["abc*", "*abc"],
        ["*a*b", "ab**", "a**b"],
        ["***", "***"],
        ["abcdef", "*a____"],
        ["a_____", "b**c__", "abcdef"],
        ["ab", "cd"],
        ["*a*", "*__", "**_"],
        ["a*___", "b____"],
    ],
    ids=str,
)
def test_the_order_is_that_of_lists(samples):
    ids = torch.tensor([[IMAGE_TOKEN_ID if token == "*" else ord(token) for token in sample] for sample in samples])
    runs = RUNS[: int((ids == IMAGE_TOKEN_ID).sum())]
    laid = splice(ids, ids != ord("_"), runs)
    named = [f"{run}.{number}" for run, count in enumerate(runs) for number in range(count)]
    source = [*"".join(samples), "_", *named]
    found = [[source[position] for position in row] for row in laid.order.tolist()]
    assert found == spliced(samples, runs)
    for row, begins, sample in zip(found, laid.begins.tolist(), samples, strict=True):
        for place, token in zip(begins, sample, strict=True):
            if token != "_":
                assert row[place] == token or (token == "*" and row[place].endswith(".0"))


@pytest.mark.parametrize("runs", [[3], [3, 3, 3], [3, 0]], ids=str)
def test_another_number_of_placeholders_is_refused(runs):
    with pytest.raises(ValueError, match="2 image placeholders"):
        splice(torch.tensor([[IMAGE_TOKEN_ID, 5, IMAGE_TOKEN_ID]]), torch.ones(1, 3, dtype=torch.bool), runs)


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


def sample_of(tokens: list[int], pixels: torch.Tensor) -> Batch:
    """One sample alone; its last token is its answer."""
    ids = torch.tensor([tokens])
    spans = torch.where(ids == IMAGE_TOKEN_ID, int(Span.IMAGE), int(Span.QUESTION))
    spans[0, -1] = Span.ANSWER
    return Batch(pixels, ids, torch.where(spans == Span.ANSWER, ids, -100), spans, ["alone"], [("",)])


def joined(samples: list[Batch]) -> Batch:
    """Samples of different lengths as one batch."""
    longest = max(sample.input_ids.shape[1] for sample in samples)

    def together(name: str, value: int) -> torch.Tensor:
        rows = [getattr(sample, name)[0] for sample in samples]
        return torch.stack([torch.nn.functional.pad(row, (0, longest - len(row)), value=value) for row in rows])

    names = [str(number) for number in range(len(samples))]
    pixels = torch.cat([sample.pixel_values for sample in samples])
    padded = together("input_ids", 0), together("labels", -100), together("spans", Span.PADDING)
    return Batch(pixels, *padded, names, [("",)] * len(samples))


def test_samples_with_none_one_and_two_pictures_are_those_of_each_alone(tmp_path):
    dtype = torch.float64
    backbone, pixels = random_backbone(tmp_path, dtype), random_batch(size=3, dtype=dtype).pixel_values
    samples = [
        sample_of([5, 6, 7, 8, 9, 10, 11], pixels[:0]),
        sample_of([5, IMAGE_TOKEN_ID, 9, IMAGE_TOKEN_ID, 4], pixels[:2]),
        sample_of([IMAGE_TOKEN_ID, 4], pixels[2:]),
    ]
    output = backbone(joined(samples))
    assert output.hidden_states.shape[1] == 3 + 2 * PATCHES
    for number, sample in enumerate(samples):
        alone = backbone(sample)
        length = alone.hidden_states.shape[1]
        torch.testing.assert_close(output.hidden_states[number, :length], alone.hidden_states[0], rtol=0, atol=1e-7)
        assert output.spans[number].tolist() == [*alone.spans[0].tolist()] + [0] * (output.spans.shape[1] - length)
        assert output.labels[number, :length].tolist() == alone.labels[0].tolist()
        assert (output.labels[number, length:] == -100).all()
