"""Speed without clocks: equal losses, bytes held and operations of the training step against what was recorded."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.report import speed as speed_report
from benchmarks.training import own_step
from benchmarks.training import speed as training_speed
from benchmarks.training.flop_formula import ideal_step, published_step, visible_pairs
from benchmarks.training.inputs import batch_of
from benchmarks.training.peer import Peer
from benchmarks.training.peers import CHARITABLE, EAGER, PUBLISHED, UnequalLossesError, cell_of, require_equal
from benchmarks.training.sizes import CPU_CELLS, GATE, VICUNA_7B
from benchmarks.training.step_counters import SavedBytes, counts_of, visible_share
from benchmarks.training.steps import TrainingSteps
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID
from tests.support.small_experiment import small_words

RECORDED = json.loads(training_speed.GATES.read_text())
RUNGS = [rung.name for rung in own_step.RUNGS]
WITHIN = 0.02
"""How far the step with all shortcuts may be from the formula's ideal."""


@pytest.fixture(scope="module")
def cell():
    return cell_of(GATE)


@pytest.fixture(scope="module")
def counts(cell):
    return cell.checked_counts()


def peer_of(cell, name):
    return next(peer for peer in cell.peers if peer.name == name)


def test_peers_have_one_loss(cell, counts) -> None:
    assert set(counts) == {peer.name for peer in cell.peers}
    assert len(cell.frozen_losses) == 4
    assert {PUBLISHED, EAGER, CHARITABLE, *RUNGS} == {peer.name for peer in cell.same_loss}


def test_nothing_is_timed_when_losses_differ() -> None:
    require_equal({"first": 2.0, "second": 2.00001})
    with pytest.raises(UnequalLossesError, match="second"):
        require_equal({"first": 2.0, "second": 2.0001})
    with pytest.raises(UnequalLossesError, match="second"):
        require_equal({"first": 2.0, "second": float("nan")})


