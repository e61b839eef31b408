"""The searches of one backbone and seed: all from the same start, on the same samples, with the same budget."""

import hashlib
import logging
from pathlib import Path

from benchmarks.learning.prompt_words.base import Base
from benchmarks.learning.prompt_words.setting import PROPOSERS
from experiments.runs.training import tuning_data
from lightning_m2pt.prompt_search.prompt_texts import Prompt, drawn_start
from lightning_m2pt.prompt_search.proposers.known import proposer_named
from lightning_m2pt.prompt_search.record import SearchRecord, found_record
from lightning_m2pt.prompt_search.search import SearchTask, run_search, started
from lightning_m2pt.prompt_search.state import SearchState

LOG = logging.getLogger("prompt_words")


def record_of(base: Base, seed: int, folder: Path) -> SearchRecord:
    """Returns the record of a backbone and seed, with whatever is done.

    Raises:
        BadInputError: If it was made with other sizes, data or weights.
    """
    path = folder / base.name / f"seed_{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    held_out = repr([sample.id for sample in base.held_out]).encode()
    settings = {
        **base.setting.to_json(),
        "seed": seed,
        "backbone": base.backbone.fingerprint(),
        "data": tuning_data(base.experiment).fingerprint(),
        "template": tuning_data(base.experiment).template_label,
        "samples": [sample.id for sample in base.searched(seed)],
        "held_out_sha256": hashlib.sha256(held_out).hexdigest(),
    }
    return found_record(path, settings)


def run_searches(base: Base, seed: int, record: SearchRecord) -> None:
    """Runs what of the searches is not over; after every round the record has where they stand."""
    if all(name in record.states and record.states[name].ended for name in PROPOSERS):
        return
    setting, texts = base.setting, base.texts_of(base.searched(seed))
    scorer = base.scorer_of(texts)
    start = drawn_start(texts, base.allowed.ids, setting.length, seed)
    for name in PROPOSERS:
        state = record.states.get(name)
        if state is None:
            scorer.rows = 0
            state = started(scorer, start)
        proposer = proposer_named(name, setting.width, setting.top_k, setting.beam)
        task = SearchTask(proposer, scorer, texts, base.allowed.ids, setting.budget, seed)

        def on_round(reached: SearchState, name: str = name) -> None:
            record.states[name] = reached
            record.write()

        end = run_search(task, state, on_round)
        words = texts.words(end.best)
        LOG.info("%s, seed %d, %s: loss %.4f, %r (%s)", base.name, seed, name, end.best_loss, words, end.ended)


def best_of(record: SearchRecord) -> tuple[str, Prompt]:
    """Returns the search that found the least loss, and what it found."""
    name = min(PROPOSERS, key=lambda each: record.states[each].best_loss)
    return name, record.states[name].best
