"""What the comparison of searches says, in the words of the page on prompts."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.learning.prompt_words.intervals import Gain
from benchmarks.learning.prompt_words.rows import LOSSES, RIGHT
from benchmarks.learning.prompt_words.setting import CARRIED, PROPOSERS, SETS, SHUFFLED, SOFT, UNTOUCHED, WRITTEN
from benchmarks.learning.prompt_words.soft import SWAPS
from benchmarks.learning.prompt_words.table import interval_text, tables_of
from benchmarks.report.markdown import wrapped
from benchmarks.report.sweep_tables import SETS as SET_LABELS
from lightning_m2pt.report.tables.formats import markdown

Content = Mapping[str, Any]
NOTHING = (
    "Nothing of this has been measured at full size yet: `python -m benchmarks.learning.prompt_words` does, goes on "
    "after a stop, and `python -m benchmarks.report.front` writes what it found here."
)
FEW_SEEDS = 3
PLACES = {"behind_question": "behind the question", "before_question": "between picture and question"}


def found_lines(content: Content, chart: str) -> list[str]:
    """Returns the page's part: what was done, what came out in sentences, the picture, the tables.

    Args:
        content: What is stored; nothing where the comparison was not made.
        chart: The picture as seen from the page.
    """
    if not content:
        return [*wrapped(NOTHING), ""]
    lines = [*wrapped(introduction(content)), ""]
    for name, part in content["backbones"].items():
        lines += wrapped(f"**`{name}`.** {' '.join(sentences(part))}", "- ")
    lines += ["", f"![Least loss of each search by the rows it has run, on both backbones]({chart})", ""]
    return [*lines, *markdown(tables_of(content)).splitlines(), ""]


def introduction(content: Content) -> str:
    """Returns what was done."""
    settings = content["settings"]
    seeds = sorted({seed for part in content["backbones"].values() for seed in part["seeds"]})
    word = "seed" if len(seeds) == 1 else "seeds"
    partial = f" So far {len(seeds)} of {FEW_SEEDS} seeds have run." if len(seeds) < FEW_SEEDS else ""
    return (
        f"Prompts of {settings['length']} words {PLACES[settings['position']]}, words of answers left out, for the "
        f"untouched model; each search has the same start, {settings['searched']} conversations and "
        f"{settings['budget']:,} rows of the language model, with {len(seeds)} {word} of samples, start and draws. "
        f"Nothing was chosen on what the tables call held out, nor on the sets.{partial}"
    )


def sentences(part: Content) -> list[str]:
    """Returns what came out on one backbone."""
    return [
        searched_sentence(part),
        held_out_sentence(part),
        sets_sentence(part),
        order_sentence(part),
        *([carried_sentence(part)] if CARRIED in part["rows"] else []),
        promise_sentence(part),
    ]


def searched_sentence(part: Content) -> str:
    """Returns how the searches rank on what they search on, and where they stand beside no prompt and free rows."""
    mean = {name: statistics.fmean(row["searched_loss"]) for name, row in part["rows"].items()}
    ranked = sorted(PROPOSERS, key=lambda name: mean[name])
    shown = ", ".join(f"{name} {mean[name]:.3f}" for name in ranked)
    below = [name for name in ranked if mean[name] < mean[UNTOUCHED]]
    against = f"below it: {', '.join(below)}" if below else "no search goes below it"
    return (
        f"Least loss on what is searched on: {shown}; free rows in the words' places {mean[SOFT]:.3f}, the best "
        f"hand-written text {mean[WRITTEN]:.3f}, without a prompt {mean[UNTOUCHED]:.3f}: {against}."
    )


def held_out_sentence(part: Content) -> str:
    """Returns which rows are clearly better or worse than no prompt on other pictures, by loss and by answers."""
    said = []
    for key, words, sign in ((LOSSES, "loss", -1), (RIGHT, "share of right answers", 1)):
        gains = {name: Gain(*row[f"{key}_to_none"]) for name, row in part["rows"].items() if name != UNTOUCHED}
        better = [name for name, gain in gains.items() if gain.is_clear and sign * gain.value > 0]
        worse = [name for name, gain in gains.items() if gain.is_clear and sign * gain.value < 0]
        said.append(f"by {words} clearly better than no prompt: {listed(better)}; clearly worse: {listed(worse)}")
    return f"On other pictures, {'; '.join(said)}."


def sets_sentence(part: Content) -> str:
    """Returns which rows clearly change scores on sets that nothing was searched on."""
    said = []
    for each in SETS:
        gains = {name: row["sets"][each] for name, row in part["rows"].items() if name != UNTOUCHED and row["sets"]}
        clear = [
            f"{name} {gain['gain']:+.1f}"
            for name, gain in gains.items()
            if Gain(gain["gain"], gain["low"], gain["high"]).is_clear
        ]
        said.append(f"{SET_LABELS[each]}: {listed(clear)}")
    return f"Clear changes on sets that nothing was searched on, in points: {'; '.join(said)}."


def order_sentence(part: Content) -> str:
    """Returns whether the order of the best words matters."""
    gain = part["rows"][SHUFFLED][f"{LOSSES}_to_best"]
    words = "matters" if Gain(*gain).is_clear else "changes nothing clear"
    return f"The order of the best words {words}: shuffled, their loss on other pictures changes by " + (
        f"{interval_text(gain, 3)}."
    )


def carried_sentence(part: Content) -> str:
    """Returns what words that were found on the other backbone are worth here."""
    row = part["rows"][CARRIED]
    return (
        f"Words found on the other backbone: loss {interval_text(row[f'{LOSSES}_to_none'], 3)} to no prompt, "
        f"{interval_text(row[f'{LOSSES}_to_drawn'], 3)} to random words."
    )


def promise_sentence(part: Content) -> str:
    """Returns how far the change that the gradient promises agrees with the true one."""
    shown = ", ".join(f"{each['spearman']:.2f}" for each in part[SWAPS])
    within = statistics.fmean(each["best_within"] for each in part[SWAPS])
    return (
        f"Rank correlation of the change that a gradient promises with the true one, by seed: {shown}; the truly best "
        f"word is among the most promising in {within:.0%} of the places."
    )


def listed(names: Sequence[str]) -> str:
    """Returns names as a list, or that there is none."""
    return ", ".join(names) or "none"
