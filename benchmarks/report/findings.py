"""Sentences that hold numbers: what the stored results say, in the words of the pages."""

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.learning.report import FROZEN, MEASURED, table_of
from benchmarks.report.cells import difference, paired_difference, quantile
from benchmarks.report.sweep_tables import LANGUAGE, LEAD, name_of, percent, sweep_of
from lightning_m2pt.metrics.means import MMAVG

Content = Mapping[str, Any]
FULL, PROJECTOR = "full", "projector"
LEARNING_TABLE = "[the learning table](../benchmarks/results/learning.md)"
PUBLISHED, CHARITABLE = "P0: as published", "P0': and fused attention"


def is_clear(value: float, half: float) -> bool:
    """Returns whether the 95% interval of a difference leaves out zero; not of single seeds."""
    return not math.isnan(half) and abs(value) > half


def level_with_lead(content: Content) -> list[str]:
    """Returns the methods of the comparison whose difference to M2PT on MMAvg is not clear."""
    sweep = sweep_of(content)
    lead = sweep.rows[LEAD][MMAVG]
    others = [name for name in sweep.ranking if name != LEAD]
    return [name for name in others if not is_clear(*difference(sweep.rows[name][MMAVG], lead))]


def comparison_sentences(content: Content) -> list[str]:
    """Returns what M2PT gains and costs, and which methods it is level with."""
    sweep = sweep_of(content)
    mean = {name: row[MMAVG].mean for name, row in sweep.rows.items()}
    gains = ", ".join(
        f"{abs(mean[LEAD] - mean[name]):.1f} {'above' if mean[LEAD] > mean[name] else 'below'} {words}"
        for name, words in (
            (FROZEN, "the untouched model"),
            (PROJECTOR, "the projector alone"),
            (FULL, f"full tuning of {percent(sweep.trained_percent[FULL])}"),
        )
    )
    level = ", ".join(name_of(name) for name in level_with_lead(content))
    return [
        f"M2PT trains {percent(sweep.trained_percent[LEAD])} of the numbers and is, in points of {MMAVG}, {gains}.",
        f"**Level with M2PT: {level or 'none'}.** All other methods are clearly ahead or behind.",
    ]


def textual_prompts(content: Content) -> tuple[float, float]:
    """Returns the points of MMAvg that leaving the textual prompts out changes, and half of the 95% interval."""
    rows = sweep_of(content).rows
    paired = paired_difference(rows[LANGUAGE][MMAVG], rows[LEAD][MMAVG])
    return paired.mean, quantile(paired.degrees) * paired.error


def ablation_sentence(content: Content) -> str:
    """Returns what the textual prompts are worth."""
    value, half = textual_prompts(content)
    words = "changes the mean" if is_clear(value, half) else "changes nothing clear in the mean"
    return f"**Leaving the textual prompts out {words}** ({value:+.1f} ± {half:.1f} points, paired by seed)."


def second_backbone(content: Content) -> tuple[float, float]:
    """Returns M2PT's lead over the projector alone there, in points of MMAvg, and half of its 95% interval."""
    rows = table_of(dict(content))
    return difference(rows[MEASURED][MMAVG], rows[PROJECTOR][MMAVG])


def second_backbone_sentence(content: Content) -> str:
    """Returns what came out on the second backbone."""
    rows = {name: row[MMAVG] for name, row in table_of(dict(content)).items()}
    value, half = second_backbone(content)
    words = "M2PT's lead over the projector holds" if is_clear(value, half) and value > 0 else "M2PT's lead is gone"
    named = ((MEASURED, "M2PT"), (PROJECTOR, "projector"), (FULL, "full"))
    counts = ", ".join(f"{name} {len(rows[key].values)}" for key, name in named)
    return (
        f"**On the second embedded backbone {words}**: {MMAVG} {rows[MEASURED]} against the projector's "
        f"{rows[PROJECTOR]}, the untouched model's {rows[FROZEN]} and full tuning's {rows[FULL]} (seeds: {counts}; "
        "rates searched on the first)."
    )


def signal_sentence(content: Content) -> str:
    """Returns how far the best and the weakest trained method are apart, in deviations over seeds."""
    trained = {name: row[MMAVG] for name, row in sweep_of(content).rows.items() if name != FROZEN}
    best, weakest = (choose(trained, key=lambda name: trained[name].mean) for choose in (max, min))
    spread = trained[best].mean - trained[weakest].mean
    deviation = max(cell.deviation for cell in trained.values())
    return (
        f"**Signal**: in the comparison of [methods](methods.md) the best trained one ({name_of(best)}) and the "
        f"weakest ({name_of(weakest)}) are {spread:.1f} points of {MMAVG} apart, {spread / deviation:.0f} times the "
        "largest standard deviation over seeds."
    )


def speed_sentence(training: Content, evaluation: Content, ours: str) -> str:
    """Returns how many times faster step and evaluation are than the forms they are measured beside.

    Args:
        training: The stored training steps.
        evaluation: The stored evaluation speeds.
        ours: The name of the step with all shortcuts.
    """
    ratios = {
        peer: [
            cell["peers"][peer]["median_seconds"] / cell["peers"][ours]["median_seconds"] for cell in training.values()
        ]
        for peer in (PUBLISHED, CHARITABLE)
    }
    published, charitable = (f"{min(found):.1f} to {max(found):.1f}" for found in ratios.values())
    shown = {name: found["times_naive"]["shared prefix"] for name, found in evaluation["sets"].items()}
    sets = ", ".join(f"{name} {times:.3g}" for name, times in shown.items())
    return (
        f"On a CPU the training step takes {published} times less process time than the published one and {charitable} "
        f"times less than its charitable form (no recompute, fused attention), with the same loss and gradients. "
        f"Evaluation is faster than a loop of single questions by these factors, with the same answers: {sets}."
    )


def instruction_set_sentence(learning: Content, logged: Content) -> str:
    """Returns where one run ended on other machines.

    Args:
        learning: The stored learning table of the first backbone.
        logged: What was read from the logs of runs that were not kept.
    """
    found = logged["m2pt_base_seed_0"]
    here = table_of(dict(learning))[MEASURED][MMAVG].values[0]
    return (
        f"Seed 0 of `m2pt_base` had an {MMAVG} of {here:.1f} in {LEARNING_TABLE}, {found['another machine']} on "
        f"another machine (there again and again bit for bit alike), and {found['AVX2 instead of AVX-512']} there with "
        f"AVX2 instead of AVX-512, single sets up to "
        f"{found['largest distance of a set']} points away: more than the "
        "spread over seeds. The shortcuts of the training step, added since, round otherwise too: "
        f"{found['shortcuts of the step']}."
    )


def patches_sentence(learning: Content, logged: Content) -> str:
    """Returns what two longer runs of M2PT with patches only reached on the held-out sets."""
    found = logged["m2pt_patches_300_steps"]
    reached = " and ".join(map(str, found["MMAvg by seed"]))
    says_yes = " and ".join(f"{share}%" for share in found["percent of POPE answered yes"])
    published = table_of(dict(learning))[MEASURED][MMAVG]
    return (
        f"After 300 steps two seeds of it reach {reached} on {MMAVG}; as published it has {published} in "
        f"{LEARNING_TABLE}. It says yes to {says_yes} of POPE's questions. From the runs' logs, not in a table."
    )
