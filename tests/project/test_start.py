"""Help, mistyped flags and what comes with the project are there at once: nothing heavy is imported for them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from experiments.alignment.settings import ALIGNMENTS
from experiments.backbone_recipe.settings import RECIPES
from experiments.commands.parsers import backbone, evaluate
from experiments.configuration import catalogue
from experiments.configuration.help import KEYS, ExperimentVerbParser
from experiments.configuration.schema import GROUPS, TOP_LEVEL_KEYS
from experiments.configuration.stored_description import keep_schema
from lightning_m2pt.answering.content_free import CalibrationPicture
from lightning_m2pt.answering.decoding import AnsweringMethod
from lightning_m2pt.commands.parsers import attribution
from lightning_m2pt.commands.verbs import VERBS, parser_of
from lightning_m2pt.inspection.attribution import AttributionMethod
from lightning_m2pt.main import main
from lightning_m2pt.metrics.coverage import CALIBRATED

MISTYPED = [
    ["sweep", "run", "ablation", "--jbos", "2"],
    ["train", "--config", "experiments/m2pt_base.yaml", "--trainer.max_stepz", "3"],
]
ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "lightning", "transformers", "torchvision", "open_clip", "torchmetrics", "sklearn", "matplotlib")
COMMANDS = [[verb] for verb in VERBS] + [["data", name] for name in ("fetch", "show", "testbed")]
COMMANDS += [
    ["models", "fetch"],
    ["models", "show"],
    ["models", "list"],
    ["export", "predictions"],
    ["sweep", "run"],
    ["sweep", "status"],
    ["sweep", "list"],
    ["slurm", "submit"],
    ["slurm", "status"],
    ["slurm", "logs"],
    ["slurm", "cancel"],
    ["slurm", "after"],
]
READS_AN_EXPERIMENT = [verb for verb in VERBS if isinstance(parser_of(verb), ExperimentVerbParser)]

# In one child, because a process costs more than all helps together.
ASK_EVERY_HELP = f"""
import contextlib, io, json, sys
from lightning_m2pt.main import main
loaded = dict()
for words in [["--help"], *([*words, "--help"] for words in {COMMANDS!r}), *{MISTYPED!r}]:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    loaded[" ".join(words)] = [code, shown.getvalue(), sorted(set({HEAVY!r}) & set(sys.modules))]
print(json.dumps(loaded))
"""


LATER = ("open_clip", "timm", "sklearn", "peft", "optuna", "captum", "bitsandbytes")
"""What a verb imports where it uses it: a mistake in a configuration or a file is found before.

transformers, torchvision and scipy are not among them: torchmetrics, which Lightning imports, imports them all.
"""
DRAWS_OR_BUILDS = {"backbone", "data"}
IMPORT_EVERY_VERB = f"""
import importlib, json, sys
loaded = dict()
for verb, module in {[(verb, VERBS[verb][0]) for verb in VERBS if verb not in DRAWS_OR_BUILDS]!r}:
    importlib.import_module(module)
    loaded[verb] = sorted(set({LATER!r}) & set(sys.modules))
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, tuple[int, str, list[str]]]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        keep_schema.cache_clear()
        keep_schema()
        child = subprocess.run(
            [sys.executable, "-c", ASK_EVERY_HELP],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "400"},
            capture_output=True,
            text=True,
            check=True,
        )
        keep_schema.cache_clear()
    return {words: tuple(answer) for words, answer in json.loads(child.stdout).items()}


@pytest.mark.parametrize("words", [" ".join(words) for words in COMMANDS])
def test_every_help_is_there_without_torch(answers, words):
    code, shown, heavy = answers[f"{words} --help"]
    assert code == 0
    assert shown.startswith(f"usage: m2pt {words}")
    assert heavy == []


@pytest.mark.parametrize("words", MISTYPED, ids=lambda words: words[0])
def test_a_mistyped_flag_or_key_is_refused_without_torch(answers, words):
    code, shown, heavy = answers[" ".join(words)]
    assert code == 2
    assert len(shown.splitlines()) <= 3
    assert shown.startswith("error: command line: ")
    assert heavy == []


def test_a_verbs_module_imports_no_model_library():
    child = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERY_VERB], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {verb: loaded for verb, loaded in json.loads(child.stdout).items() if loaded} == {}


@pytest.mark.parametrize("verb", READS_AN_EXPERIMENT)
def test_help_names_keys_and_what_comes_with_the_project(answers, verb):
    shown = answers[f"{verb} --help"][1]
    for key, _ in KEYS:
        assert f"\n  {key} " in shown
    for entries in (catalogue.methods(), catalogue.sets(), catalogue.backbones()):
        for entry in entries:
            assert f"{entry.name} " in shown
            assert entry.about in shown
    names = shown[shown.index("experiments that come") :].replace(",", " ").split()
    assert {entry.name for entry in catalogue.experiments()} <= set(names)
    assert f"  m2pt {verb} " in shown[shown.index("examples:") :]


def test_verbs_that_read_an_experiment():
    expected = {"train", "fit", "validate", "test", "predict", "evaluate", "check", "params"}
    assert set(READS_AN_EXPERIMENT) >= expected
    assert {verb for verb in VERBS if parser_of(verb).takes_settings} == {
        *READS_AN_EXPERIMENT,
        "data",
        "slurm",
        "attention",
        "attribution",
        "prompts",
    }


def test_the_keys_of_help_are_those_of_an_experiment():
    listed = [key for key, _ in KEYS]
    assert {key.partition(".")[0] for key in listed} == set(TOP_LEVEL_KEYS)
    assert set(GROUPS) - {"model"} <= set(listed)


def test_names_that_stand_apart_from_torch_are_those_beside_it():
    assert get_args(AnsweringMethod) == evaluate.ANSWERING_METHODS
    assert (*evaluate.UNCALIBRATED, *CALIBRATED) == evaluate.ANSWERING_METHODS
    assert get_args(CalibrationPicture) == evaluate.CALIBRATION_PICTURES
    assert (*RECIPES, *ALIGNMENTS) == backbone.NAMES
    assert get_args(AttributionMethod) == attribution.METHODS


def test_help_all_shows_every_key(capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--help-all"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert "--force" in shown
    assert "--trainer.gradient_clip_val" in shown
    assert "methods (model.method" not in shown


@pytest.mark.parametrize("verb", ["train", "validate"])
def test_help_of_a_class(capsys, verb):
    with pytest.raises(SystemExit) as end:
        main([verb, "--model.method.help", "lightning_m2pt.methods.m2pt.M2PT"])
    assert end.value.code in (0, None)
    assert "visual_length" in capsys.readouterr().out
