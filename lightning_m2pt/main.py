"""The ``m2pt`` command: a small dispatcher that imports nothing heavy.

Every verb is a module with ``main(arguments) -> int``, of this package or of a checkout of the project, where
experiments, data modules and callbacks are. A user's mistake ends in three lines on standard error and exit code 2; the
other codes are in ``lightning_m2pt.errors``.
"""

import errno
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from lightning_m2pt.commands.verbs import SHARED_OUT, STARTS_COMMANDS, VERBS, module_of, needs_checkout, parser_of
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode, M2PTError
from lightning_m2pt.system.checkout import version_text
from lightning_m2pt.system.collector import without_collector
from lightning_m2pt.system.help_width import fitted
from lightning_m2pt.system.launch import check_alone, check_first, check_ranks, check_variables
from lightning_m2pt.system.path_lengths import refused_by_the_system
from lightning_m2pt.system.standard_streams import end_without_output, open_closed_streams, output_fault, say_error
from lightning_m2pt.system.stop_signals import ended_by_signals
from lightning_m2pt.system.worker_death import worker_death


def help_text() -> str:
    """Returns what ``m2pt --help`` shows."""
    width = max(map(len, VERBS))
    lines = {verb: f"  {verb.ljust(width)}  {summary}" for verb, (_, summary) in VERBS.items()}
    lines_of_help = [
        "usage: m2pt VERB [arguments]     m2pt VERB --help tells about one verb",
        "       m2pt --version            m2pt completion bash: the shell completes them",
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
    open_closed_streams()
    try:
        code = exit_code_of(list(sys.argv[1:] if arguments is None else arguments))
    except SystemExit:  # --help, or a signal
        if (fault := output_fault()) is None:
            raise
        return end_without_output(fault)
    fault = output_fault()
    return code if fault is None else end_without_output(fault)


def exit_code_of(words: list[str]) -> int:
    """Runs one verb; an error that says what it means to the user ends in its lines and its exit code."""
    try:
        if not words or words[0] in {"-h", "--help", "help"}:
            sys.stdout.write(fitted(help_text()) + "\n")
            return ExitCode.DONE
        if words == ["--version"]:
            sys.stdout.write(version_text() + "\n")
            return ExitCode.DONE
        quieten_libraries()
        refuse_other_systems(sys.platform)
        with ended_by_signals():
            return run_verb(words[0], words[1:])
    except M2PTError as error:
        say_error(error.message())
        return error.exit_code
    except RuntimeError as error:
        if (death := worker_death(error)) is None:
            raise
        say_error(death.message())
        return death.exit_code
    except OSError as error:
        if (fault := output_fault(error)) is not None:
            return end_without_output(fault)
        if error.errno == errno.ENAMETOOLONG:
            refusal = refused_by_the_system(str(error.filename), words)
            say_error(refusal.message())
            return refusal.exit_code
        say_error(environment_failure(error).message())
        return ExitCode.ENVIRONMENT
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def refuse_other_systems(platform: str) -> None:
    """Refuses a system without POSIX's file locks and signals, before anything that needs them is imported.

    Args:
        platform: As ``sys.platform`` names it.

    Raises:
        EnvironmentFailure: If it is one.
    """
    if platform in ("win32", "cygwin", "emscripten", "wasi"):
        raise EnvironmentFailure(
            f"{platform} is not supported: there are no file locks and signals of POSIX",
            where="this system",
            expected="Linux, or macOS",
            hint="on Windows, WSL 2 is a Linux",
        )


def run_verb(verb: str, arguments: list[str]) -> int:
    """Checks a verb's words, then imports its module and runs it.

    Of several processes that a launcher started, all do what can be shared out; anything else is done by the first.

    Raises:
        BadInputError: If there is no such verb, a launcher's variables are wrong, or the verb needs a checkout and
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
    parser_of(verb).check(arguments)  # --help ends here; torch is not imported for a mistyped flag either
    if verb in SHARED_OUT:
        check_variables(os.environ)
    elif verb in STARTS_COMMANDS:
        check_alone(verb, os.environ)
    elif not check_first(verb, os.environ):
        return ExitCode.DONE
    with without_collector():
        module = module_of(verb, VERBS[verb][0])
    quieten_libraries()  # again: Lightning sets its loggers' levels when it is imported
    # `test` and `predict` are one module: it is told which of the two it is.
    return int(module.main([verb, *arguments] if VERBS[verb][0] == "experiments.commands.answer" else arguments))


def quieten_libraries() -> None:
    """Keeps library notices away, so that a user's error is three lines in all; M2PT_DEBUG=1 shows everything."""
    if os.environ.get("M2PT_DEBUG"):
        logging.basicConfig(level=logging.DEBUG)
        return
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a lost connection is thirty lines of C++
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "open_clip", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("DeepSpeed").addFilter(is_error)  # it sets its level itself when it is imported


def is_error(record: logging.LogRecord) -> bool:
    """Says whether a library's notice is an error."""
    return record.levelno >= logging.ERROR


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
