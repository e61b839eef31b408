"""The last lines of a training or an evaluation: the score, what it gained, where everything is, what comes next."""

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

from lightning_m2pt.metrics.means import NEVER_A_MEMBER, benchmark_mean
from lightning_m2pt.metrics.predictions import PredictionFile
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.metrics.statistics import Floats, percentile_interval, resampled_gain
from lightning_m2pt.report.tables.frozen_and_tuned import mean_of_sets, members_of

UNKNOWN = "not known: the untouched model has not answered these questions here"
NONE = "none: this is the untouched model"
OTHER_WORDS = "not measured: nothing is tuned, the words differ; `m2pt compare` with the answers in the set's own words"


def gains_of(
    frozen: Mapping[str, Score], tuned: Mapping[str, Score], answered: Mapping[str, PredictionFile]
) -> dict[str, Floats]:
    """Returns resamples of tuned minus frozen by set, in percent of each set's maximum.

    Args:
        frozen: Scores of the untouched model by set.
        tuned: Scores of the run by set.
        answered: Prediction files of either, for every set of ``tuned``.
    """
    return {name: resampled_gain(content, [frozen[name]], [tuned[name]]) for name, content in answered.items()}


def score_line(scores: Mapping[str, Score]) -> str:
    """Returns the one number: of a single set its own, of several their mean."""
    label, value, _ = one_number(scores)
    return f"{value:.1f} of 100, {label}"


def difference_line(
    frozen: Mapping[str, Score] | None, tuned: Mapping[str, Score], gains: Mapping[str, Floats] | None
) -> str:
    """Returns what was gained over the untouched model, with its paired 95% interval.

    Args:
        frozen: Scores of the untouched model by set; None if they are not known.
        tuned: Scores of the run by set.
        gains: Resampled gains by set; None leaves the interval out.
    """
    if frozen is None:
        return UNKNOWN
    _, before, _ = one_number(frozen)
    _, after, members = one_number(tuned)
    text = f"{after - before:+.1f} to the untouched model ({before:.1f})"
    if gains is None:
        return text
    interval = percentile_interval(mean_of_sets([gains[name] for name in members]))
    noise = ": inside the noise" if interval.holds_zero else ""
    return f"{text}, 95% interval {interval.low:+.1f} to {interval.high:+.1f}{noise}"


def one_number(scores: Mapping[str, Score]) -> tuple[str, float, list[str]]:
    """Returns what the headline of some sets is called, its value, and the keys of the sets in it."""
    members = {scored.name: name for name, scored in scores.items() if name != NEVER_A_MEMBER}
    if len(scores) == 1 or not members:
        name, scored = next(iter(scores.items()))
        return f"{scored.name} ({scored.headline})", scored.value, [name]
    if len(members) == 1:
        label, name = next(iter(members.items()))
        return f"{label} ({scores[name].headline})", scores[name].value, [name]
    label, value = benchmark_mean({text: scores[name].value for text, name in members.items()})
    return label, value, [members[text] for text in members_of(label, list(members))]


def next_command(run: Path, frozen: Path | None, parts: Collection[str]) -> str:
    """Returns a command that tells more about a run.

    Args:
        run: The run's folder, or that of the evaluation.
        frozen: The folder with the untouched model's answers to the same questions; None if there is none.
        parts: The parts of the method that can be left out; none where that has been done, or says nothing.
    """
    if len(parts) > 1:
        return command("evaluate", "--run", str(run), "--knock-out", next(iter(parts)))
    if frozen is not None:
        return command("compare", str(frozen), str(run))
    return command("report", str(run))


def asking_line(run: Path) -> str:
    """Returns the line that says how the tuned model is asked what is in no set."""
    return f"ask it       {command('ask', str(run))} PICTURE QUESTION"


def command(*words: str) -> str:
    """Returns a command as a shell takes it."""
    return shlex.join(("m2pt", *words))


def last_lines(score: str, difference: str, where: Path, command_after: str) -> list[str]:
    """Returns the three lines, and what to try next."""
    return [
        f"score        {score}",
        f"difference   {difference}",
        f"where        {where}",
        f"try next     {command_after}",
    ]
