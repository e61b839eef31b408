"""Runs ``m2pt search-prompt``; its flags and what it is for are in ``parsers``."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from rich.table import Table

from experiments.commands.parsers.search_prompt import argument_parser
from experiments.commands.validate import require_validation_split
from experiments.configuration.cli import Experiment
from experiments.runs.folder import deciding
from experiments.runs.loading import experiment_of, load_tuned
from experiments.runs.prepare import check_experiment
from experiments.runs.training import tuning_data
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inputs.named_templates import RewordedTemplate, read_prompt
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.prompt_search.allowed_tokens import AllowedTokens, allowed_tokens
from lightning_m2pt.prompt_search.cost import refuse_small_budget, refuse_without_consent, search_cost
from lightning_m2pt.prompt_search.prompt_texts import Prompt, PromptTexts
from lightning_m2pt.prompt_search.proposers.base import Proposer
from lightning_m2pt.prompt_search.proposers.known import proposer_named
from lightning_m2pt.prompt_search.recomputed import loss_in_template
from lightning_m2pt.prompt_search.record import SearchRecord, found_record, prompt_file, record_path
from lightning_m2pt.prompt_search.scored_samples import scored_samples
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.search import run_search, started
from lightning_m2pt.prompt_search.state import SearchState
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import OUT, say
from lightning_m2pt.system.file_lock import locked

SECONDS_BETWEEN_LINES = 15.0
SHARES_SHOWN = (0.25, 0.5, 0.75, 1.0)
"""Shares of the budget at which the table says what was found."""
STARTS_TRIED = 100
RANDOM = "random"


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    record_file = record_path(own.output)
    if not own.output.parent.is_dir():
        raise BadInputError(
            "there is no such folder", where=f"command line: --output {own.output}", expected="a folder that is there"
        )
    experiment = experiment_of(own.run, None, rest)
    check_experiment(experiment)
    require_validation_split(experiment)
    refuse_own_words(experiment)
    samples, others = chosen_samples(experiment, own.samples, own.seed)
    data, backbone = tuning_data(experiment), experiment.model.backbone
    texts = PromptTexts(samples, data.processor, data.template, own.position, data.max_text_length)
    allowed = allowed_tokens(texts, list(data.read_once()[1]), own.answer_words == "yes")
    start = drawn_start(texts, allowed, own.length, own.seed)
    scorer = PromptScorer(backbone, data.processor, scored_samples(texts, backbone), own.length)
    proposers = [proposer_named(own.proposer, own.width, own.top_k, own.beam)]
    if own.random_beside == "yes" and own.proposer != RANDOM:
        proposers.append(proposer_named(RANDOM, own.width, own.top_k, own.beam))
    device = device_of(experiment, own.device)
    say_and_refuse(own, scorer, allowed, proposers, device)
    settings = settings_of(own, experiment, samples, start, proposers[0])
    with locked(record_file, lambda: say("waiting: another process searches with this output")):
        record = found_record(record_file, settings)
        load(own.run, experiment, device)
        for proposer in proposers:
            search(own, record, proposer, scorer, texts, allowed, start)
        finish(own.output, record, experiment, texts, others, own.proposer)
    OUT.print(curve_table(record.states, own.budget))
    say(f"prompt: {own.output} (--prompt-text), record: {record_file}")
    return ExitCode.DONE


def refuse_own_words(experiment: Experiment) -> None:
    """Refuses an experiment whose template has a prompt's words already: a prompt's file goes on top of none.

    Raises:
        BadInputError: If it has.
    """
    template = tuning_data(experiment).template
    if isinstance(template, RewordedTemplate):
        raise BadInputError(
            f"the template {template.name} has a prompt's words already",
            where="data.template",
            expected="a template without any, and no --prompt-text",
        )


def chosen_samples(experiment: Experiment, number: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Returns the samples that prompts are scored on, and as many others at most on which the result is looked at.

    Both are of the validation split of the tuned tasks: a held-out set chooses nothing.
    """
    split = tuning_data(experiment).read_once()[1]
    order = numpy.random.default_rng([seed, len(split)]).permutation(len(split)).tolist()
    chosen, others = sorted(order[:number]), sorted(order[number : 2 * number])
    return [split[place] for place in chosen], [split[place] for place in others]


def drawn_start(texts: PromptTexts, allowed: AllowedTokens, length: int, seed: int) -> Prompt:
    """Returns the first of some drawn prompts that is read as it is written: every proposer's start.

    Raises:
        BadInputError: If none is.
    """
    drawn = numpy.random.default_rng([seed, length]).choice(numpy.array(allowed.ids), size=(STARTS_TRIED, length))
    for prompt in drawn.tolist():
        if texts.survivors([tuple(prompt)]):
            return tuple(prompt)
    raise BadInputError(
        f"none of {STARTS_TRIED} drawn prompts is read as it is written",
        where="command line: --length",
        expected="a shorter prompt, or another --position",
    )


def device_of(experiment: Experiment, named: str | None) -> torch.device:
    """Returns where the search runs.

    Raises:
        BadInputError: If the flag names no device of this machine.
    """
    on_cpu = experiment.config["trainer"].get("accelerator") == "cpu" or not torch.cuda.is_available()
    try:
        device = torch.device(named or ("cpu" if on_cpu else "cuda"))
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise BadInputError(
            f"there is no device {named!r:.40} here", where="command line: --device", expected="cpu, or cuda"
        ) from error
    return device


