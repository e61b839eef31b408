"""The verbs of ``m2pt``: where each is written, and its flags, known without importing what it runs.

A verb's flags stand in ``commands/parsers/VERB.py``, of this package or of the checkout. Nothing there imports torch:
``--help``, a mistyped flag and shell completion are answered at once.
"""

import importlib
from types import ModuleType

from lightning_m2pt.system.checkout import checkout_module
from lightning_m2pt.system.console import VerbParser

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
    "slurm": (
        "experiments.commands.slurm",
        "jobs on a cluster: submit an experiment or a sweep, status, logs, cancel",
    ),
    "validate": (
        "experiments.commands.validate",
        "loss and answer accuracy on the validation split of the tuned tasks",
    ),
    "templates": (
        "experiments.commands.templates",
        "compare words around a question on the validation split by successive halving; keep the best",
    ),
    "test": ("experiments.commands.answer", "answer one evaluation set (--data) and score it"),
    "predict": ("experiments.commands.answer", "answer one evaluation set (--data) to a prediction file"),
    "search-prompt": (
        "experiments.commands.search_prompt",
        "search for a prompt that is words, by gradients (AutoPrompt, GCG, PEZ), a grammar or a language model",
    ),
    "evaluate": (
        "experiments.commands.evaluate",
        "answer and score every benchmark of an experiment, or of a run (--run DIR)",
    ),
    "transfer": (
        "experiments.commands.transfer",
        "use pixel prompts that were trained on one base on the pictures of another (--prompt RUN --to EXPERIMENT)",
    ),
    "score": ("lightning_m2pt.commands.score", "score prediction files under named rules; needs no model and no torch"),
    "judge": ("lightning_m2pt.commands.judge", "let a local language model judge the answers of a prediction file"),
    "export": (
        "lightning_m2pt.commands.export",
        "write answers for other tools' scorers (predictions), adapters for PEFT (peft), for M2PT's code (checkpoint)",
    ),
    "merge": (
        "lightning_m2pt.commands.merge",
        "a tuned model as one folder of transformers: updates, norms and projector in the base's own weights",
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
    "ask": ("lightning_m2pt.commands.ask", "ask a tuned model about a picture; --compare asks the frozen one, too"),
    "chat": ("lightning_m2pt.commands.chat", "talk with a tuned model about a picture, line by line"),
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
    "convert": (
        "lightning_m2pt.commands.convert",
        "weights of others as safetensors, checkpoints of M2PT's published code as adapters; nothing in them runs",
    ),
    "params": ("experiments.commands.params", "count what a method trains, on the meta device, without weights"),
    "check": (
        "experiments.commands.check",
        "list all mistakes in configuration, annotations and pictures; load nothing",
    ),
    "list": ("experiments.commands.list", "name what comes with the project: experiments, methods, sets, rules, ..."),
    "schema": ("experiments.commands.schema", "write the JSON schema of experiment files, for editors"),
    "data": (
        "experiments.commands.data",
        "fetch a set (data fetch), see its pictures and questions (data show), render the testbed",
    ),
    "backbone": ("experiments.commands.backbone", "rebuild the embedded backbone from its recipe"),
    "chaos": ("experiments.chaos.command", "kill a small training on this disk again and again; compare every file"),
    "models": (
        "lightning_m2pt.commands.models",
        "what a model is and takes (models show), the families there are (models list), fetching one (models fetch)",
    ),
    "push": (
        "lightning_m2pt.commands.push",
        "send a run's adapter to a repository of the hub; shows what would be sent, and sends it with --yes",
    ),
    "completion": (
        "lightning_m2pt.commands.completion",
        "write a script that lets bash, zsh or fish complete verbs, flags and keys",
    ),
    "doctor": ("lightning_m2pt.commands.doctor", "say what this machine has and what does not fit together"),
}

SHARED_OUT = ("train", "fit", "validate", "test", "predict", "evaluate", "transfer")
"""Verbs that several processes do together; of any other, started in several, the first does all."""

STARTS_COMMANDS = ("sweep", "chaos")
"""Verbs that start others: those would find the variables of a launcher that did not start them."""

CHECKOUT = "experiments."
"""Beginning of the modules that are in a checkout and not in this package."""


def needs_checkout(verb: str) -> bool:
    """Tells whether a verb's module is in a checkout of the project."""
    return VERBS[verb][0].startswith(CHECKOUT)


def module_of(verb: str, name: str) -> ModuleType:
    """Returns a module of a verb, which may be in a checkout.

    Raises:
        BadInputError: If it is in a checkout, and there is none.
    """
    return checkout_module(name, f"m2pt {verb}") if needs_checkout(verb) else importlib.import_module(name)


def parser_of(verb: str) -> VerbParser:
    """Returns a verb's own flags.

    Raises:
        BadInputError: If the verb needs a checkout, and there is none.
    """
    package = "experiments" if needs_checkout(verb) else "lightning_m2pt"
    parser = module_of(verb, f"{package}.commands.parsers.{verb.replace('-', '_')}").argument_parser()
    if not isinstance(parser, VerbParser):
        raise TypeError(f"the parser of {verb} is no VerbParser")
    return parser
