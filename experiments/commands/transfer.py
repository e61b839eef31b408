"""Runs ``m2pt transfer``; its flags and what it is for are in ``parsers``."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.commands.parsers.transfer import argument_parser
from experiments.configuration.chosen_sets import choose_benchmarks
from experiments.configuration.cli import Experiment
from experiments.configuration.path_settings import paths_in_names
from experiments.prompt_transfer.evaluation import evaluate_rows
from experiments.prompt_transfer.feature_distance import feature_distances
from experiments.prompt_transfer.results import compared_rows, known_distances, settle, transfer_table, write_results
from experiments.prompt_transfer.rows import MEASURED_ROWS, rows_of
from experiments.prompt_transfer.source_prompt import SourcePrompt, read_prompts, sentences_about
from experiments.prompt_transfer.target import any_prompt_on_target, delta_on_target, target_experiment
from experiments.runs.answering import answering_trainer, started_ranks
from experiments.runs.evaluation import AnsweringOptions, check_benchmarks, evaluate_frozen
from experiments.runs.folder import short_hash, without_later_settings
from experiments.runs.loading import templates_of
from experiments.runs.prepare import check_experiment, require_benchmarks
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.report.tables.formats import TERMINAL, formatted
from lightning_m2pt.system.console import OUT, say, short_path


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    words = ["--config", own.to, *rest]
    answering_trainer(any_prompt_on_target(words), [])  # devices and launcher fit together, before anything is read
    prompts = read_prompts(own.prompt)
    experiment = target_experiment(prompts, words)
    require_benchmarks(experiment)
    choose_benchmarks(experiment, own.benchmarks)
    method = experiment.model.method
    assert isinstance(method, PixelPrompting)
    delta = delta_on_target(prompts, experiment, own.interpolation)
    rows = rows_of(delta, method.compose, method.clip, method.border, own.random)
    check_experiment(experiment)
    check_benchmarks(experiment, method=own.answer)
    description = described(own, prompts, experiment)
    folder = own.output or transfer_folder(experiment, description)
    ranks = started_ranks(experiment)
    backbone = experiment.model.backbone
    fingerprints = backbone.fingerprint(), backbone.former_fingerprint()
    for sentence in sentences_about(prompts, fingerprints, templates_of(experiment)):
        say(f"note: {sentence}")
    settings = folder, prompts[0].arguments, fingerprints, own.force
    ranks.of_first(lambda: settle(*settings))
    options = AnsweringOptions(own.answer, own.force)
    frozen, _ = evaluate_frozen(experiment, options)
    toggles = {"method": method.name, "prompts": len(prompts), "interpolation": own.interpolation}
    evaluate_rows(experiment, rows, folder, toggles, options)
    if ranks.rank:
        return ExitCode.DONE  # the first process talks
    names = [benchmark.name for benchmark in experiment.benchmarks]
    measured = known_distances(folder, own.random, own.force)
    for row in rows:
        if row.name in MEASURED_ROWS and not set(names) <= set(measured.get(row.name, {})):
            measured[row.name] = feature_distances(experiment, row)
    records = compared_rows(frozen, folder, names, rows, measured)
    title = f"{', '.join(str(short_path(prompt.folder)) for prompt in prompts)} on {experiment.name}"
    table = transfer_table(title, records, [])
    file = write_results(folder, description, records, table)
    say(formatted([table], TERMINAL, OUT.width).rstrip("\n"))
    say(f"transfer: {short_path(file)}")
    return ExitCode.DONE


def described(own: Namespace, prompts: Sequence[SourcePrompt], experiment: Experiment) -> dict[str, Any]:
    """Returns what was carried where, as the results say it."""
    backbone = experiment.model.backbone
    return {
        "prompts": [
            {
                "folder": str(prompt.folder),
                "sha256": prompt.sha256,
                "side": prompt.side,
                "base": prompt.base,
                "base_fingerprint": prompt.base_fingerprint,
                "template": prompt.template,
            }
            for prompt in prompts
        ],
        "arguments": dict(prompts[0].arguments),
        "interpolation": own.interpolation,
        "random_seed": own.random,
        "answer": own.answer,
        "target": {
            "experiment": experiment.name,
            "fingerprint": backbone.fingerprint(),
            "side": backbone.shape.image_size,
            "is_source": any(
                not prompt.is_converted
                and prompt.base_fingerprint in (backbone.fingerprint(), backbone.former_fingerprint())
                for prompt in prompts
            ),
        },
    }


def transfer_folder(experiment: Experiment, description: dict[str, Any]) -> Path:
    """Returns where a transfer stands, by what decides its answers; a random prompt more changes no other row.

    Args:
        experiment: The target's.
        description: As ``described`` returns it.
    """
    decides = {
        "prompts": [prompt["sha256"] for prompt in description["prompts"]],
        **{key: description[key] for key in ("arguments", "interpolation", "answer")},
        "random_seed": None,
        "backbone": description["target"]["fingerprint"],
        "dtype": experiment.model.backbone.dtype_name,
        "templates": templates_of(experiment),
        "benchmarks": [without_later_settings(each) for each in experiment.config["benchmarks"]],
    }
    name = short_hash(paths_in_names(decides, experiment.opened))
    return experiment.output_root / "transfers" / f"{experiment.name}-{name}"
