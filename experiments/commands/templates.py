"""Runs ``m2pt templates``; its flags and what it is for are in ``parsers``."""

import json
import textwrap
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.commands.parsers.templates import argument_parser
from experiments.configuration.cli import Experiment
from experiments.runs.answering import answering_trainer
from experiments.runs.halving import Rung, Sums, halved, rounds
from experiments.runs.loading import experiment_of, load_tuned
from experiments.runs.prepare import check_experiment
from experiments.runs.text_scores import TextScorer, chosen_samples, refuse_several_processes
from experiments.runs.training import require_validation_split, tuning_data
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.inputs.reworded_template import PromptText
from lightning_m2pt.inputs.text_lists import read_texts
from lightning_m2pt.report.tables.formats import Column, ReportTable, terminal
from lightning_m2pt.report.tables.template_spread import RECORD, TEMPLATES, spread_of, spread_text
from lightning_m2pt.storage.adapter_folder import declared_tensors
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import OUT, say, short_path
from lightning_m2pt.system.tensor_hashes import hash_tensors

WIDTH_OF_NUMBERS = 56
"""Columns of a terminal that a table's names and numbers take."""
LEAST_WORDS = 24
"""Columns for words, however narrow a terminal is."""
WITHOUT_WORDS = "without words"
"""What the question as it is goes by where the list has no text that leaves it so; no text of a list has this name."""


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    texts = with_untouched(read_texts(own.texts))
    experiment = experiment_of(own.run, own.adapter, rest)
    folder = folder_of(own, experiment)
    refuse_several_processes(experiment)
    device = answering_trainer(experiment, []).strategy.root_device
    check_experiment(experiment)
    require_validation_split(experiment)
    scorer = TextScorer(experiment, chosen_samples(experiment, own.samples, own.sample_seed), texts)
    say(plan_text(scorer, len(texts)))
    model = experiment.model
    load_tuned(own.run, own.adapter, experiment)
    if not model.backbone.is_loaded:
        model.configure_model()
    model.to(device).eval()
    model.compare_with_library("training")
    rungs = halved(list(texts), len(scorer.samples), scorer.sums, lambda rung: say(rung_text(rung, len(texts))))
    measured = {name: sums for rung in rungs for name, sums in rung.measured.items()}
    untouched = next(name for name, text in texts.items() if text.says_nothing)
    done = measured[untouched].samples
    measured[untouched] += scorer.sums(untouched, range(done, len(scorer.samples)))
    chosen = min(*rungs[-1].kept, untouched, key=lambda name: measured[name].mean_loss)
    record = record_of(experiment, scorer, texts, measured, rungs[0], chosen, own)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    words = {key: value for key, value in vars(texts[chosen]).items() if value}
    write_atomically(folder / "chosen.yaml", yaml.safe_dump(words, allow_unicode=True, sort_keys=False).encode())
    say(terminal([table_of(texts, measured, record, untouched, OUT.width)], OUT.width).rstrip())
    say(f"figures: {short_path(folder / RECORD)}\nchosen:  --prompt-text {short_path(folder / 'chosen.yaml')}")
    return ExitCode.DONE


def with_untouched(texts: dict[str, PromptText]) -> dict[str, PromptText]:
    """Returns the texts with one that leaves the question as it is among them."""
    if any(text.says_nothing for text in texts.values()):
        return texts
    return {WITHOUT_WORDS: PromptText(), **texts}


def folder_of(own: Namespace, experiment: Experiment) -> Path:
    """Returns where the results go.

    Raises:
        BadInputError: If an adapter is measured and no folder is named.
    """
    if own.output is not None:
        return Path(own.output)
    if own.adapter is not None:
        raise BadInputError(
            "an adapter has no folder for results", where="command line: --adapter", expected="--output DIR"
        )
    return Path(own.run or experiment.output_root / experiment.name) / TEMPLATES


