"""What the page on the real pair says of stored sweeps, by value."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.report.front import GAINS, has_seeds
from benchmarks.report.methods_chart import START_COLOUR, draw_gains, gains_figure
from benchmarks.report.order import Agreement
from benchmarks.report.real_pair_findings import (
    foretold_sentence,
    longer_sentence,
    ranking_sentence,
    sets_sentence,
    textual_sentence,
)
from benchmarks.report.real_pair_tables import (
    beside_lines,
    lengths_lines,
    order_lines,
    order_sentence,
    pair_lines,
    pair_trial_lines,
    second_means,
)
from benchmarks.report.stored import stored
from benchmarks.report.sweep_tables import SETS as COLUMNS
from benchmarks.report.sweep_tables import listed, trial_lines
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.report.page.figures import FROZEN_COLOUR, LEAD_COLOUR


def invented(**by_method: list[float]) -> dict[str, Any]:
    """A stored sweep in which every method has one score on all sets, for each seed."""
    return {
        "sweep": "invented",
        "mean_of": "MMAvg of limited sets",
        "methods": {
            label: {
                "trained_percent": 0.25,
                "by_seed": {str(seed): dict.fromkeys(COLUMNS, value) for seed, value in enumerate(values)},
            }
            for label, values in by_method.items()
        },
        "frozen": dict.fromkeys(COLUMNS, 40.0),
        "chance": dict.fromkeys(COLUMNS, 38.0),
        "gains": {
            "m2pt": {"lora": {"difference": -5.04, "low": -7.25, "high": -3.0}},
            "no textual prompts": {
                "m2pt": {"difference": -9.0, "low": -9.5, "high": -8.5},  # at its own rates: no answer to that
                "m2pt at the rates of words": {"difference": -5.04, "low": -7.25, "high": -3.0},
                "m2pt from words": {"difference": 0.46, "low": -1.0, "high": 2.0},
            },
            "frozen": {
                "lora": {"difference": 3.0, "low": 1.0, "high": 5.0},
                "m2pt": {"difference": -2.0, "low": -3.0, "high": -1.0},
            },
        },
    }


def test_the_pairs_table_by_value() -> None:
    lines = pair_lines(invented(m2pt=[60.0, 62.0], lora=[55.0, 57.0]))
    assert lines[0] == "## What came out"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[0][-2:] == ["to M2PT, 95%", "to frozen, 95%"]
    assert cells[0][-3] == "MMAvg of limited sets"
    assert [row[0] for row in cells[2:]] == ["**M2PT**", "LoRA", "frozen", "chance"]
    assert cells[2][1:4] == ["0.25%", "2", "61.0 ± 1.4"]
    assert cells[3][-3:] == ["56.0 ± 1.4", "-5.0 [-7.2, -3.0]", "+3.0 [+1.0, +5.0]"]
    assert cells[5][1:3] + cells[5][-4:] == ["", "", "38.0", "38.0", "", ""]
    assert (cells[2][-2], cells[4][-1], cells[4][2]) == ("", "", "-")


def test_the_readmes_sentences_by_value() -> None:
    left = {"m2pt at the rates of words": [70.0, 71.0], "words without interaction": [80.0, 81.0]}  # not in the README
    pair = invented(m2pt=[60.0, 62.0], lora=[55.0, 57.0], projector=[50.0, 51.0], **left)
    assert textual_sentence(pair) == (
        "**On real weights, [SmolLM2-135M and DINOv2-small](docs/how_to/real_pair.md), M2PT's textual prompts that "
        "begin as random rows lower the mean (-5.0, -7.2 to -3.0), those that begin as words change nothing clear in "
        "the mean (+0.5, -1.0 to +2.0)**: points of MMAvg of limited sets beside M2PT without them, at the same rates; "
        "paired 95% intervals over pictures and seeds."
    )
    rates = {"no textual prompts": 0.002, "m2pt at the rates of words": 0.002, "m2pt from words": 0.002, "lora": 0.1}
    for others, said in (({}, True), ({"no textual prompts": 0.003}, False), ({"m2pt from words": 0.003}, False)):
        of_labels = {label: {"searched_rates": {"interaction": rate}} for label, rate in (rates | others).items()}
        told = textual_sentence(
            pair | {"methods": {label: each | {"by_seed": {"0": {}}} for label, each in of_labels.items()}}
        )
        assert ("beside M2PT without them, at the same rates;" in told) is said
    pair["gains"]["frozen"]["projector"] = {"difference": 0.5, "low": -0.1, "high": 1.0}
    assert ranking_sentence(pair) == (
        "MMAvg of limited sets there, 2 seeds, beside the untouched model's 40.0: clearly above: LoRA 56.0; level: "
        "projector alone 50.5; clearly below: M2PT 61.0. The best constant answers have 38.0."
    )
    uneven = invented(m2pt=[60.0], lora=[55.0, 57.0]) | {"mean_of": "MMAvg"}
    assert ranking_sentence(uneven).startswith("MMAvg there, 1 to 2 seeds, beside the untouched model's 40.0: clearly")
    assert "level: none; clearly below: M2PT 60.0. The" in ranking_sentence(uneven)
    single = invented(m2pt=[60.0])
    assert textual_sentence(single).endswith("paired 95% intervals over pictures of one seed.")
    assert (has_seeds({}), has_seeds(single), has_seeds(uneven), has_seeds(pair)) == (False, False, False, True)
    pair["methods"]["ptum"] = pair["methods"]["lora"]
    assert ranking_sentence(pair).count("PTUM") == 0  # there is no difference of it to the untouched model
    pair["gains"]["frozen"]["ptum"] = {"difference": 3.0, "low": 1.0, "high": 5.0}
    assert "clearly above: LoRA 56.0, PTUM (rows) 56.0; level" in ranking_sentence(pair)
    uneven["gains"]["no textual prompts"] = {}
    assert textual_sentence(uneven).endswith("M2PT's ablation has not been run.**")
    longer = invented(**{"m2pt from words": [61.0], "lora": [63.0], "no textual prompts": [60.5]})
    longer["gains"]["no textual prompts"] = {"m2pt from words": {"difference": 0.5, "low": -1.5, "high": 2.5}}
    assert longer_sentence(longer) == (
        "With four times the steps, 1 seed: LoRA 63.0, M2PT from words 61.0, no textual prompts 60.5; textual prompts "
        "that begin as words: +0.5, -1.5 to +2.5."
    )
    agreed = Agreement(("m2pt", "lora", "frozen"), 0.333, -0.25, 1.0, 1.0)
    assert foretold_sentence({"`testbed`": agreed, "`other`": None}) == (
        "The embedded backbones foretell that order by a Kendall's tau of: `testbed` +0.33 (-0.25 to +1.00 over seeds, "
        "3 methods)."
    )


def test_the_picture_draws_means_seeds_and_intervals_around_the_untouched_model(tmp_path: Path) -> None:
    pair = invented(m2pt=[36.0, 40.0], lora=[44.0, 42.0], projector=[50.0])  # of the last there is no interval
    (axes,) = gains_figure(pair).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["LoRA", "M2PT"]
    drawn = [list(line.get_xdata()) for line in axes.lines]
    assert drawn[:3] == [[41.0, 45.0], [43.0], [44.0, 42.0]]
    assert drawn[3:] == [[37.0, 39.0], [38.0], [36.0, 40.0], [40.0, 40.0], [38.0, 38.0]]
    assert axes.yaxis_inverted()
    # Colours: a method's interval, mean and seeds, and the two lines over all.
    pair["methods"]["m2pt from words"] = pair["methods"]["lora"]
    pair["gains"]["frozen"]["m2pt from words"] = pair["gains"]["frozen"]["lora"]
    (axes,) = gains_figure(pair).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    colours = {
        name: {line.get_markeredgecolor() for line in axes.lines[3 * place :][:3]} for place, name in enumerate(names)
    }
    assert colours == {"M2PT": {LEAD_COLOUR}, "M2PT from words": {START_COLOUR}, "LoRA": {"#505050"}}
    assert [line.get_color() for line in axes.lines[9:]] == [FROZEN_COLOUR, "black"]
    draw_gains(pair, tmp_path / "one.png")
    draw_gains(pair, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert GAINS.stat().st_size > 0


def test_sets_above_the_untouched_model_and_a_constant_answer_are_named() -> None:
    pair = invented(m2pt=[41.0, 43.0], lora=[55.0], vpt=[41.5], projector=[39.0, 43.0])
    pair["frozen"] |= {"vsr": 42.0, "pope": 10.0}  # M2PT's mean there is 42 as well
    pair["chance"] |= {"pope": 54.0, "mme": 41.5}
    shown = "SNLI-VE, CIFAR-10, CIFAR-100, MNIST, Text-VQA"
    assert sets_sentence(pair) == (
        f"Above both the untouched model and the best constant answer in every seed: LoRA: MME, VSR, SNLI-VE, POPE, "
        f"{shown[9:]}; M2PT, VPT: {shown}; on no set: projector alone."
    )
    assert listed(["ptum", "m2pt", "m2pt at the rates of words"]) == (
        "PTUM (rows), M2PT, M2PT (rates of the start from words)"
    )


def rows_of(lines: list[str]) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]


def test_lengths_stand_in_their_order_beside_none() -> None:
    grid = invented(**{"m2pt from words": [45.0], "textual_length=20": [46.0], "textual_length=0": [40.0]})
    grid["gains"]["textual_length=0"] = {
        "m2pt from words": {"difference": 5.0, "low": 4.0, "high": 6.0},
        "textual_length=20": {"difference": 6.0, "low": -1.0, "high": 9.0},
    }
    lines = lengths_lines(grid, invented(**{"m2pt from words": [45.0, 39.5, 41.0]}))
    assert rows_of(lines) == [
        ["0", "40.0", ""],
        ["10", "45.0", "+5.0 [+4.0, +6.0]"],
        ["20", "46.0", "+6.0 [-1.0, +9.0]"],
    ]
    text = " ".join(" ".join(lines).split())
    assert "1 seed, M2PT from words" in text
    assert "for 10 rows; over 3 seeds the mean of 10 rows goes from 39.5 to 45.0; intervals" in text
    for pair in ({}, invented(**{"m2pt from words": [45.0]}), invented(m2pt=[45.0, 41.0])):
        assert "for 10 rows; intervals" in " ".join(" ".join(lengths_lines(grid, pair)).split())


def test_attempts_stand_beside_m2pt_and_beside_no_textual_prompts() -> None:
    lines = beside_lines(invented(m2pt=[45.0], lora=[41.0]), "m2pt", "no textual prompts")
    assert lines[0] == "|  | MMAvg of limited sets | to M2PT, 95% | to no textual prompts, 95% |"
    assert rows_of(lines) == [
        ["M2PT", "45.0", "", "-9.0 [-9.5, -8.5]"],
        ["LoRA", "41.0", "-5.0 [-7.2, -3.0]", ""],
        ["frozen", "40.0", "", ""],
    ]


def test_trials_of_both_searches_stand_in_one_table() -> None:
    def search(label: str, accuracy: float) -> dict[str, Any]:
        trial = {"number": 0, "rates": {"interaction": 0.001}, "val/answer_accuracy": accuracy}
        return {"decides": "what", "variants": {label: {"stated": {}, "chosen": 0, "trials": [trial]}}}

    first, second = search("lora", 0.25), search("dora", 0.5)
    assert [row[:3] for row in rows_of(pair_trial_lines(first, second))] == [
        ["DoRA", "50.0", "50.0"],
        ["LoRA", "25.0", "25.0"],
    ]
    assert [row[0] for row in rows_of(pair_trial_lines(first, {}))] == ["LoRA"]
    assert pair_trial_lines(first, second)[0] == "Searched rates, by what; in percent."


def trial(number: int, accuracy: float | None, rate: float = 0.001) -> dict[str, Any]:
    figures = {} if accuracy is None else {"val/answer_accuracy": accuracy}
    return {"number": number, "rates": {"interaction": rate}, **figures}


def test_a_method_of_two_searches_stands_there_once_and_is_named() -> None:
    def search(*labels: str) -> dict[str, Any]:
        trials = [trial(0, 0.25), trial(1, 0.5)]
        return {
            "decides": "what",
            "variants": {label: {"stated": {}, "chosen": 1, "trials": copy.deepcopy(trials)} for label in labels},
        }

    first, second = search("lora", "rslora"), search("rslora", "dora")
    lines = pair_trial_lines(first, second)
    assert [row[0] for row in rows_of(lines)] == ["LoRA", "rsLoRA", "DoRA"]
    assert lines[0] == "Searched rates, by what; in percent. Both searches have rsLoRA, with the same trials."
    second["variants"]["rslora"]["chosen"] = None  # it has not ended there: the other one counts
    assert [row[0] for row in rows_of(pair_trial_lines(first, second))] == ["LoRA", "rsLoRA", "DoRA"]
    for key, value in (("val/answer_accuracy", 0.75), ("rates", {"interaction": 0.002})):
        other = search("rslora")
        other["variants"]["rslora"]["trials"][0][key] = value
        with pytest.raises(BadInputError, match="two searches of rslora have other trials"):
            pair_trial_lines(first, other)
    other = search("rslora")
    other["variants"]["rslora"]["chosen"] = 0
    with pytest.raises(BadInputError, match="two searches of rslora have other trials"):
        pair_trial_lines(first, other)
    with pytest.raises(BadInputError, match="judged by 'what' and 'loss'"):
        pair_trial_lines(first, second | {"decides": "loss"})


def test_a_trial_that_diverged_is_the_worst() -> None:
    found = {"stated": {}, "chosen": 1, "trials": [trial(0, 0.25), trial(1, 0.5), trial(2, None)]}
    other = {"stated": {}, "chosen": 1, "trials": [trial(0, None), trial(1, 0.125)]}
    assert [row[1:4] for row in rows_of(trial_lines({"variants": {"lora": found, "vpt": other}}))] == [
        ["25.0", "50.0", "diverged"],
        ["diverged", "12.5", "diverged"],
    ]


@pytest.mark.parametrize(
    ("name", "search", "count"),
    [("smollm2", "smollm2", 1), ("smollm2_longer", "smollm2", 4), ("patch12", "comparison", 6)],
)
def test_rates_that_sweeps_write_out_are_those_that_were_searched(name: str, search: str, count: int) -> None:
    cells = yaml.safe_load(Path(f"experiments/sweeps/{name}.yaml").read_text())["cells"]
    written = {
        cell["label"]: cell["arguments"]["model.optimizer.learning_rate"]
        for cell in cells
        if "model.optimizer.learning_rate" in cell["arguments"]
    }
    searched = stored(f"{search}_search")["variants"]
    whole = "m2pt from words" if search == "smollm2" else "m2pt"
    lenders = {"m2pt at the rates of words": whole, "no textual prompts": whole}
    assert len(written) == count
    for label, rates in written.items():
        found = searched[lenders.get(label, label)]
        assert rates == found["trials"][found["chosen"]]["rates"], label


def test_before_a_run_the_page_has_nothing_of_it() -> None:
    assert pair_lines({}) == pair_trial_lines({}, {}) == order_lines({}, {}, {}) == []
    assert lengths_lines({}, {}) == beside_lines({}, "m2pt") == []


def test_the_order_is_compared_with_both_embedded_backbones() -> None:
    pair = invented(**{"m2pt": [60.0], "lora": [50.0], "projector": [45.0], "no interaction": [55.0]})
    comparison = invented(m2pt=[70.0], lora=[60.0], projector=[50.0])
    lines = order_lines(pair, comparison, stored("learning_testbed_patch12"))
    text = " ".join(" ".join(lines).split())
    assert "`testbed`: Kendall's tau +1.00 over 4 methods" in text
    assert "M2PT, LoRA, projector alone, frozen." in text
    assert "exact p" in text
    # The second has frozen 51.6, projector 57.4 and M2PT 57.5 in common.
    assert "`testbed_patch12`: Kendall's tau +1.00 over 3 methods" in text
    swept = order_lines(pair, comparison, invented(m2pt=[1.0], lora=[2.0], projector=[3.0]))
    # The reverse of the order here, and frozen, with 40, is first there and last here.
    assert "`testbed_patch12`: Kendall's tau -1.00 over 4 methods" in " ".join(swept)
    assert "no order to compare" in order_sentence("elsewhere", None)
    tied = Agreement(("ptum", "m2pt", "frozen"), 0.5, -0.25, 1.0, 0.25, is_exact=False)
    assert order_sentence("elsewhere", tied).endswith(
        "+1.00; approximate, there are ties: p 0.25): PTUM (rows), M2PT, frozen."
    )


def test_both_forms_of_the_second_backbones_results_have_the_sweeps_labels() -> None:
    assert set(second_means(stored("learning_testbed_patch12"))) == {"frozen", "projector", "m2pt", "full"}
    assert set(second_means(invented(vpt=[1.0]))) == {"vpt", "frozen"}
