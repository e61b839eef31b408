"""Reading a sweep's file: what it expands to, and what ends before anything runs."""

import os
import shlex
from pathlib import Path

import pytest

from experiments.sweep.file import read_sweep, shipped_sweeps
from experiments.sweep.jobs import SweepSettings, cells, command_lines
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main

ROOT = Path(__file__).parents[2]
BASE = "experiments/m2pt_base.yaml"
NAME = "m2pt_base"
REAL_PAIR = ("smollm2", "smollm2_attempts", "smollm2_lengths", "smollm2_longer", "smollm2_lora")
CELL = f"cells: [{{label: a, config: {NAME}}}]"
SEARCH = "search: {trials: 5, share_of_steps: 1/3, seed: 0, ranges: {prompts: [1e-4, 1e-2]}}"


@pytest.fixture(autouse=True)
def from_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_grid_becomes_every_combination_with_every_seed(tmp_path):
    text = f"""
seeds: [3, 4]
config: {NAME}
arguments: {{trainer.max_steps: 10}}
grid:
  model.method.textual_length: [0, 5]
  model.optimizer.learning_rate: [1e-3, 5.0e-4]
"""
    sweep = read_sweep(written(tmp_path, text))
    assert sweep.name == "mine"
    assert [variant.label for variant in sweep.variants] == [
        "textual_length=0,learning_rate=1e-3",
        "textual_length=0,learning_rate=5.0e-4",
        "textual_length=5,learning_rate=1e-3",
        "textual_length=5,learning_rate=5.0e-4",
    ]
    lines = command_lines(cells(sweep, SweepSettings()))
    assert len(lines) == 8
    assert [line.split()[-1] for line in lines] == ["3"] * 4 + ["4"] * 4  # stopped early, all are still compared
    assert lines[6] == (
        f"m2pt train --config {BASE} --trainer.max_steps=10 --model.method.textual_length=5 "
        "--model.optimizer.learning_rate=1e-3 --seed_everything 4"
    )


def test_cells_with_arguments_seeds_backbone_and_rates(tmp_path):
    text = f"""
name: named
seeds: [0]
cells:
  - {{label: plain, config: {NAME}}}
  - label: no prompts
    config: [{NAME}, {ROOT}/experiments/strategies/ddp.yaml]
    arguments: {{model.method.visual_length: 0, model.method.visual_layers: [0, 1], trainer.precision: null}}
    seeds: [1, 2]
"""
    sweep = read_sweep(written(tmp_path, text))
    setting = SweepSettings("testbed_patch12", Path("elsewhere"), ("mine",))
    assert setting.folder(sweep) == Path("elsewhere/sweeps/named-testbed_patch12")
    lines = command_lines(cells(sweep, setting, {"plain": {"interaction": 0.01}}))
    assert shlex.split(lines[0])[4:] == [
        *("--config", "experiments/backbones/testbed_patch12.yaml", "--allow-import=mine"),
        '--model.optimizer.learning_rate={"interaction": 0.01}',
        *("--output_root=elsewhere", "--seed_everything", "0"),
    ]
    assert shlex.split(lines[2]) == [
        *("m2pt", "train", "--config", BASE, "--config", "experiments/strategies/ddp.yaml"),
        *("--config", "experiments/backbones/testbed_patch12.yaml"),
        *("--model.method.visual_length=0", "--model.method.visual_layers=[0, 1]", "--trainer.precision=null"),
        *("--allow-import=mine", "--output_root=elsewhere", "--seed_everything", "2"),
    ]