@pytest.mark.parametrize("name", [EAGER, CHARITABLE, *RUNGS])
def test_first_gradients_are_those_of_the_published_step(cell, name) -> None:
    found = []
    for peer in (peer_of(cell, PUBLISHED), peer_of(cell, name)):
        peer.loss().backward()
        # Visual prompts, textual prompts, projector, head: by shape, then by order.
        gradients = sorted((parameter.grad for parameter in peer.trained), key=lambda gradient: tuple(gradient.shape))
        found.append([gradient.clone() for gradient in gradients])
        peer.forget_gradients()
    for expected, gradient in zip(*found, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_the_numbers_were_recorded_at_this_size() -> None:
    assert RECORDED["size"] == asdict(GATE)
    assert list(RECORDED["rungs"]) == RUNGS


@pytest.mark.parametrize("name", RUNGS)
def test_no_more_is_held_or_computed_than_was_recorded(counts, name) -> None:
    counted, recorded = counts[name], RECORDED["rungs"][name]
    assert 0 < counted.saved_bytes <= recorded["saved_bytes"]
    assert 0 < counted.flops <= recorded["flops"]


def test_all_shortcuts_reach_the_formulas_ideal(counts) -> None:
    assert counts[RUNGS[-1]].flops == pytest.approx(ideal_step(GATE, trained_head=True), rel=WITHIN)


@pytest.mark.parametrize(
    ("name", "recompute", "fused"), [(PUBLISHED, True, False), (EAGER, False, False), (CHARITABLE, False, True)]
)
def test_the_published_step_costs_what_its_formula_says(counts, name, recompute, fused) -> None:
    expected = published_step(GATE, recompute=recompute, fused=fused)
    assert counts[name].flops == pytest.approx(expected, rel=1e-3)


def test_causal_pairs_by_counting() -> None:
    pairs = sum(key <= 4 + query for query in range(5) for key in range(9))
    assert visible_pairs(5, 9) == pairs == 45 - 10
    assert visible_share((1, 1, 5, 4), (1, 1, 5, 4), is_causal=True) == 15 / 25
    assert visible_share((1, 1, 5, 4), (1, 1, 9, 4), is_causal=False) == 1


def test_every_storage_is_counted_once_and_weights_never() -> None:
    layer = nn.Linear(3, 5).requires_grad_(False)
    rows = torch.ones(2, 3, requires_grad=True)
    books = SavedBytes([layer])
    with saved_tensors_hooks(books.pack, books.unpack):
        powers = rows.exp()  # saved: (2, 3) float32
        loss = layer(powers * powers).sum()  # the same storage, twice; and a weight
    assert sum(books.sizes.values()) == 2 * 3 * 4
    loss.backward()
    del loss, powers
    assert not books.sizes


def test_the_counter_knows_the_processors_fused_attention() -> None:
    queries, keys, values = (torch.randn(1, 1, rows, 4, requires_grad=True) for rows in (8, 16, 16))
    leaves = [nn.Parameter(queries)]
    peer = Peer("", lambda: scaled_dot_product_attention(queries, keys, values).sum(), leaves, [])
    assert counts_of(peer).flops == 7 * 2 * 8 * 16 * 4


def test_the_bare_steps_of_the_other_measurements_train(tmp_path) -> None:
    steps = TrainingSteps(small_words(tmp_path))
    before = [parameter.detach().clone() for parameter in steps.trained]
    steps.seconds([steps.batch([0, 1])])
    assert not all(torch.equal(one, other) for one, other in zip(before, steps.trained, strict=True))


def test_peers_take_turns() -> None:
    order = []

    def peer(name: str) -> Peer:
        weight = nn.Parameter(torch.ones(1))
        return Peer(name, lambda: order.append(name) or weight.sum(), [weight], [])

    *_, seconds = training_speed.interleaved_seconds([peer("a"), peer("b"), peer("c")], 3)
    assert "".join(order) == "abcbcacab"
    assert all(len(values) == 3 and min(values) >= 0 for values in seconds.values())


def test_every_sample_begins_alike_and_ends_supervised() -> None:
    batch = batch_of(GATE, [(40, 6), (30, 2)])
    assert (batch.input_ids[0, :9] == batch.input_ids[1, :9]).all()
    assert (batch.input_ids[:, 9] == IMAGE_TOKEN_ID).all()
    assert (batch.labels != IGNORED_LABEL).sum(dim=1).tolist() == [6, 2]
    assert batch.step_supervised_tokens == 8


def test_the_page_shows_what_is_stored() -> None:
    page = speed_report.PAGE.read_text()
    assert page == speed_report.page_of(page)
    content = speed_report.stored(speed_report.TRAINING)
    sizes = {size.cell: asdict(size) for size in CPU_CELLS}
    assert content
    assert {name: cell["size"] for name, cell in content.items()} == {name: sizes[name] for name in content}
    assert speed_report.CHART.stat().st_size > 0


def test_a_few_rounds_give_no_verdict_on_time() -> None:
    (name, stored), *_ = speed_report.stored(speed_report.TRAINING).items()
    for rounds in (1, speed_report.ROUNDS):
        peers = {peer: {**row, "seconds": row["seconds"][:1] * rounds} for peer, row in stored["peers"].items()}
        lines = speed_report.target_lines({name: {**stored, "peers": peers}})
        assert any(line.endswith("| open |") for line in lines) == (rounds < speed_report.ROUNDS)


def test_the_chart_has_a_bar_for_every_step() -> None:
    name, stored = next(iter(speed_report.stored(speed_report.TRAINING).items()))
    panels = speed_report.draw(name, stored).axes
    assert [len(panel.patches) for panel in panels] == [len(stored["same_loss"])] * 3


def test_the_page_names_the_formulas_figures_at_7b() -> None:
    size = replace(VICUNA_7B, batch=16)
    published, ideal = published_step(size, recompute=True, fused=False), ideal_step(size, trained_head=True)
    page = " ".join(speed_report.PAGE.read_text().split())
    assert f"costs {published / 16e12:.1f} TFLOP as published" in page
    assert f"and {ideal / 16e12:.1f} with every saving" in page
