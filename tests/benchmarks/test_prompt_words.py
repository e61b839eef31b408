"""The comparison of searches: its arithmetic by value, and a tiny run of all of it that goes on where it stood."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from benchmarks.learning.prompt_words import __main__ as command
from benchmarks.learning.prompt_words.base import Base, held_out_samples, loaded_base
from benchmarks.learning.prompt_words.chart import figure_of
from benchmarks.learning.prompt_words.findings import found_lines, sentences
from benchmarks.learning.prompt_words.intervals import mean_of, paired_gain
from benchmarks.learning.prompt_words.rows import other_orders
from benchmarks.learning.prompt_words.searches import best_of
from benchmarks.learning.prompt_words.setting import (
    BACKBONES,
    CARRIED,
    DRAWN,
    PROPOSERS,
    ROWS,
    SHUFFLED,
    SOFT,
    UNTOUCHED,
    Setting,
)
from benchmarks.learning.prompt_words.summary import on_grid, summary_of
from benchmarks.learning.prompt_words.table import mean_or_none, tables_of
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.prompt_search.record import DIGEST, SearchRecord, digest_of
from lightning_m2pt.prompt_search.state import SearchState

TINY = (
    *("--seeds", "0", "--searched", "3", "--held-out", "4", "--budget", "5000", "--width", "3", "--top-k", "2"),
    *("--beam", "1", "--drawn", "1", "--orders", "1", "--swaps", "6", "--questions", "0"),
)
TOKENS, PICTURES = [1, 2, 1], ["a", "b", "b"]


def record(seed: int, losses: dict[str, list[float]], best: str = "gcg") -> SearchRecord:
    """A record of three held-out samples of two pictures; a loss below 1 a token is a right answer."""
    curve = ((10, 3.0), (45, 2.5), (60, 1.0 + 2 * seed))
    states = {
        name: SearchState((1, 2), 3.0, (1, 2), 0.5 if name == best else 1.0 + seed, 90, curve=curve)
        for name in PROPOSERS
    }
    rows = {
        name: {
            "texts": ["{question} a b"],
            "searched_loss": 1.0 + seed,
            "losses": losses.get(name, losses["other"]),
            "right": [float(loss < 1) for loss in losses.get(name, losses["other"])],
            "curve": [[30, 2.0]],
        }
        for name in ROWS
    }
    swaps = {"spearman": 0.5, "low": 0.25, "high": 0.75, "best_within": 0.5, "swaps": 6, "better": 3}
    measured = {"held_out": {"tokens": TOKENS, "pictures": PICTURES}, "rows": rows, "swaps": swaps}
    settings = {"seed": seed, "budget": 90, "backbone": "b", "searched": 2, "length": 2}
    return SearchRecord(Path("unused"), settings, states, measured)


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    records = [
        record(0, {UNTOUCHED: [2.0, 2.0, 2.0], "gcg": [0.5, 1.0, 1.0], SHUFFLED: [1.5, 2.0, 2.0], "other": [2.0] * 3}),
        record(1, {UNTOUCHED: [2.0, 2.0, 2.0], "gcg": [1.5, 2.0, 1.0], SHUFFLED: [2.5, 4.0, 2.0], "other": [2.0] * 3}),
    ]
    return {
        "settings": {"budget": 90, "searched": 2, "length": 2, "position": "behind_question"},
        "backbones": {"b": summary_of(records, Path())},
    }


def test_differences_are_per_token_paired_and_drawn_by_picture() -> None:
    first, second = numpy.array([[2.0, 2.0, 2.0]]), numpy.array([[1.0, 2.0, 1.0]])
    weights = numpy.array(TOKENS, float)
    assert mean_of(first, weights) == 1.5
    gain = paired_gain(first, second, weights, PICTURES)
    # Both pictures: -2 over 4 tokens; the first twice: -2 over 2; the second twice: -2 over 6.
    assert (gain.value, gain.low, gain.high) == pytest.approx((-0.5, -1.0, -1 / 3))
    assert gain.is_clear
    # What is the same in every sample has no interval, whatever the rows themselves do.
    noisy = numpy.random.default_rng(0).normal(size=(1, 3))
    even = paired_gain(noisy, noisy + weights, weights, PICTURES)
    assert (even.value, even.low, even.high) == pytest.approx((1.0, 1.0, 1.0))
    assert not paired_gain(first, first, weights, PICTURES).is_clear


def test_seeds_are_drawn_beside_pictures() -> None:
    weights, first = numpy.ones(2), numpy.zeros((2, 2))
    gain = paired_gain(first, numpy.array([[1.0, 1.0], [3.0, 3.0]]), weights, ["a", "b"])
    assert (gain.value, gain.low, gain.high) == pytest.approx((2.0, 1.0, 3.0))


def test_a_row_of_the_table_by_value(content: dict[str, Any]) -> None:
    part = content["backbones"]["b"]
    row = part["rows"]["gcg"]
    assert row["loss"] == pytest.approx((2.5 + 4.5) / 4 / 2)
    assert row["accuracy"] == pytest.approx(100 / 6)
    assert row["losses_to_none"][0] == pytest.approx((7.0 - 12.0) / 4 / 2)
    assert row["right_to_none"][0] == pytest.approx(1 / 6)
    assert row["searched_loss"] == [1.0, 2.0]
    assert part["rows"][UNTOUCHED].keys().isdisjoint({"losses_to_none"})
    assert "losses_to_drawn" not in part["rows"][DRAWN]
    # Shuffled words are compared with the very prompt they are made of, whichever search found it.
    assert part["best_of"] == ["gcg", "gcg"]
    assert part["rows"][SHUFFLED]["losses_to_best"][0] == pytest.approx((3.0 + 4.0) / 4 / 2)
    values = tables_of(content)[1]
    cells = dict(zip((row[0] for row in values.rows), values.rows, strict=True))["gcg"]
    assert cells[1:5:2] == ["1.500", "-0.625 (-1.500 to -0.333)"]
    assert "2 seeds" in values.notes[0]


def test_curves_are_the_least_loss_within_a_number_of_rows(content: dict[str, Any]) -> None:
    assert on_grid([(10, 3.0), (60, 1.0)], [5, 10, 59, 60]) == [None, 3.0, 3.0, 1.0]
    part = content["backbones"]["b"]
    assert part["budgets"][-1] == 90
    assert part["curves"]["gcg"][0][-1] == 1.0
    assert part["curves"][SOFT][1][0] is None
    assert (mean_or_none([1.0, 2.0]), mean_or_none([1.0, None])) == (1.5, None)
    search = {row[0]: row for row in tables_of(content)[0].rows}
    assert search["gcg"][1:5] == ["3.000", "2.500", "1.750", "1.000 to 2.000"]
    assert search[SOFT][1] == "-"
    (axes,) = figure_of(content).axes
    line = next(line for line in axes.lines if line.get_label() == "gcg")
    assert line.get_ydata()[-1] == 1.75  # of 1.0 and 2.5
    assert line.get_xdata()[-1] == pytest.approx(0.09)


def test_sentences_follow_the_figures(content: dict[str, Any]) -> None:
    part = content["backbones"]["b"]
    searched, held_out, *rest = sentences(part)
    assert "no search goes below it" in searched
    assert "by loss clearly better than no prompt: gcg; clearly worse: none" in held_out
    assert any("matters" in sentence for sentence in rest)
    page = "\n".join(found_lines(content, "figures/x.png"))
    assert "2 of 3 seeds" in page
    assert "| gcg |" in page
    assert "(figures/x.png)" in page
    assert found_lines({}, "")[0].startswith("Nothing of this has been measured")
    below = json.loads(json.dumps(part))
    below["rows"]["beam"]["searched_loss"] = [0.1, 0.2]
    assert "below it: beam" in sentences(below)[0]


def test_samples_are_held_out_by_picture() -> None:
    samples = [Sample(str(n), None, f"p{n % 5}", (), (), "") for n in range(20)]
    held_out = held_out_samples(samples, 8)
    assert len({sample.image_id for sample in held_out}) == 2
    assert len({sample.id for sample in held_out}) == 8


def test_other_orders_are_distinct_and_never_the_prompt_s_own() -> None:
    assert set(other_orders((1, 2, 3), 100, 0)) == {(1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)}
    assert other_orders((4, 4), 3, 0) == [(4, 4)]
    assert len(set(other_orders((1, 2, 3, 3), 5, 0))) == 5


def test_both_backbones_read_the_same_words() -> None:
    first, second = (Path(f"lightning_m2pt/embedded/{name}/language/tokenizer.json").read_bytes() for name in BACKBONES)
    assert first == second


def test_nothing_is_searched_on_pictures_that_are_held_out() -> None:
    base = Base("invented", None, Setting(held_out=6, searched=9))
    base.split = [Sample(str(n), None, f"p{n // 3}", (), (), "") for n in range(30)]
    first, second = base.searched(0), base.searched(1)
    pictures = {sample.image_id for sample in base.held_out}
    assert len(pictures) == 2
    assert pictures.isdisjoint(sample.image_id for sample in (*first, *second))
    assert [len({sample.id for sample in each}) for each in (first, second)] == [9, 9]
    assert first != second
    assert first == base.searched(0)


def without_sets(part: dict[str, Any]) -> list[str]:
    return [name for name, row in part["rows"].items() if not row["sets"]]


@pytest.mark.parametrize("names", [BACKBONES[:1], pytest.param(BACKBONES, marks=pytest.mark.slow)])
def test_all_of_it_runs_and_goes_on_where_it_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    words = [*TINY, "--backbones", *names, "--outputs", str(tmp_path / "o"), "--results", str(tmp_path / "r.json")]
    words += ["--questions", "6"] * (len(names) > 1)
    loaded: dict[str, Base] = {}

    def loaded_once(name: str, setting: Setting) -> Base:
        if name not in loaded:
            loaded[name] = loaded_base(name, setting)
        return replace(loaded[name], setting=setting)

    monkeypatch.setattr(command, "loaded_base", loaded_once)
    command.main(words)
    first = (tmp_path / "r.json").read_bytes()
    part = json.loads(first)["backbones"][BACKBONES[0]]
    assert list(part["rows"]) == [name for name in ROWS if len(names) > 1 or name != CARRIED]
    assert all(rows <= 5000 for each in part["searches"].values() for rows in each["rows"])
    assert without_sets(part) == (list(part["rows"]) if len(names) == 1 else [SHUFFLED, SOFT])
    path = tmp_path / "o" / names[-1] / "seed_0.json"
    known = json.loads(path.read_text())
    for name in PROPOSERS:  # a row's loss is that of its text, and the search's own
        (loss,) = json.loads(first)["backbones"][names[-1]]["rows"][name]["searched_loss"]
        assert loss == pytest.approx(known["states"][name]["best_loss"], rel=1e-5)
    # As a stop in the middle leaves it: one search on its way, later ones and all rows missing.
    for name in PROPOSERS[2:]:
        del known["states"][name]
    known["measured"] = {}
    known[DIGEST] = digest_of(known)
    path.write_text(json.dumps(known))
    command.main(words)
    assert (tmp_path / "r.json").read_bytes() == first
    with pytest.raises(BadInputError, match="another search"):
        command.main([*words, "--length", "2"])
    monkeypatch.setattr(command, "loaded_base", lambda *_: pytest.fail("nothing is loaded for a report"))
    command.main([*words, "--report"])


def test_the_best_search_is_that_of_the_least_loss() -> None:
    assert best_of(record(0, {"other": [1.0] * 3}, best="beam")) == ("beam", (1, 2))