WRONG = {
    "unknown key": (f"seeds: [0]\nceils: []\n{CELL}\n", 2, ["ceils", "did you mean cells?"]),
    "unknown cell key": (f"seeds: [0]\ncells:\n- label: a\n  config: {NAME}\n  seed: 1\n", 5, ["did you mean seeds?"]),
    "doubled key": (f"seeds: [0]\nseeds: [1]\n{CELL}\n", 2, ["also written on line 1"]),
    "doubled label": (
        f"seeds: [0]\ncells:\n- {{label: a, config: {NAME}}}\n- {{label: a, config: full}}\n",
        4,
        ["'a'", ":3"],
    ),
    "same settings": (
        f"seeds: [0]\ncells:\n- {{label: a, config: {NAME}}}\n- {{label: b, config: {NAME}}}\n",
        4,
        ["'b' is the same as 'a'"],
    ),
    "missing config": (
        "seeds: [0]\ncells:\n- label: a\n  config: m2pt_bass\n",
        4,
        ["did you mean m2pt_base?"],
    ),
    "no label": (f"seeds: [0]\ncells:\n- config: {NAME}\n", 3, ["label", "missing"]),
    "label with a slash": (f"seeds: [0]\ncells:\n- {{label: a/b, config: {NAME}}}\n", 3, ["'a/b' is no label"]),
    "no seeds": (f"{CELL}\n", 1, ["seeds", "missing"]),
    "doubled seed": (f"seeds: [1, 1]\n{CELL}\n", 1, ["every seed once"]),
    "seed of words": (f"seeds: [one]\n{CELL}\n", 1, ["whole number"]),
    "nothing to run": ("seeds: [0]\n", None, ["neither `cells` nor `grid`"]),
    "both": (f"seeds: [0]\n{CELL}\ngrid: {{a: [1]}}\n", None, ["both"]),
    "config beside cells": (f"seeds: [0]\n{CELL}\nconfig: {NAME}\n", 3, ["belongs to `grid`"]),
    "grid of one value": (f"seeds: [0]\nconfig: {NAME}\ngrid: {{model.method.init_std: 3}}\n", 3, ["no list"]),
    "grid without config": ("seeds: [0]\ngrid: {model.method.init_std: [3]}\n", 1, ["`config` is missing"]),
    "reserved key": (f"seeds: [0]\nconfig: {NAME}\ngrid: {{seed_everything: [3]}}\n", 3, ["`seeds`"]),
    "no key": (f"seeds: [0]\nconfig: {NAME}\ngrid: {{--model: [3]}}\n", 3, ["is no key"]),
    "range upside down": (f"seeds: [0]\n{CELL}\n{SEARCH}\n".replace("[1e-4, 1e-2]", "[1, 0.1]"), 3, ["no range"]),
    "share of two": (f"seeds: [0]\n{CELL}\n{SEARCH}\n".replace("1/3", "2"), 3, ["2 is no share"]),
    "search without trials": (f"seeds: [0]\n{CELL}\n{SEARCH}\n".replace("trials: 5, ", ""), 3, ["trials", "missing"]),
    "search on nothing": (f"seeds: [0]\n{CELL}\n{SEARCH[:-1]}, validation_batches: 0}}\n", 3, ["judge nothing"]),
    "alias": (f"seeds: &s [0]\nname: *s\n{CELL}\n", 2, ["alias"]),
    "no mapping": ("- 1\n", None, ["no keys"]),
}


