"""Runs ``m2pt search-prompt``; its flags and what it is for are in ``parsers``."""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import torch

from data_modules.sample_rows import layouts_of_samples, refuse_without_positions, rows_of_samples
from experiments.commands.parsers.search_prompt import DEFAULT_LENGTH, MOST_TOKENS, argument_parser
from experiments.configuration.cli import Experiment
from experiments.runs.folder import deciding
from experiments.runs.loading import experiment_of, load_tuned
from experiments.runs.prepare import check_experiment
from experiments.runs.text_scores import refuse_several_processes
from experiments.runs.training import require_validation_split, tuning_data
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inputs.named_templates import RewordedTemplate
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.prompt_search.allowed_tokens import AllowedTokens, allowed_tokens
from lightning_m2pt.prompt_search.cost import refuse_small_budget, refuse_without_consent, search_cost
from lightning_m2pt.prompt_search.grammar import read_grammar
from lightning_m2pt.prompt_search.prompt_texts import Prompt, PromptTexts, drawn_start
from lightning_m2pt.prompt_search.proposers.base import Proposer
from lightning_m2pt.prompt_search.proposers.grammar_sentences import GrammarSentences
from lightning_m2pt.prompt_search.proposers.known import proposer_named
from lightning_m2pt.prompt_search.proposers.paraphrases import LEFT_OUT, REPLIES, Paraphrases, Writer
from lightning_m2pt.prompt_search.recomputed import measured_prompt, refuse_other_loss
from lightning_m2pt.prompt_search.record import SearchRecord, found_record, prompt_file, record_path
from lightning_m2pt.prompt_search.results import curve_table, sentences_about_loss
from lightning_m2pt.prompt_search.scored_samples import scored_samples
from lightning_m2pt.prompt_search.scorer import PromptScorer
from lightning_m2pt.prompt_search.search import EMPTY_ROUNDS, SearchTask, run_search, started
from lightning_m2pt.prompt_search.state import SearchState
from lightning_m2pt.prompt_search.written_prompts import WORD_OF_ANSWERS, WrittenPrompts
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import OUT, say
from lightning_m2pt.system.file_lock import locked
from lightning_m2pt.tuning.positions import room_for_rows, run_rows

SECONDS_BETWEEN_LINES = 15.0
RANDOM = "random"


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    record_file = record_path(own.output)
    if not own.output.parent.is_dir():
        raise BadInputError(
            "there is no such folder", where=f"command line: --output {own.output}", expected="a folder that is there"
        )
    for path in (own.output, record_file):
        if path.is_dir():
            raise BadInputError("this is a folder", where=f"command line: --output {path}", expected="a file's name")
    experiment = experiment_of(own.run, None, rest)
    check_experiment(experiment)
    require_validation_split(experiment)
    refuse_own_words(experiment)
    refuse_several_processes(experiment)
    prepared = prepared_search(own, experiment)
    device = device_of(experiment, own.device)
    say_and_refuse(prepared, device)
    with locked(record_file, lambda: say("waiting: another process searches with this output")):
        record = found_record(record_file, settings_of(prepared))
        load(prepared, device)
        for proposer in prepared.proposers:
            search(prepared, record, proposer)
        finish(prepared, record)
    OUT.print(curve_table(record.states, own.budget))
    say(f"prompt: {own.output} (--prompt-text), record: {record_file}")
    return ExitCode.DONE


@dataclass(frozen=True)
class PreparedSearch:
    """All that is known of a search before weights load.

    Attributes:
        own: The verb's flags.
        experiment: Checked; its model is not loaded.
        texts: The conversations that prompts are scored on.
        others: Conversations on which the result is looked at.
        allowed: Tokens that a prompt may be made of.
        scorer: Scores prompts.
        proposers: The one that was asked for first, and random search beside it.
        start: What the first one starts from; of random search as many drawn tokens.
    """

    own: argparse.Namespace
    experiment: Experiment
    texts: PromptTexts
    others: Sequence[Sample]
    allowed: AllowedTokens
    scorer: PromptScorer
    proposers: Sequence[Proposer]
    start: Prompt