def plan_text(scorer: TextScorer, texts: int) -> str:
    """Returns what is going to be measured and what it costs at most, before anything is loaded."""
    planned = rounds(texts, len(scorer.samples))
    before = [0, *(until for _, until in planned)]
    passes = sum(count * (until - start) for (count, until), start in zip(planned, before, strict=False))
    longest = max(float(rows.mean()) for rows in scorer.rows.values())
    steps = ", ".join(f"{count} on {until:,}" for count, until in planned)
    return f"texts on samples: {steps}; about {passes * longest:,.0f} rows through the language model at most"


def rung_text(rung: Rung, texts: int) -> str:
    """Returns a round in one line."""
    losses = sorted(sums.mean_loss for sums in rung.measured.values())
    mean = sum(losses) / len(losses)
    return (
        f"{len(losses)} of {texts} texts on {rung.samples:,} samples: loss {losses[0]:.4f} to {losses[-1]:.4f}, "
        f"mean {mean:.4f}; kept {', '.join(rung.kept)}"
    )


def record_of(
    experiment: Experiment,
    scorer: TextScorer,
    texts: Mapping[str, PromptText],
    measured: Mapping[str, Sums],
    first: Rung,
    chosen: str,
    own: Namespace,
) -> dict[str, Any]:
    """Returns all figures, and what they are of.

    Args:
        experiment: What was measured.
        scorer: Its samples.
        texts: The prompts.
        measured: What was measured of each.
        first: The first round, in which all of them were.
        chosen: The best one's name.
        own: The verb's own flags.
    """
    data, model = tuning_data(experiment), experiment.model
    is_tuned = own.run is not None or own.adapter is not None
    figures = {
        name: {
            **{key: value for key, value in vars(texts[name]).items() if value},
            "loss": sums.mean_loss,
            "answer_accuracy": sums.accuracy,
            "samples": sums.samples,
        }
        for name, sums in measured.items()
    }
    return {
        "base": model.backbone.fingerprint(),
        "adapter": hash_tensors(declared_tensors(model.method)) if is_tuned else None,
        "template": data.template_label,
        "data_fingerprint": data.fingerprint(),
        "samples": len(scorer.samples),
        "samples_sha256": scorer.digest_of_samples(),
        "sample_seed": own.sample_seed,
        "spread": {
            "samples": first.samples,
            "texts": len(first.measured),
            "loss": spread_of([sums.mean_loss for sums in first.measured.values()]),
            "answer_accuracy": spread_of([sums.accuracy for sums in first.measured.values()]),
        },
        "texts": figures,
        "chosen": chosen,
        "rows": sum(sums.rows for sums in measured.values()),
    }


def table_of(
    texts: Mapping[str, PromptText], measured: Mapping[str, Sums], record: Mapping[str, Any], untouched: str, width: int
) -> ReportTable:
    """Returns the texts, those that came furthest first, with the spread over all of them below.

    Words are cut to what a terminal of this width has beside the numbers; the record has them whole.
    """
    order = sorted(measured, key=lambda name: (-measured[name].samples, measured[name].mean_loss))
    chosen = record["chosen"]
    rows = [
        [
            name + " (chosen)" * (name == chosen),
            f"{measured[name].samples:,}",
            f"{measured[name].mean_loss:.4f}",
            f"{measured[name].accuracy:.1%}",
            textwrap.shorten(texts[name].question, max(LEAST_WORDS, width - WIDTH_OF_NUMBERS), placeholder=" …"),
        ]
        for name in order
    ]
    notes = [spread_text(record["spread"])]
    if chosen == untouched:
        notes.append("chosen: the question as it is, which no text beats on all samples")
    else:
        change = measured[chosen].mean_loss - measured[untouched].mean_loss
        notes.append(
            f"chosen against the question as it is, on all samples: loss {change:+.4f}, answer accuracy "
            f"{measured[chosen].accuracy - measured[untouched].accuracy:+.1%}; it was chosen on these very samples"
        )
    numbers = [Column(title, is_number=True) for title in ("samples", "loss", "answers right")]
    records = [{"name": name, **record["texts"][name]} for name in order]
    return ReportTable("", [Column("text"), *numbers, Column("words")], rows, records, notes)
