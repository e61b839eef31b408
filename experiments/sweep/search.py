"""The learning-rate search of a sweep: the same number of short tunings for every variant, judged on tuned tasks.

Every trial is an ordinary ``m2pt fit --validate`` with fewer steps: the answer accuracy on the validation split of
the tuned tasks, or on its first batches, decides. No held-out set is read. A trial's rates follow from its number
alone, so that searches that run in parallel, or were cut off, give the same trials.
"""

import fnmatch
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from experiments.sweep.file import SearchPlan
from experiments.sweep.jobs import Job, SweepSettings, by_name, digest_of, experiment_words, seed_words
from experiments.sweep.variant import Variant
from lightning_m2pt.errors import BadInputError, ExitCode

FINAL_FAILURES = (ExitCode.DIVERGED,)
"""A trial whose loss is not finite has its answer: it is not chosen."""
SIGNIFICANT_DIGITS = 3
LIMIT = "--trainer.limit_val_batches"


@dataclass(frozen=True)
class VariantSearch:
    """The search of one variant.

    Attributes:
        variant: The variant.
        fingerprint: Stands for all that decides its trials.
        stated: Learning rate by part as its file states it: the first trial.
        steps: Optimizer steps of a trial.
        rates: Every trial's rates by part, in the order of their numbers.
        trials: Their jobs.
    """

    variant: Variant
    fingerprint: str
    stated: dict[str, float]
    steps: int
    rates: list[dict[str, float]]
    trials: list[Job]


def fingerprint(plan: SearchPlan, variant: Variant, setting: SweepSettings) -> str:
    """Returns what stands for all that decides a variant's trials; needs no experiment parsed."""
    configs, others = setting.configs(variant), variant.other_files
    words = by_name(experiment_words(variant, setting, {}), (*configs, *others))
    decides = asdict(replace(plan, where=""))
    if not plan.validation_batches:
        del decides["validation_batches"]  # searches from before there was this key still count
    return digest_of([decides, words], configs, others)


def trial_rates(
    stated: Mapping[str, float], ranges: Mapping[str, tuple[float, float]], number: int
) -> dict[str, float]:
    """Returns the rates of one trial, which depend on nothing but these arguments.

    Args:
        stated: Learning rate by part as the experiment's file states it.
        ranges: Lowest and highest rate by part.
        number: 0 gives the stated rates; the others are points of the Halton sequence on a logarithmic scale.
    """
    if number == 0:
        return dict(stated)
    from scipy.stats import qmc

    point = qmc.Halton(len(stated), scramble=False).fast_forward(number).random(1)[0]
    found = {}
    for part, share in zip(stated, point, strict=True):
        low, high = map(math.log, ranges[part])
        found[part] = float(f"{math.exp(low + share * (high - low)):.{SIGNIFICANT_DIGITS}g}")
    return found


def ranges_of(plan: SearchPlan, variant: Variant, parts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Returns the range of every part: that of the first pattern which fits its name.

    Raises:
        BadInputError: If none does.
    """
    found = {}
    for part in parts:
        fitting = [bounds for pattern, bounds in plan.ranges.items() if fnmatch.fnmatchcase(part, pattern)]
        if not fitting:
            raise BadInputError(
                f"no range fits the part {part!r} of {variant.label!r}",
                where=f"{plan.where}: search.ranges",
                expected=f"a pattern with its lowest and highest rate, such as {part}: [1e-4, 1e-2]",
            )
        found[part] = fitting[0]
    return found


def plan_search(
    plan: SearchPlan, variant: Variant, setting: SweepSettings, stated: Mapping[str, float], max_steps: int
) -> VariantSearch:
    """Returns a variant's trials.

    Args:
        plan: How rates are searched.
        variant: The variant.
        setting: Backbone and output folder.
        stated: Learning rate by trained part.
        max_steps: Optimizer steps of the whole experiment.

    Raises:
        BadInputError: If steps or a range are missing.
    """
    if max_steps < 1:
        raise BadInputError(
            f"{variant.label!r} does not say its steps",
            where=f"{plan.where}: share_of_steps",
            expected="experiments with trainer.max_steps",
            hint="m2pt sweep run FILE --no-search takes the rates of the experiments' files",
        )
    ranges = ranges_of(plan, variant, list(stated))
    rates = [trial_rates(stated, ranges, number) for number in range(plan.trials)]
    return with_jobs(plan, variant, setting, dict(stated), max(1, round(plan.share_of_steps * max_steps)), rates)


def with_jobs(
    plan: SearchPlan,
    variant: Variant,
    setting: SweepSettings,
    stated: dict[str, float],
    steps: int,
    rates: list[dict[str, float]],
) -> VariantSearch:
    """Returns a variant's search with the jobs of its trials."""
    jobs = [trial_job(plan, variant, setting, number, steps, rates[number]) for number in range(len(rates))]
    return VariantSearch(variant, fingerprint(plan, variant, setting), stated, steps, rates, jobs)


def trial_job(
    plan: SearchPlan, variant: Variant, setting: SweepSettings, number: int, steps: int, rates: Mapping[str, float]
) -> Job:
    """Returns one trial: a short tuning into a folder of its own, and its validation in the same process."""
    words = ("fit", *experiment_words(variant, setting, rates), *seed_words(plan.seed))
    words = (*words, "--trainer.max_steps", str(steps))
    if plan.validation_batches:
        words = (*words, LIMIT, str(plan.validation_batches))
    job = Job(
        variant.label,
        f"trial {number}",
        "trial",
        (words,),
        setting.configs(variant),
        setting.output_root,
        variant.other_files,
    )
    run = (setting.output_root / "sweeps" / "trials" / job.file_stem).as_posix()
    return replace(job, commands=((*words, "--run", run, "--validate"),))


def chosen_rates(
    variants: Sequence[Variant], searches: Mapping[str, VariantSearch], chosen: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Returns the winners' rates by variant's label.

    Stated rates need no words and are left out, but for a variant that takes those of another one: its own file may
    state others.

    Args:
        variants: All of the sweep.
        searches: Searches by the label of the variant that was searched.
        chosen: Best trials' numbers by the same.
    """
    return {
        variant.label: searches[variant.searched].rates[chosen[variant.searched]]
        for variant in variants
        if variant.searched in chosen and (chosen[variant.searched] != 0 or variant.rates_of)
    }


def without_rates(variants: Sequence[Variant], chosen: Mapping[str, int]) -> list[Variant]:
    """Returns the variants whose rates are still to be chosen.

    Args:
        variants: All of the sweep.
        chosen: Best trials' numbers by the label of the variant that was searched.
    """
    return [variant for variant in variants if variant.searched not in chosen]


def check_borrowed(
    variant: Variant, stated: Mapping[str, float], possible: Collection[str], lender: VariantSearch
) -> None:
    """Looks whether a variant's parts and those of the one whose rates it takes belong together.

    A lender may train more: an ablation has the rates of the whole method, and a part that is switched off has no use
    for its own. A rate of a part that the variant's method does not have would be refused behind the search.

    Args:
        variant: It takes the rates of another one.
        stated: Learning rate by part as its file states it.
        possible: Parts that its method has, switched on or off.
        lender: The other one's search.

    Raises:
        BadInputError: If the other one has no rate of a part, or one of a part that the variant cannot have.
    """
    if not set(stated) <= set(lender.stated) <= {*stated, *possible}:
        raise BadInputError(
            f"{variant.label!r} has rates of {', '.join(stated)}, {variant.rates_of!r} of {', '.join(lender.stated)}",
            where=f"{variant.where}: rates_of",
            expected="a cell that trains these parts, and others that the method has perhaps",
        )