def say_and_refuse(
    own: argparse.Namespace,
    scorer: PromptScorer,
    allowed: AllowedTokens,
    proposers: list[Proposer],
    device: torch.device,
) -> None:
    """Says what the search will cost, before weights load.

    Raises:
        BadInputError: If it needs a consent that was not given, or a budget pays for no round.
    """
    if not all(sample.has_pictures_in_head for sample in scorer.samples) and own.before_picture != "yes":
        raise BadInputError(
            f"the position {own.position} stands in front of a picture: each prompt then costs "
            f"{scorer.rows_of_prompt:,} rows, the picture's among them",
            where="command line: --position",
            expected="--position behind_question, which costs a prompt and what stands behind it, "
            "or --before-picture yes",
        )
    for proposer in proposers:
        refuse_small_budget(scorer, proposer.gradients, own.budget)
    cost = search_cost(scorer.backbone.shape, own.budget * len(proposers), device.type)
    refuse_without_consent(cost, own.yes)
    left_out = ", ".join(f"{number} {reason}" for reason, number in allowed.left_out.items() if number)
    say(f"words: {len(allowed.ids)} tokens; left out: {left_out or 'none'}")
    say(
        f"a prompt costs {scorer.rows_of_prompt:,} rows on {len(scorer.samples)} samples; {cost.sentence()} on {device}"
    )
    if scorer.why_not:
        say(f"note: nothing is shared between prompts: {scorer.why_not}")


def settings_of(
    own: argparse.Namespace, experiment: Experiment, samples: Sequence[Sample], start: Prompt, proposer: Proposer
) -> dict[str, Any]:
    """Returns all that decides what is found, budgets and devices aside."""
    decides, data = deciding(experiment), tuning_data(experiment)
    return {
        "backbone": decides["backbone"],
        "dtype": decides["dtype"],
        "method": decides["method"],
        "run": own.run.resolve().name if own.run else "",
        "data": decides["data_fingerprint"],
        "template": data.template_label,
        "samples": [sample.id for sample in samples],
        "position": own.position,
        "length": own.length,
        "answer_words": own.answer_words,
        "seed": own.seed,
        "start": list(start),
        "width": own.width,
        **proposer.settings(),
    }


def load(run: Path | None, experiment: Experiment, device: torch.device) -> None:
    """Loads the model onto a device, and compares its passes with the library's."""
    model = experiment.model
    load_tuned(run, None, experiment)
    model.configure_model()
    model.to(device)
    model.eval()
    model.compare_with_library("training")
    model.compare_with_library("answering")


def search(
    own: argparse.Namespace,
    record: SearchRecord,
    proposer: Proposer,
    scorer: PromptScorer,
    texts: PromptTexts,
    allowed: AllowedTokens,
    start: Prompt,
) -> None:
    """Searches with one proposer, from where its record says; a search that ended by a smaller budget goes on."""
    state = record.states.get(proposer.name)
    if state is None:
        scorer.rows = 0
        state = started(scorer, start)
    elif state.ended:
        say(f"{proposer.name}: ended before ({state.ended})")
    state = SearchState(**{**vars(state), "ended": ""})
    first, began, last = state.rows, time.monotonic(), time.monotonic()

    def on_round(reached: SearchState) -> None:
        nonlocal last
        record.states[proposer.name] = reached
        record.write()
        now = time.monotonic()
        if reached.ended or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            left = (now - began) * (own.budget - reached.rows) / max(1, reached.rows - first)
            end = reached.ended or f"about {left / 60:.1f} minutes left"
            say(
                f"{proposer.name}: round {reached.round}, {reached.rows:,} of {own.budget:,} rows, "
                f"least loss {reached.best_loss:.4f}, {reached.moves} moves; {end}"
            )

    run_search(proposer, scorer, texts, allowed.ids, state, own.budget, own.seed, on_round)


def finish(
    output: Path,
    record: SearchRecord,
    experiment: Experiment,
    texts: PromptTexts,
    others: Sequence[Sample],
    proposer: str,
) -> None:
    """Writes the prompt's file and measures what it says: the file is read as any verb would read it.

    Raises:
        RuntimeError: If the loss of the file's text is not the search's.
    """
    state, data, backbone = record.states[proposer], tuning_data(experiment), experiment.model.backbone
    write_atomically(output, prompt_file(texts.words(state.best), texts.position, data.template))
    worded = read_prompt(output).on(data.template)
    asked = {"searched samples": texts.samples, "other samples": others}
    losses: dict[str, Any] = {
        name: {
            "untouched": loss_in_template(backbone, data.processor, some, data.template),
            "prompt": loss_in_template(backbone, data.processor, some, worded),
        }
        for name, some in asked.items()
        if some
    }
    again = losses["searched samples"]["prompt"]
    # In bfloat16 the two ways round otherwise.
    if abs(again - state.best_loss) > (1e-4 if backbone.dtype_name in ("float32", "float64") else 5e-2) * max(
        1.0, again
    ):
        raise RuntimeError(f"the text's loss is {again}, and the search's {state.best_loss}")
    record.measured = {"text": texts.words(state.best), "ids": list(state.best), "losses": losses}
    record.write()
    for name, pair in losses.items():
        say(f"{name}: loss {pair['untouched']:.4f} untouched, {pair['prompt']:.4f} with the prompt's text")
    say(f"prompt: {texts.words(state.best)!r}")


def curve_table(states: dict[str, SearchState], budget: int) -> Table:
    """Returns the least loss of each search at shares of the budget."""
    shown = Table()
    shown.add_column("proposer")
    for share in SHARES_SHOWN:
        shown.add_column(f"{share:.0%} of {budget:,} rows", justify="right")
    for name in ("prompts", "moves", "read otherwise"):
        shown.add_column(name, justify="right")
    for name, state in states.items():
        losses = [state.best_within(int(share * budget)) for share in SHARES_SHOWN]
        counts = (state.scored, state.moves, state.unread)
        shown.add_row(name, *("-" if loss is None else f"{loss:.4f}" for loss in losses), *map(str, counts))
    return shown
