"""Bad words: each verb refuses them by name before it reads, answers or writes anything."""

import pytest

from lightning_m2pt.main import VERBS
from tests.bad_inputs.refusal import assert_refused
from tests.support.answers.prediction_files import vsr_predictions, written

BASE = ("--config", "experiments/m2pt_base.yaml")
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "an unknown verb": (("fitt",), ("fitt", "fit")),
    "a verb in capitals": (("FIT",), ("FIT",)),
    "a flag for a verb": (("--config", "x"), ("--config",)),
    "an empty verb": (("",), ("verb",)),
    "a verb that drives a terminal": (("\x1b[2J",), ("verb",)),
    "fit without a file": (("fit",), ("model.backbone", "missing")),
    "check of a word": (("check", "experiments/m2pt_base.yaml"), ("m2pt_base.yaml",)),
    "check of two files": (("check", *BASE, "--config", "experiments/nope.yaml"), ("nope.yaml",)),
    "a flag without a value": (("check", *BASE, "--data.batch_size"), ("batch_size",)),
    "a value without a flag": (("check", *BASE, "32"), ("32",)),
    "an abbreviated flag": (("check", *BASE, "--data.batch", "3"), ("data.batch",)),
    "an abbreviated verb's flag": (("score", "x.jsonl", "--rul", "all"), ("rul",)),
    "a flag of another verb": (("params", *BASE, "--knock-out", "visual_prompts"), ("knock-out",)),
    "a key without dashes": (("check", *BASE, "data.batch_size=3"), ("data.batch_size",)),
    "two equal signs": (("check", *BASE, "--data.batch_size==3"), ("batch_size",)),
    "a key with a space": (("check", *BASE, "--data batch_size=3"), ("data batch_size",)),
    "a key that is empty": (("check", *BASE, "--=3"), ("--",)),
    "an import of nothing": (("check", *BASE, "--allow-import"), ("allow-import",)),
    "an import of no package": (("check", *BASE, "--allow-import", "os.system"), ("allow-import",)),
    "an import of what is not there": (("check", *BASE, "--allow-import", "no_such_package_x"), ("no_such_package_x",)),
    "an import of a path": (("check", *BASE, "--allow-import", "../x"), ("allow-import",)),
    "test without a set": (("test", *BASE), ("data",)),
    "predict of the tuning set": (("predict", *BASE), ("data",)),
    "test of a set without a template": (
        ("test", *BASE, "--data", "data_modules.vsr.VSR", "--data.root", "/no/such"), ("data.template", "missing")
    ),
    "evaluate of nothing": (("evaluate",), ("missing",)),
    "evaluate of an unknown set": (("evaluate", *BASE, "--benchmarks", "vsrr"), ("vsrr",)),
    "evaluate with minus shots": (("evaluate", *BASE, "--shots", "-1"), ("shots",)),
    "evaluate with many shots": (("evaluate", *BASE, "--shots", "x"), ("shots",)),
    "evaluate with an unknown answering": (("evaluate", *BASE, "--answering", "beam"), ("answering",)),
    "evaluate without a part nobody tuned": (("evaluate", *BASE, "--knock-out", "visual"), ("knock-out",)),
    "score of nothing": (("score",), ("predictions",)),
    "score of no file": (("score", "nothing.jsonl"), ("nothing.jsonl",)),
    "score of a folder": (("score", "experiments"), ("experiments",)),
    "score of the wrong kind": (("score", "README.md"), ("README.md",)),
    "score under no rule": (("score", "x.jsonl", "--rule"), ("rule",)),
    "score under an unknown rule": (("score", "x.jsonl", "--rule", "exactly"), ("exactly",)),
    "score against nothing": (("score", "PREDICTIONS", "--against", "nothing.jsonl"), ("nothing.jsonl",)),
    "score under a rule that does not fit": (("score", "PREDICTIONS", "--rule", "mme_official"), ("mme_official",)),
    "export of an unknown thing": (("export", "adapter"), ("adapter",)),
    "export to an unknown form": (
        ("export", "predictions", "PREDICTIONS", "--format", "csv", "--output", "x"), ("csv",)
    ),
    "export to nowhere": (("export", "predictions", "PREDICTIONS", "--format", "pope_official"), ("output",)),
    "export of vsr for pope": (
        ("export", "predictions", "PREDICTIONS", "--format", "pope_official", "--output", "x"), ("pope", "vsr")
    ),
    "judge without a model": (("judge", "PREDICTIONS"), ("model",)),
    "judge with no model": (("judge", "PREDICTIONS", "--model", "/no/such"), ("/no/such",)),
    "judge with nothing at once": (("judge", "PREDICTIONS", "--model", "x", "--batch-size", "0"), ("batch-size",)),
    "report of nothing": (("report",), ("RUN",)),
    "report of no folder": (("report", "/no/such"), ("/no/such",)),
    "report in an unknown form": (("report", "experiments", "--format", "word"), ("word",)),
    "report under an unknown rule": (("report", "experiments", "--rule", "exactly"), ("exactly",)),
    "compare of one": (("compare", "experiments"), ("run",)),
    "compare of no folders": (("compare", "/no/a", "/no/b"), ("/no/a",)),
    "report-page of no folder": (("report-page", "/no/such"), ("/no/such",)),
    "sweep of nothing": (("sweep",), ("sweep",)),
    "sweep of no file": (("sweep", "run", "/no/such.yaml"), ("/no/such.yaml",)),
    "sweep with no jobs": (("sweep", "run", "ablation", "--dry-run", "--jobs", "0"), ("jobs",)),
    "data of nothing": (("data",), ("data",)),
    "data of an unknown thing": (("data", "fetsch"), ("fetsch",)),
    "data fetch of an unknown set": (("data", "fetch", "vsrr"), ("vsrr",)),
    "data show without a set": (("data", "show", *BASE), ("set",)),
    "data show of an unknown set": (("data", "show", *BASE, "--set", "vsrr"), ("vsrr",)),
    "chaos with no kills": (("chaos", "--kills", "0"), ("kills",)),
    "chaos with half a kill": (("chaos", "--kills", "1.5"), ("kills",)),
    "chaos of an unknown verb": (("chaos", "--verb", "score"), ("score",)),
    "chaos in a folder that is not empty": (("chaos", "--folder", "experiments"), ("experiments",)),
    "backbone of no recipe": (("backbone", "--config", "/no/such.yaml"), ("",)),
    "doctor with a word": (("doctor", "now"), ("now",)),
    "attention of no run": (("attention",), ("run",)),
    "attribution of no run": (("attribution", "--run", "/no/such", "--sample", "vsr"), ("/no/such",)),
    "attention of no layer": (("attention", "--run", "/no/such", "--layer", "x"), ("layer",)),
    "ask of no run": (("ask",), ("RUN",)),
    "ask without a question": (("ask", "experiments", "README.md"), ("QUESTION",)),
    "ask about no picture": (("ask", "experiments", "README.md", "What?"), ("README.md", "PICTURE")),
    "chat with no run": (("chat",), ("RUN",)),
    "chat with what is no run": (("chat", "experiments"), ("experiments",)),
    "chat about no picture": (("chat", "experiments", "README.md"), ("README.md", "PICTURE")),
    "prompts of no run": (("prompts",), ("run",)),
    "prompts with no words": (("prompts", "--run", "/no/such", "--words", "x"), ("words",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_words_are_refused_by_name(tmp_path, capfd, name):
    words, named = CASES[name]
    predictions = written(vsr_predictions(("yes", "no"), questions=6), tmp_path / "vsr.jsonl")
    given = [
        str(predictions) if word == "PREDICTIONS" else str(tmp_path / "x") if word == "x" else word for word in words
    ]
    assert_refused(capfd, given, named, tmp_path)


OF_A_RUN = {"attention", "attribution", "prompts", "transfer"}
"""These read the run first, and then whatever settings are given for it."""


@pytest.mark.parametrize("verb", sorted(set(VERBS) - OF_A_RUN - {"backbone"}))
def test_every_verb_refuses_a_flag_it_does_not_know(tmp_path, capfd, verb):
    needed: dict[str, list[str]] = {
        "score": ["x.jsonl"],
        "judge": ["x.jsonl", "--model", "x"],
        "search-prompt": ["--output", "x.yaml"],
        "completion": ["bash"],
        "list": ["rules"],
        "compare": ["a", "b"],
        "report": ["a"],
        "convert": ["a"],
        "ask": ["a", "b", "c"],
        "chat": ["a"],
        "merge": ["a", "--output", "x"],
    }
    needed |= {
        "data": ["fetch", "vsr"],
        "models": ["list"],
        "slurm": ["status"],
        "sweep": ["run", "ablation"],
        "templates": ["--texts", "testbed"],
        "export": ["predictions", "a", "--format", "llava", "--output", "x"],
        "push": ["a", "owner/name"],
    }
    of_experiments = ("fit", "train", "validate", "test", "predict", "evaluate", "params", "check")
    words = BASE if verb in of_experiments else needed.get(verb, [])
    assert_refused(capfd, [verb, *words, "--no-such-flag"], ("no-such-flag",), tmp_path)