@pytest.mark.parametrize(("text", "line", "named"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_with_its_line(tmp_path, capfd, text, line, named):
    path = written(tmp_path, text)
    code = main(["sweep", "run", str(path), "--output_root", str(tmp_path / "out")])
    captured = capfd.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert code == ExitCode.BAD_INPUT
    assert len(lines) <= 3
    assert (f"{path}:{line}" if line else str(path)) in lines[0]
    for word in named:
        assert word in " ".join(lines)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run", "ablatoin"], "did you mean ablation?"),
        (["run", "ablation", "--backbone", "testbad"], "testbed"),
        (["run", "ablation", "--jobs", "0"], "1 or more"),
        (["status", "nowhere.yaml"], "nowhere.yaml"),
        (["walk"], "see `m2pt sweep --help`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_end_in_three_lines(capfd, words, named):
    assert main(["sweep", *words]) == ExitCode.BAD_INPUT
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) <= 3
    assert named in " ".join(lines)


def test_the_shipped_sweeps_say_their_true_size(capfd):
    for path in shipped_sweeps():
        try:
            sweep = read_sweep(path)
        except BadInputError as error:
            assert "there is no file" in error.what  # noqa: PT017
            continue
        first = path.read_text().splitlines()[0]
        assert f"({len(cells(sweep, SweepSettings()))} cells" in first
        if sweep.search is not None:
            assert f"{sum(not each.rates_of for each in sweep.variants) * sweep.search.trials} trials" in first
    assert main(["sweep", "list"]) == 0
    named = [line.split()[0] for line in capfd.readouterr().out.splitlines()]
    ours = ["ablation", "comparison", "lengths", "patch12", "prompt_transfer", *REAL_PAIR, "templates_methods"]
    assert named == ours


def test_a_dry_run_prints_the_lines_and_nothing_else(capfd):
    assert main(["sweep", "run", "ablation", "--dry-run"]) == 0
    shown = capfd.readouterr()
    lines = shown.out.splitlines()
    assert len(lines) == 20
    assert all(line.startswith(f"m2pt train --config {BASE} ") for line in lines)
    assert lines[9].endswith("--model.method.visual_length=0 --seed_everything 2")
    assert shown.err == "20 cells\n"


def test_configs_are_named_as_seen_from_the_sweeps_file_from_whatever_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("include: part.yaml\n")
    (tmp_path / "part.yaml").write_text("trainer: {max_steps: 1}\n")
    path = tmp_path / "sweep.yaml"
    path.write_text("seeds: [0]\ncells: [{label: a, config: mine.yaml}, {label: b, config: full}]\n")
    lines, keys = [], []
    for folder in (ROOT, tmp_path, tmp_path.parent):
        monkeypatch.chdir(folder)
        jobs = cells(read_sweep(path), SweepSettings())
        lines.append(command_lines(jobs))
        keys.append([job.key for job in jobs])
    assert [line[0].split()[3] for line in lines] == [
        f"{tmp_path}/mine.yaml",
        "mine.yaml",
        f"{tmp_path.name}/mine.yaml",
    ]
    assert lines[0][1].split()[3] == "experiments/full.yaml"
    assert lines[1][1].split()[3] == str(ROOT / "experiments" / "full.yaml")
    assert keys[0] == keys[1] == keys[2]
    (tmp_path / "part.yaml").write_text("trainer: {max_steps: 2}\n")
    changed = [job.key for job in cells(read_sweep(path), SweepSettings())]
    assert changed[0] != keys[0][0]
    assert changed[1] == keys[0][1]


def test_a_file_that_a_cell_or_its_experiment_names_decides_its_key(tmp_path):
    files = {name: tmp_path / f"{name}.yaml" for name in ("sets", "set", "words", "mine", "inside", "note")}
    files["sets"].write_text("- set.yaml\n")
    files["set"].write_text("class_path: data_modules.vsr.VSR\ninit_args: {limit: 8}\n")
    files["mine"].write_text("data: {template: inside.yaml}\n")
    for name in ("words", "inside", "note"):
        files[name].write_text("user: A\n")
    arguments = {
        "part": f"{{benchmarks: {files['sets']}}}",
        "template": f"{{data.template: {files['words']}}}",
        "list": f"{{benchmarks: [{{class_path: data_modules.mme.MME, init_args: {{template: {files['words']}}}}}]}}",
        "plain": "{trainer.max_steps: 3}",
        "missing": "{data.template: nowhere.yaml}",
    }
    cells_of = [f"{{label: {label}, config: {NAME}, arguments: {words}}}" for label, words in arguments.items()]
    path = tmp_path / "sweep.yaml"
    path.write_text(f"seeds: [0]\ncells: [{', '.join(cells_of)}, {{label: inside, config: mine.yaml}}]\n")

    def keys() -> dict[str, str]:
        return {job.label: job.key for job in cells(read_sweep(path), SweepSettings())}

    for name, expected in {
        "set": {"part"},  # a part of a part
        "words": {"template", "list"},
        "inside": {"inside"},
        "note": set(),
    }.items():
        before = keys()
        files[name].write_text(files[name].read_text().replace("8", "16").replace("A", "B"))
        after = keys()
        assert {label for label in before if before[label] != after[label]} == expected, name


def test_a_config_as_seen_from_the_working_directory_gets_the_way_there(tmp_path):
    with pytest.raises(BadInputError) as error:
        read_sweep(written(tmp_path, f"seeds: [0]\ncells: [{{label: a, config: {BASE}}}]\n"))
    way = os.path.relpath(ROOT / BASE, tmp_path)
    assert error.value.hint == f"it is there as seen from the working directory: write {way}"
