"""Where a sweep's search is kept: Optuna's journal, which its own tools read, and ``search.json`` for reports.

Both follow from the record of the trials and are brought up to it; Optuna names the best trial.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.sweep.file import SweepFile
from experiments.sweep.jobs import SweepSettings
from experiments.sweep.record import Entry, State, SweepRecord, is_complete
from experiments.sweep.runner import ACCURACY, trial_folder
from experiments.sweep.search import FINAL_FAILURES, LIMIT, VariantSearch, fingerprint, with_jobs
from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say
from lightning_m2pt.system.file_lock import locked
from lightning_m2pt.system.strict_json import parse_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import JournalStorage

SEARCH_FILE, JOURNAL_FILE = "search.json", "search.journal"
FORMAT = 1
NUMBER = "number"
DECIDES = "val/answer_accuracy on {} of the tuned tasks; among equals the lower number"


def require_packages() -> None:
    """Looks for the packages of a search before anything runs.

    Raises:
        EnvironmentFailure: If one is missing.
    """
    try:
        import optuna
        from scipy.stats import qmc  # noqa: F401
    except ImportError as error:
        raise EnvironmentFailure(
            f"the package {error.name} is not installed",
            where="search",
            expected="the extra `sweeps`",
            hint="pip install -e '.[sweeps]', or m2pt sweep run FILE --no-search",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def known_searches(
    sweep: SweepFile, setting: SweepSettings, folder: Path
) -> tuple[dict[str, VariantSearch], dict[str, int]]:
    """Returns what ``search.json`` holds and is still so: searches and best trials' numbers by variant's label."""
    path = folder / SEARCH_FILE
    if sweep.search is None or not path.is_file():
        return {}, {}
    try:
        content: dict[str, Any] = parse_json(path.read_bytes(), path)
        return recorded_searches(content["variants"] if content["format"] == FORMAT else {}, sweep, setting)
    except (ValueError, TypeError, LookupError, AttributeError):
        return {}, {}  # a damaged file is written again from the record of the trials


def recorded_searches(
    recorded: Mapping[str, Any], sweep: SweepFile, setting: SweepSettings
) -> tuple[dict[str, VariantSearch], dict[str, int]]:
    """Returns which of the recorded searches are those of a sweep, and the numbers of their best trials.

    Args:
        recorded: What ``search.json`` has below ``variants``; anything may fail with what is damaged.
        sweep: The sweep, with a search.
        setting: Backbone and output folder.
    """
    searches: dict[str, VariantSearch] = {}
    chosen: dict[str, int] = {}
    assert sweep.search is not None
    for variant in (each for each in sweep.variants if not each.rates_of):
        found = recorded.get(variant.label)
        if found is not None and found["fingerprint"] == fingerprint(sweep.search, variant, setting):
            rates = [{**trial["rates"]} for trial in found["trials"]]
            search = with_jobs(sweep.search, variant, setting, {**found["stated"]}, found["steps"], rates)
            searches[variant.label] = search
            if found["chosen"] is not None:
                chosen[variant.label] = range(len(rates)).index(found["chosen"])  # a trial that there is
    return searches, chosen


def conclude(searches: Sequence[VariantSearch], record: SweepRecord) -> dict[str, int]:
    """Brings journal and ``search.json`` up to the record.

    Returns:
        The best trial's number by variant's label, for the variants whose trials have all ended.
    """
    record.folder.mkdir(parents=True, exist_ok=True)
    with locked(record.folder / JOURNAL_FILE, lambda: say("waiting: another process is writing the search's journal")):
        storage = opened_journal(record.folder / JOURNAL_FILE)
        studies = {search.variant.label: study_of(storage, search, record) for search in searches}
        best = {search.variant.label: best_trial(studies[search.variant.label], search) for search in searches}
        chosen = {label: number for label, number in best.items() if number is not None}
        variants = {
            search.variant.label: described(search, studies[search.variant.label], record, chosen)
            for search in searches
        }
        content = {"format": FORMAT, "decides": decides(searches), "variants": variants}
        write_atomically(record.folder / SEARCH_FILE, (json.dumps(content, indent=2) + "\n").encode())
    return chosen


def decides(searches: Sequence[VariantSearch]) -> str:
    """Returns what chooses among trials, in words; all searches of a sweep have one plan."""
    words = searches[0].trials[0].commands[0] if searches else ()
    batches = words[words.index(LIMIT) + 1] if LIMIT in words else ""
    return DECIDES.format(f"the first {batches} batches of the validation split" if batches else "the validation split")


def study_of(storage: "JournalStorage", search: VariantSearch, record: SweepRecord) -> "Study":
    """Returns a variant's study with what its trials gave so far.

    A trial is added when it has ended and all before it are there, so that the study is the same in whichever order
    they ended.
    """
    import optuna

    study = optuna.create_study(
        storage=storage,
        study_name=f"{search.variant.label} {search.fingerprint[:8]}",
        direction="maximize",
        load_if_exists=True,
    )
    for number in range(len(study.get_trials(deepcopy=False)), len(search.trials)):
        entry = record.read(search.trials[number])
        if entry is None or not has_ended(search, number, entry):
            break
        add_trial(study, search, number, entry)
    return study


def best_trial(study: "Study", search: VariantSearch) -> int | None:
    """Returns the best trial's number once all have ended; None before, and if none ended well."""
    from optuna.trial import TrialState

    if len(study.get_trials(deepcopy=False)) < len(search.trials):
        return None
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return int(study.best_trial.user_attrs[NUMBER]) if trials else None


def has_ended(search: VariantSearch, number: int, entry: Entry) -> bool:
    """Tells whether a trial has its answer: figures, or a loss that is not finite."""
    diverged = entry.state == State.FAILED and entry.exit_code in FINAL_FAILURES
    return diverged or is_complete(search.trials[number], entry)


def add_trial(study: "Study", search: VariantSearch, number: int, entry: Entry) -> None:
    """Adds an ended trial to its study."""
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    given = {part: [rates[part] for rates in search.rates] for part in search.stated}
    study.add_trial(
        create_trial(
            state=TrialState.COMPLETE if entry.values else TrialState.FAIL,
            value=entry.values.get(ACCURACY),
            params=search.rates[number],
            distributions={part: FloatDistribution(min(rates), max(rates)) for part, rates in given.items()},
            user_attrs={NUMBER: number, **entry.values},
        )
    )


def opened_journal(path: Path) -> "JournalStorage":
    """Opens the journal; a last line that a kill cut off is dropped, for it would spoil the next one."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
    # Whoever is here holds the lock of `conclude`, so a lock of Optuna's own was left by a kill.
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


def described(search: VariantSearch, study: "Study", record: SweepRecord, chosen: Mapping[str, int]) -> dict[str, Any]:
    """Returns a variant's search as reports read it: a study keeps its figures when the record is gone."""
    studied = {trial.user_attrs[NUMBER]: trial.user_attrs for trial in study.get_trials(deepcopy=False)}
    trials = []
    for number, (rates, job) in enumerate(zip(search.rates, search.trials, strict=True)):
        entry = record.read(job)
        figures = studied.get(number) or (entry.values if entry is not None else {})
        trials.append({NUMBER: number, "rates": rates, "run": trial_folder(job), **figures})
    return {
        "fingerprint": search.fingerprint,
        "steps": search.steps,
        "stated": search.stated,
        "chosen": chosen.get(search.variant.label),
        "trials": trials,
    }
