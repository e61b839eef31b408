"""What came out on the real pair, in the README's words: whether textual prompts earn their place, and the order."""

from collections.abc import Mapping

from benchmarks.report.order import Agreement
from benchmarks.report.sweep_tables import (
    FROZEN,
    LANGUAGE,
    OF_WORDS,
    SAME_RATES,
    SETS,
    WORDS,
    Content,
    listed,
    mean_name,
    sweep_of,
)
from lightning_m2pt.metrics.means import MMAVG, benchmark_mean

STARTS = {SAME_RATES: "begin as random rows", WORDS: "begin as words"}
"""M2PT by the start of its textual prompts; both have the rates that M2PT without them has."""
PAGE = "docs/how_to/real_pair.md"


def is_above(gain: Mapping[str, float]) -> int:
    """Returns the sign of a difference whose 95% interval leaves out zero, and 0 of one that does not."""
    return (gain["low"] > 0) - (gain["high"] < 0)


def gain_words(gain: Mapping[str, float]) -> str:
    """Returns a difference in points with its interval."""
    return f"{gain['difference']:+.1f}, {gain['low']:+.1f} to {gain['high']:+.1f}"


def textual_sentence(content: Content) -> str:
    """Returns what textual prompts of either start change on the pair, beside M2PT without them."""
    verbs = {1: "raise the mean", 0: "change nothing clear in the mean", -1: "lower the mean"}
    gains = content["gains"].get(LANGUAGE, {})
    found = [
        f"that {start} {verbs[is_above(gains[label])]} ({gain_words(gains[label])})"
        for label, start in STARTS.items()
        if label in gains
    ]
    if not found:
        return f"**On real weights, [SmolLM2-135M and DINOv2-small]({PAGE}), M2PT's ablation has not been run.**"
    return (
        f"**On real weights, [SmolLM2-135M and DINOv2-small]({PAGE}), M2PT's textual prompts {', those '.join(found)}"
        f"**: points of {mean_name(content)} beside M2PT without them{rates_said(content)}; paired 95% intervals over "
        f"pictures{' and seeds' if seeds_of(content) != '1 seed' else ' of one seed'}."
    )


def rates_said(content: Content) -> str:
    """Returns that all that is compared there has the same rates; nothing where a search chose others for some."""
    rates = [
        content["methods"][label].get("searched_rates", {})
        for label in (LANGUAGE, *STARTS)
        if label in content["methods"]
    ]
    return ", at the same rates" if all(each == rates[0] for each in rates) else ""


def seeds_of(content: Content) -> str:
    """Returns how many seeds the methods of a stored sweep have, in words."""
    counts = [len(found["by_seed"]) for found in content["methods"].values()]
    fewest, most = min(counts), max(counts)
    return f"{most} seed{'s' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} seeds"


def ranking_sentence(content: Content) -> str:
    """Returns every method's mean there, the best first: clearly above the untouched model, level with it, or below.

    What is left of M2PT from words is in the page's table alone, as is a method whose answers were not compared.
    """
    sweep = sweep_of(content)
    over, mean = content["gains"][FROZEN], {label: row[MMAVG].mean for label, row in sweep.rows.items()}
    labels = [label for label in sweep.ranking if label not in (FROZEN, *OF_WORDS) and label in over]
    groups = {
        place: ", ".join(f"{listed([label])} {mean[label]:.1f}" for label in labels if is_above(over[label]) == sign)
        for place, sign in (("clearly above", 1), ("level", 0), ("clearly below", -1))
    }
    placed = "; ".join(f"{place}: {names or 'none'}" for place, names in groups.items())
    return (
        f"{mean_name(content)} there, {seeds_of(content)}, beside the untouched model's {mean[FROZEN]:.1f}: {placed}. "
        f"The best constant answers have {benchmark_mean(content['chance'])[1]:.1f}."
    )


def longer_sentence(content: Content) -> str:
    """Returns every method's mean after four times the steps, the best first, and what textual prompts change then."""
    sweep = sweep_of(content)
    means = ", ".join(f"{listed([label])} {sweep.rows[label][MMAVG].mean:.1f}" for label in sweep.ranking[:-1])
    gain = gain_words(content["gains"][LANGUAGE][WORDS])
    return f"With four times the steps, {seeds_of(content)}: {means}; textual prompts that begin as words: {gain}."


def sets_sentence(content: Content) -> str:
    """Returns on which sets every seed of a method is above both the untouched model and the best constant answer."""
    sweep, by_sets = sweep_of(content), dict[str, list[str]]()
    for label in sweep.ranking[:-1]:
        above = [
            shown
            for name, shown in SETS.items()
            if min(sweep.rows[label][name].values) > max(sweep.rows[FROZEN][name].mean, content["chance"][name])
        ]
        by_sets.setdefault(", ".join(above), []).append(label)
    nowhere = by_sets.pop("", [])
    parts = [f"{listed(labels)}: {names}" for names, labels in by_sets.items()]
    parts += [f"on no set: {listed(nowhere)}"] if nowhere else []
    return f"Above both the untouched model and the best constant answer in every seed: {'; '.join(parts)}."


def foretold_sentence(found: Mapping[str, Agreement | None]) -> str:
    """Returns how far the embedded backbones foretell that order.

    Args:
        found: The agreement by backbone's name.
    """
    parts = [
        f"{name} {agreed.tau:+.2f} ({agreed.low:+.2f} to {agreed.high:+.2f} over seeds, {len(agreed.methods)} methods)"
        for name, agreed in found.items()
        if agreed is not None
    ]
    return f"The embedded backbones foretell that order by a Kendall's tau of: {', '.join(parts) or 'not measured'}."
