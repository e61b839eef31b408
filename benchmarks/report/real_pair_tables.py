"""Tables of the real pair: the sweep's methods, and how far the embedded backbones foretell their order."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.learning.report import MEASURED, missed_gates, table_of
from benchmarks.report.cells import Cell
from benchmarks.report.markdown import table, wrapped
from benchmarks.report.order import Agreement, agreement
from benchmarks.report.real_pair_findings import seeds_of, sets_sentence
from benchmarks.report.sweep_tables import (
    CHANCE,
    COLUMNS,
    FROZEN,
    LABELS,
    LEAD,
    NO_ROWS,
    SETS,
    WORDS,
    Content,
    finished_searches,
    listed,
    mean_name,
    name_of,
    percent,
    seeds,
    sweep_of,
    trial_lines,
)
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.means import MMAVG, benchmark_mean

CARD = Path("lightning_m2pt/embedded/smollm2_dinov2/training.json")
PICTURE = "../figures/real_pair.png"
"""The drawing of the same sweep, as the page on the real pair finds it."""
TEN = 10
"""Rows of M2PT from words, whose rates the lengths have."""
FIRST, SECOND = "`testbed`", "`testbed_patch12`"


def pair_lines(content: Content) -> list[str]:
    """Returns every method's figures by set, and its difference to M2PT with the paired interval; nothing before a run.

    Args:
        content: The stored sweep.
    """
    if not content:
        return []
    sweep = sweep_of(content)
    rows = []
    for label in sweep.ranking:
        row = sweep.rows[label]
        rows.append(
            [
                LABELS.get(label, label),
                percent(sweep.trained_percent[label]),
                "-" if label == FROZEN else seeds(row),
                *(str(row[name]) for name in COLUMNS),
                *(gain_text(content["gains"][baseline].get(label)) for baseline in (LEAD, FROZEN)),
            ]
        )
    chances = content["chance"]
    constant = [*(f"{chances[name]:.1f}" for name in SETS), f"{benchmark_mean(chances)[1]:.1f}"]
    rows.append([CHANCE, "", "", *constant, "", ""])
    record = json.loads(CARD.read_text(encoding="utf-8")) if CARD.is_file() else {"gates": {"gates": []}}
    return [
        "## What came out",
        "",
        f"![Means of all methods with paired intervals]({PICTURE})",
        "",
        *missed_gates(record),
        *table(["", "trained", "seeds", *SETS.values(), mean_name(content), "to M2PT, 95%", "to frozen, 95%"], rows),
        "",
        *wrapped(sets_sentence(content)),
        "",
        *wrapped(
            "Percent of each set's maximum, mean ± standard deviation over seeds. The last two are differences in "
            f"{mean_name(content)} with paired 95% intervals (bootstrap over pictures with all their questions, and "
            "over seeds, of which few make them somewhat too narrow); chance: the best constant answer. What is left "
            "of M2PT without visual prompts or interaction begins as words."
        ),
        "",
    ]


def gain_text(gain: Mapping[str, float] | None) -> str:
    """Returns a difference with its interval."""
    return "" if gain is None else f"{gain['difference']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"


def pair_trial_lines(content: Content, variants: Content) -> list[str]:
    """Returns what the search of rates found on the pair; nothing before it ran.

    Args:
        content: The comparison's search.
        variants: The search for the variants of LoRA, which has the same budget.

    Raises:
        BadInputError: If the two are judged by other figures, or have other trials of a method.
    """
    if not content:
        return []
    if variants and variants["decides"] != content["decides"]:
        raise BadInputError(
            f"two searches are judged by {content['decides']!r} and {variants['decides']!r}",
            where="decides",
            expected="one figure in one table",
        )
    twice = finished_searches(content).keys() & finished_searches(variants).keys()
    common = f" Both searches have {listed(sorted(twice))}, with the same trials." if twice else ""
    said = f"Searched rates, by {content['decides']}; in percent.{common}"
    return [*wrapped(said), "", *trial_lines(content, variants)]


def lengths_lines(content: Content, pair: Content) -> list[str]:
    """Returns the means of M2PT with textual prompts of each length, beside none; nothing before the sweep ran.

    Args:
        content: The stored sweep of lengths.
        pair: The comparison, which has several seeds of one of them.
    """
    if not content:
        return []
    by_length = {TEN if label == WORDS else int(label.partition("=")[2]): label for label in content["methods"]}
    gains, sweep = content["gains"][NO_ROWS], sweep_of(content)
    rows = [
        [str(length), f"{sweep.rows[label][MMAVG].mean:.1f}", gain_text(gains.get(label))]
        for length, label in sorted(by_length.items())
    ]
    return [
        "### Lengths of textual prompts",
        "",
        *table(["rows that begin as words", mean_name(content), "to none, 95%"], rows),
        "",
        *wrapped(
            f"{seeds_of(content)}, M2PT from words, with the rates that were searched for {TEN} rows"
            f"{seeds_said(pair)}; intervals are over pictures with all their questions."
        ),
        "",
    ]


def seeds_said(pair: Content) -> str:
    """Returns how far the seeds of M2PT from words lie apart in the comparison; nothing of one seed."""
    values = sweep_of(pair).rows[WORDS][MMAVG].values if pair and WORDS in pair["methods"] else ()
    if len(values) < 2:
        return ""
    return f"; over {len(values)} seeds the mean of {TEN} rows goes from {min(values):.1f} to {max(values):.1f}"


def beside_lines(content: Content, *baselines: str) -> list[str]:
    """Returns the means of a stored sweep's rows beside some of them; nothing before the sweep ran.

    Args:
        content: The stored sweep.
        baselines: Labels of those that differences are to.
    """
    if not content:
        return []
    sweep = sweep_of(content)
    rows = [
        [
            name_of(label),
            f"{row[MMAVG].mean:.1f}",
            *(gain_text(content["gains"][baseline].get(label)) for baseline in baselines),
        ]
        for label, row in sweep.rows.items()
    ]
    return [*table(["", mean_name(content), *(f"to {name_of(label)}, 95%" for label in baselines)], rows), ""]


def order_lines(pair: Content, comparison: Content, second: Content) -> list[str]:
    """Returns how the methods' order on the pair agrees with that on both embedded backbones; nothing before a run.

    Args:
        pair: The stored sweep of the pair.
        comparison: That of the first embedded backbone.
        second: What is stored of the second: a sweep, or the learning table of few methods.
    """
    if not pair:
        return []
    found = agreements(pair, comparison, second)
    lines = ["### Does the small world foretell the order?", ""]
    for name, agreed in found.items():
        lines += [*wrapped(order_sentence(name, agreed), "- ")]
    return [*lines, ""]


def agreements(pair: Content, comparison: Content, second: Content) -> dict[str, Agreement | None]:
    """Returns how the order on the pair agrees with that on each embedded backbone; arguments as of ``order_lines``.

    The first backbone's ablation is no part of it: M2PT has the rates of its file there, and has changed places with
    M2PT without textual prompts where its rates are searched.
    """
    here = means_of(pair)
    return {FIRST: agreement(here, means_of(comparison)), SECOND: agreement(here, second_means(second))}


def order_sentence(backbone: str, agreed: Agreement | None) -> str:
    """Returns one backbone's agreement in words."""
    if agreed is None:
        return f"{backbone}: fewer than three methods in common, no order to compare."
    kind = "exact" if agreed.is_exact else "approximate, there are ties:"
    return (
        f"{backbone}: Kendall's tau {agreed.tau:+.2f} over {len(agreed.methods)} methods (95% over seeds "
        f"{agreed.low:+.2f} to {agreed.high:+.2f}; {kind} p {agreed.p_value:.2g}): {listed(agreed.methods)}."
    )


def means_of(content: Content) -> dict[str, Cell]:
    """Returns a stored sweep's means over sets by label."""
    return {label: row[MMAVG] for label, row in sweep_of(content).rows.items()}


def second_means(content: Mapping[str, Any]) -> dict[str, Cell]:
    """Returns the second backbone's means over sets by the labels of sweeps, from either form in which it is stored."""
    if "sweep" in content:
        return means_of(content)
    found = {label: row[MMAVG] for label, row in table_of(dict(content)).items()}
    return {LEAD if label == MEASURED else label: cell for label, cell in found.items()}