def chosen_samples(experiment: Experiment, number: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Returns the samples that prompts are scored on, and as many others at most on which the result is looked at.

    Both are of the validation split of the tuned tasks: a held-out set chooses nothing.
    """
    split = tuning_data(experiment).read_once()[1]
    order = numpy.random.default_rng([seed, len(split)]).permutation(len(split)).tolist()
    chosen, others = sorted(order[:number]), sorted(order[number : 2 * number])
    return [split[place] for place in chosen], [split[place] for place in others]


def prepared_search(own: argparse.Namespace, experiment: Experiment) -> PreparedSearch:
    """Puts together what a search needs; no weights load.

    Raises:
        BadInputError: If flags do not go together, or a prompt of this length cannot stand in the conversations.
    """
    refuse_flags(own)
    writer = Writer(own.model) if own.model else None
    if writer is not None:
        writer.check()
    grammar = read_grammar(own.grammar) if own.grammar else None
    samples, others = chosen_samples(experiment, own.samples, own.seed)
    data, backbone = tuning_data(experiment), experiment.model.backbone
    texts = PromptTexts(samples, data.processor, data.template, own.position, data.max_text_length)
    allowed = allowed_tokens(texts, list(data.read_once()[1]), own.answer_words == "yes")
    proposer: Proposer
    if grammar is not None:
        proposer = GrammarSentences(grammar, WrittenPrompts(texts, allowed), own.width, own.seed)
        start = proposer.start(())
    elif writer is not None:
        prompts = WrittenPrompts(texts, allowed, own.length or MOST_TOKENS)
        start = start_of_text(prompts, own.start)
        proposer = Paraphrases(writer, prompts, own.start, start, own.width, own.beam)
    else:
        refuse_long(experiment, texts, own.length or DEFAULT_LENGTH)
        proposer = proposer_named(own.proposer, own.width, own.top_k, own.beam)
        start = drawn_start(texts, allowed.ids, own.length or DEFAULT_LENGTH, own.seed)
    longest = proposer.longest or len(start)
    refuse_long(experiment, texts, longest)
    proposers = [proposer]
    if own.random_beside == "yes" and own.proposer != RANDOM:
        proposers.append(proposer_named(RANDOM, own.width, own.top_k, own.beam))
    scorer = PromptScorer(backbone, data.processor, scored_samples(texts, backbone), longest)
    return PreparedSearch(own, experiment, texts, others, allowed, scorer, proposers, start)


def refuse_flags(own: argparse.Namespace) -> None:
    """Refuses flags of one proposer beside another, and a proposer without its own.

    Raises:
        BadInputError: If there are any.
    """
    for proposer, flags in {"grammar": ("grammar",), "model": ("model", "start")}.items():
        for flag in flags:
            is_given = getattr(own, flag) is not None
            if is_given != (own.proposer == proposer):
                raise BadInputError(
                    f"--{flag} belongs to --proposer {proposer}"
                    if is_given
                    else f"--proposer {proposer} takes --{flag}",
                    where=f"command line: --proposer {own.proposer}",
                    expected=f"both, as in --proposer {proposer} " + " ".join(f"--{each} ..." for each in flags),
                )
    if own.proposer == "grammar" and own.length is not None:
        raise BadInputError(
            "the grammar's sentences have their own lengths", where="command line: --length", expected="no --length"
        )


def start_of_text(prompts: WrittenPrompts, text: str) -> Prompt:
    """Returns the tokens of the text that a search starts from.

    Raises:
        BadInputError: If it is no prompt.
    """
    start = prompts.read(text)
    if isinstance(start, str):
        raise BadInputError(
            f"{text!r:.80} is no prompt: {start}",
            where="command line: --start",
            expected="words that the model can read, none of them of answers",
            hint="--answer-words yes allows the words of answers" if start == WORD_OF_ANSWERS else "",
        )
    return start


def refuse_long(experiment: Experiment, texts: PromptTexts, length: int) -> None:
    """Refuses prompts with which a conversation has too many tokens, or too many rows for the model's positions.

    Raises:
        BadInputError: If one has.
    """
    if not texts.has_room(length):
        raise BadInputError(
            f"with a prompt of {length:,} tokens a conversation has more than {texts.max_text_length:,}",
            where="command line: --length",
            expected="a shorter prompt, or a larger data.max_text_length",
        )
    shape, method = experiment.model.backbone.shape, experiment.model.method
    layouts = layouts_of_samples(texts.samples, texts.processor)
    rows = rows_of_samples(texts.untouched, layouts, run_rows(shape, method))
    added = numpy.array([len(opened.places) for opened in texts.opened], numpy.int64) * min(length, 2**40)
    refuse_without_positions(texts.samples, rows + added, room_for_rows(shape, method))


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


def say_and_refuse(prepared: PreparedSearch, device: torch.device) -> None:
    """Says what the search will cost, before weights load.

    Raises:
        BadInputError: If it needs a consent that was not given, or a budget pays for no round.
    """
    own, scorer, allowed = prepared.own, prepared.scorer, prepared.allowed
    if not all(sample.has_pictures_in_head for sample in scorer.samples) and own.before_picture != "yes":
        raise BadInputError(
            f"the position {own.position} stands in front of a picture: each prompt then costs "
            f"{scorer.rows_of_prompt:,} rows, the picture's among them",
            where="command line: --position",
            expected="--position behind_question, which costs a prompt and what stands behind it, "
            "or --before-picture yes",
        )
    for proposer in prepared.proposers:
        refuse_small_budget(scorer, proposer.gradients, own.budget)
    cost = search_cost(scorer.backbone.shape, own.budget * len(prepared.proposers), device.type)
    refuse_without_consent(cost, own.yes)
    left_out = ", ".join(f"{number} {reason}" for reason, number in allowed.left_out.items() if number)
    say(f"words: {len(allowed.ids)} tokens; left out: {left_out or 'none'}")
    if isinstance(grammar := prepared.proposers[0], GrammarSentences):
        say(f"grammar: {len(grammar.sentences):,} sentences{reasons_in_words(grammar.left_out)}")
    if isinstance(prepared.proposers[0], Paraphrases):
        say(f"note: what {own.model} writes is not in the budget: {own.width} replies a round")
    most = "at most " * (prepared.proposers[0].longest is not None)
    say(
        f"a prompt costs {most}{scorer.rows_of_prompt:,} rows on {len(scorer.samples)} samples; "
        f"{cost.sentence()} on {device}"
    )
    if scorer.why_not:
        say(f"note: nothing is shared between prompts: {scorer.why_not}")


def reasons_in_words(left_out: Mapping[str, int]) -> str:
    """Returns how many texts were left out and why; nothing if none was."""
    return "".join(f"; {number:,} left out: {reason}" for reason, number in left_out.items())


def settings_of(prepared: PreparedSearch) -> dict[str, Any]:
    """Returns all that decides what is found, budgets and devices aside."""
    own, decides, data = prepared.own, deciding(prepared.experiment), tuning_data(prepared.experiment)
    return {
        "backbone": decides["backbone"],
        "dtype": decides["dtype"],
        "method": decides["method"],
        "run": own.run.resolve().name if own.run else "",
        "data": decides["data_fingerprint"],
        "template": data.template_label,
        "samples": [sample.id for sample in prepared.texts.samples],
        "position": own.position,
        "length": prepared.scorer.length,
        "answer_words": own.answer_words,
        "seed": own.seed,
        "start": list(prepared.start),
        "width": own.width,
        **prepared.proposers[0].settings(),
    }


def load(prepared: PreparedSearch, device: torch.device) -> None:
    """Loads the model onto a device, and compares its passes with the library's; loads the writing model."""
    model = prepared.experiment.model
    load_tuned(prepared.own.run, None, prepared.experiment)
    model.configure_model()
    model.to(device)
    model.eval()
    model.compare_with_library("training")
    model.compare_with_library("answering")
    for proposer in prepared.proposers:
        if isinstance(proposer, Paraphrases):
            proposer.writer.load(device)


def search(prepared: PreparedSearch, record: SearchRecord, proposer: Proposer) -> None:
    """Searches with one proposer, from where its record says; a search that ended by a smaller budget goes on."""
    own, scorer = prepared.own, prepared.scorer
    state = record.states.get(proposer.name)
    if state is None:
        scorer.rows = 0
        start = prepared.start
        if proposer is not prepared.proposers[0] and prepared.proposers[0].longest is not None:
            start = drawn_start(prepared.texts, prepared.allowed.ids, len(start), own.seed)
        state = started(scorer, start)
    elif state.ended:
        say(f"{proposer.name}: ended before ({state.ended})")
    state = replace(state, ended="")
    first, began, last = state.rows, time.monotonic(), time.monotonic()

    def on_round(reached: SearchState) -> None:
        nonlocal last
        record.states[proposer.name] = reached
        record.write()
        now = time.monotonic()
        if reached.ended or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            left = (now - began) * (own.budget - reached.rows) / max(1, reached.rows - first)
            empty = f"{reached.empty} of {EMPTY_ROUNDS} rounds on end had nothing that could be scored"
            end = reached.ended or (empty if reached.empty else f"about {left / 60:.1f} minutes left")
            say(
                f"{proposer.name}: round {reached.round}, {reached.rows:,} of {own.budget:,} rows, "
                f"least loss {reached.best_loss:.4f}, {reached.moves} moves; {end}"
            )

    task = SearchTask(proposer, scorer, prepared.texts, prepared.allowed.ids, own.budget, own.seed)
    end = run_search(task, state, on_round)
    if REPLIES in end.memory:
        say(f"the writing model gave {end.memory[REPLIES]:,} replies{reasons_in_words(end.memory[LEFT_OUT])}")


def finish(prepared: PreparedSearch, record: SearchRecord) -> None:
    """Measures what the prompt's file says, as any verb would read it, and writes the file.

    Raises:
        M2PTError: If the loss of the file's text is not the search's; no file is written then.
    """
    state, data = record.states[prepared.proposers[0].name], tuning_data(prepared.experiment)
    backbone, words = prepared.experiment.model.backbone, prepared.texts.words(state.best)
    content = prompt_file(words, prepared.texts.position, data.template)
    asked = {"searched samples": prepared.texts.samples, "other samples": prepared.others}
    losses = measured_prompt(backbone, data.processor, data.template, content, asked)
    refuse_other_loss(state.best_loss, losses["searched samples"]["prompt"], backbone.dtype_name, record.path)
    write_atomically(prepared.own.output, content)
    record.measured = {"text": words, "ids": list(state.best), "losses": losses}
    record.write()
    for name, pair in losses.items():
        say(f"{name}: loss {pair['untouched']:.4f} untouched, {pair['prompt']:.4f} with the prompt's text")
    say(f"prompt: {words!r}")
    untouched = losses["searched samples"]["untouched"]
    for sentence in sentences_about_loss(prepared.proposers[0].name, record.states, untouched):
        say(f"note: {sentence}")
