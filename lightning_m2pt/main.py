"""The ``m2pt`` command: a small dispatcher that imports nothing heavy.

Every verb is a module with ``main(arguments) -> int``, of this package or of a checkout of the project, where
experiments, data modules and callbacks are. A user's mistake ends in three lines on standard error and exit code 2; the
other codes are in ``lightning_m2pt.errors``.
"""

import errno
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode, M2PTError
from lightning_m2pt.system.checkout import checkout_module, version_text
from lightning_m2pt.system.launch import check_ranks
from lightning_m2pt.system.stop_signals import ended_by_signals
from lightning_m2pt.system.worker_death import worker_death

VERBS = {
    "train": (
        "experiments.commands.train",
        "fit, evaluate and compare with the frozen model; what is there is not redone",
    ),
    "fit": ("experiments.commands.fit", "tune a method; the same command resumes where it stopped"),
    "sweep": (
        "experiments.commands.sweep",
        "many runs from one file: what is complete is skipped, what was cut off goes on",
    ),
    "validate": (
        "experiments.commands.validate",
        "loss and answer accuracy on the validation split of the tuned tasks",
    ),
    "test": ("experiments.commands.answer", "answer one evaluation set (--data) and score it"),
    "predict": ("experiments.commands.answer", "answer one evaluation set (--data) to a prediction file"),
    "evaluate": (
        "experiments.commands.evaluate",
        "answer and score every benchmark of an experiment, or of a run (--run DIR)",
    ),
    "score": ("lightning_m2pt.commands.score", "score prediction files under named rules; needs no model and no torch"),
    "judge": ("lightning_m2pt.commands.judge", "let a local language model judge the answers of a prediction file"),
    "export": (
        "lightning_m2pt.commands.export",
        "write answers in the formats of other tools' scorers (export predictions)",
    ),
    "report": (
        "lightning_m2pt.commands.report",
        "tables of evaluated runs with intervals: terminal, Markdown, LaTeX, CSV, JSON",
    ),
    "report-page": (
        "lightning_m2pt.commands.report_page",
        "one HTML page of all that has run, and figures and tables for a paper",
    ),
    "compare": (
        "lightning_m2pt.commands.compare",
        "two runs on the same questions: paired intervals, McNemar's test, verdicts",
    ),
    "attention": (
        "lightning_m2pt.commands.attention",
        "where a run's model looks, and the frozen one: pictures, arrays, a page",
    ),
    "prompts": (
        "lightning_m2pt.commands.prompts",
        "a run's prompts: nearest words, likeness of layers, norms over training",
    ),
    "attribution": (
        "lightning_m2pt.commands.attribution",
        "which patches an answer hangs on, checked by deleting them (captum)",
    ),
    "params": ("experiments.commands.params", "count what a method trains, on the meta device, without weights"),
    "check": (
        "experiments.commands.check",
        "list all mistakes in configuration, annotations and pictures; load nothing",
    ),
    "data": (
        "experiments.commands.data",
        "fetch a set (data fetch), see its pictures and questions (data show), render the testbed",
    ),
    "backbone": ("experiments.commands.backbone", "rebuild the embedded backbone from its recipe"),
    "chaos": ("experiments.chaos.command", "kill a small training on this disk again and again; compare every file"),
    "doctor": ("lightning_m2pt.commands.doctor", "say what this machine has and what does not fit together"),
}

CHECKOUT = "experiments."
"""Beginning of the modules that are in a checkout and not in this package."""


def needs_checkout(verb: str) -> bool:
    """Tells whether a verb's module is in a checkout of the project."""
    return VERBS[verb][0].startswith(CHECKOUT)


def help_text() -> str:
    """Returns what ``m2pt --help`` shows."""
    width = max(map(len, VERBS))
    lines = {verb: f"  {verb.ljust(width)}  {summary}" for verb, (_, summary) in VERBS.items()}
    lines_of_help = [
        "usage: m2pt VERB [arguments]        m2pt VERB --help tells about one verb",
        "       m2pt --version",
        "",
        "Tune, evaluate, ablate and compare prompt tuning of frozen vision-language models.",
        "",
        "verbs that need a checkout of the project, whose experiments, data modules and callbacks they use:",
        *(line for verb, line in lines.items() if needs_checkout(verb)),
        "",
        "verbs that run anywhere:",
        *(line for verb, line in lines.items() if not needs_checkout(verb)),
        "",
        "examples:",
        "  m2pt train --config experiments/m2pt_base.yaml",
        "  m2pt fit --config experiments/m2pt_base.yaml --model.method.visual_length 0",
        "  m2pt evaluate --run outputs/m2pt_base/<run> --knock-out visual_prompts",
        "  m2pt params --config experiments/m2pt_vicuna7b.yaml",
    ]
    return "\n".join(lines_of_help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in {"-h", "--help", "help"}:
        sys.stdout.write(help_text() + "\n")
        return ExitCode.DONE
    if words == ["--version"]:
        sys.stdout.write(version_text() + "\n")
        return ExitCode.DONE
    quieten_libraries()
    try:
        with ended_by_signals():
            return run_verb(words[0], words[1:])
    except M2PTError as error:
        sys.stderr.write(error.message() + "\n")
        return error.exit_code
    except RuntimeError as error:
        if (death := worker_death(error)) is None:
            raise
        sys.stderr.write(death.message() + "\n")
        return death.exit_code
    except OSError as error:
        sys.stderr.write(environment_failure(error).message() + "\n")
        return ExitCode.ENVIRONMENT
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def run_verb(verb: str, arguments: list[str]) -> int:
    """Imports the verb's module and runs it.

    Raises:
        BadInputError: If there is no such verb, a launcher's variable is no number, or the verb needs a checkout and
            there is none.
    """
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1)
        raise BadInputError(
            f"unknown verb {verb!r}",
            where="command line",
            expected=", ".join(VERBS),
            hint=f"did you mean `m2pt {near[0]}`?" if near else "m2pt --help lists them",
        )
    check_ranks(os.environ)
    name = VERBS[verb][0]
    module = checkout_module(name, f"m2pt {verb}") if needs_checkout(verb) else importlib.import_module(name)
    quieten_libraries()  # again: Lightning sets its loggers' levels when it is imported
    # `test` and `predict` are one module: it is told which of the two it is.
    return int(module.main([verb, *arguments] if name == "experiments.commands.answer" else arguments))


def quieten_libraries() -> None:
    """Keeps library notices away, so that a user's error is three lines in all; M2PT_DEBUG=1 shows everything."""
    if os.environ.get("M2PT_DEBUG"):
        logging.basicConfig(level=logging.DEBUG)
        return
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "open_clip"):
        logging.getLogger(name).setLevel(logging.ERROR)


def environment_failure(error: OSError) -> EnvironmentFailure:
    """Describes what the operating system refused."""
    hints = {errno.ENOSPC: "free some space, then give the same command again: it resumes"}
    return EnvironmentFailure(
        error.strerror or str(error),
        where=str(error.filename or "file system"),
        expected="a folder this user may write to, with room in it",
        hint=hints.get(error.errno or 0, "choose another folder with --output_root"),
    )


if __name__ == "__main__":
    sys.exit(main())
