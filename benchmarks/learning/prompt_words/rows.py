"""What every row of the table makes of the samples it was searched on, of others, and of sets nothing was tuned on."""

import json
import logging
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import numpy

from benchmarks.learning.prompt_words.base import Base, words_of_backbone
from benchmarks.learning.prompt_words.searches import best_of
from benchmarks.learning.prompt_words.setting import (
    CARRIED,
    DRAWN,
    PROPOSERS,
    SHUFFLED,
    TEXTS,
    UNTOUCHED,
    WRITTEN,
)
from experiments.configuration.cli import parse_experiment
from experiments.runs.evaluation import check_benchmarks, evaluate_frozen
from experiments.runs.prepare import check_experiment
from lightning_m2pt.inputs.reworded_template import PromptText
from lightning_m2pt.inputs.text_lists import read_texts
from lightning_m2pt.prompt_search.placing import QUESTION_MARK
from lightning_m2pt.prompt_search.prompt_texts import Prompt, PromptTexts
from lightning_m2pt.prompt_search.record import SearchRecord
from lightning_m2pt.system.atomic_files import write_atomically

LOG = logging.getLogger("prompt_words")
TEXT, SEARCHED, LOSSES, RIGHT, ANSWERS = "texts", "searched_loss", "losses", "right", "answers"
HELD_OUT, TABLE = "held_out", "rows"
DRAWS_TRIED = 100


def measure_rows(base: Base, seed: int, record: SearchRecord, other: SearchRecord | None, folder: Path) -> None:
    """Measures what of the rows is not measured; after every row the record has it.

    Args:
        base: The backbone.
        seed: The seed.
        record: Its record, whose searches are over.
        other: The other backbone's of the same seed; None leaves its row out.
        folder: Where answers go.
    """
    held_out = base.held_out
    record.measured[HELD_OUT] = {
        "tokens": base.tokens_of(held_out),
        "pictures": [sample.image_id for sample in held_out],
    }
    known = record.measured.setdefault(TABLE, {})
    searched = base.searched(seed)
    texts = base.texts_of(searched)
    if WRITTEN not in known:
        known[WRITTEN] = measured(base, [best_written(base, texts)], texts)
        record.write()
    for name, prompts in prompts_of_rows(base, seed, record, other, texts).items():
        if name not in known:
            known[name] = measured(base, prompts, texts)
            record.write()
            LOG.info("%s, seed %d, %s: %.4f on what was searched on", base.name, seed, name, known[name][SEARCHED])
    for name in (UNTOUCHED, DRAWN, WRITTEN, *PROPOSERS, CARRIED):
        if base.setting.questions and name in known and ANSWERS not in known[name]:
            known[name][ANSWERS] = str(answered(base, known[name][TEXT][0], folder).relative_to(folder))
            record.write()


def prompts_of_rows(
    base: Base, seed: int, record: SearchRecord, other: SearchRecord | None, texts: PromptTexts
) -> dict[str, list[PromptText]]:
    """Returns the texts of every row but the hand-written ones; of several the mean is shown."""
    _, best = best_of(record)
    chosen: dict[str, list[PromptText]] = {
        UNTOUCHED: [PromptText()],
        DRAWN: [base.text_with(texts.words(prompt)) for prompt in drawn_prompts(base, texts, seed)],
        **{each: [base.text_with(texts.words(record.states[each].best))] for each in PROPOSERS},
        SHUFFLED: [base.text_with(texts.words(prompt)) for prompt in other_orders(best, base.setting.orders, seed)],
    }
    if other is not None:
        # Both backbones have the same tokenizer: a test holds it.
        chosen[CARRIED] = [base.text_with(texts.words(best_of(other)[1]))]
    return chosen


def drawn_prompts(base: Base, texts: PromptTexts, seed: int) -> list[Prompt]:
    """Returns prompts of random words that are read as they are written; others than random search draws."""
    generator = numpy.random.default_rng([seed, base.setting.length, 1])
    drawn = generator.choice(numpy.array(base.allowed.ids), (DRAWS_TRIED, base.setting.length)).tolist()
    return list(islice((p for p in map(tuple, drawn) if texts.survivors([p])), base.setting.drawn))


def other_orders(prompt: Prompt, number: int, seed: int) -> list[Prompt]:
    """Returns some of the other orders of a prompt's words, each once, drawn by a seed.

    One word again and again has no other order, and stands for itself.
    """
    distinct = sorted(set(permutations(prompt)) - {prompt}) or [prompt]
    order = numpy.random.default_rng([seed, len(distinct)]).permutation(len(distinct))[:number]
    return [distinct[place] for place in order.tolist()]


def best_written(base: Base, texts: PromptTexts) -> PromptText:
    """Returns the text of the list that loses least on the searched samples, of those that say something."""
    written = [text for text in read_texts(TEXTS).values() if not text.says_nothing]
    return min(written, key=lambda text: sum(base.outcomes(texts.samples, text).losses))


def measured(base: Base, prompts: list[PromptText], texts: PromptTexts) -> dict[str, Any]:
    """Returns what texts make of the searched and of the held-out samples, the mean over them."""
    tokens = sum(base.tokens_of(texts.samples))
    on_searched = [sum(base.outcomes(texts.samples, prompt).losses) / tokens for prompt in prompts]
    others = [base.outcomes(base.held_out, prompt) for prompt in prompts]
    return {
        TEXT: [prompt.question for prompt in prompts],
        SEARCHED: float(numpy.mean(on_searched)),
        LOSSES: numpy.mean([each.losses for each in others], axis=0).tolist(),
        RIGHT: numpy.mean([each.right for each in others], axis=0).tolist(),
    }


def answered(base: Base, question: str, folder: Path) -> Path:
    """Answers a few sets' questions with a text around them, as ``m2pt evaluate --prompt-text`` does.

    Returns:
        The folder with predictions and scores; what is there is not answered again.
    """
    settings = {"template": "vicuna_v1", "batch_size": 100, "max_new_tokens": 8, "limit": base.setting.questions}
    sets = [
        {"class_path": "data_modules.pope.POPE", "init_args": {"root": "data/testbed/pope", **settings}},
        {"class_path": "data_modules.cifar10.CIFAR10", "init_args": {"root": "data/testbed/cifar10", **settings}},
    ]
    words = [*words_of_backbone(base.name), "--benchmarks", json.dumps(sets), "--output_root", str(folder / base.name)]
    if question != QUESTION_MARK:
        # One file for every text: what is asked is decided by its words, not by its name.
        path = folder / base.name / "prompt.yaml"
        write_atomically(path, (json.dumps({"question": question}) + "\n").encode())
        words += ["--prompt-text", str(path)]
    experiment = parse_experiment(words)
    check_experiment(experiment)
    check_benchmarks(experiment)
    return evaluate_frozen(experiment)[0]
