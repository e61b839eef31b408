"""Sweeps of prompts that are words x methods: what they expand to, what decides a cell, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.commands.sweep import parsed
from experiments.runs.folder import run_folder
from experiments.sweep.file import read_sweep
from experiments.sweep.jobs import SweepSettings, cells, command_lines
from experiments.sweep.search import fingerprint, plan_search
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import RewordedTemplate, read_prompt
from lightning_m2pt.main import main
from lightning_m2pt.storage.adapter_folder import TEMPLATE_DIGEST
from lightning_m2pt.storage.run_record import read_run_record
from tests.support.runs.small_sweep import write_experiment, write_sweep

ROOT = Path(__file__).parents[2]
ONE_WORD = 'question: "{question} answer with one word."\n'
AXIS = {"as it is": None, "one word": "one_word.yaml"}


@pytest.fixture(autouse=True)
def from_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def sweep_of(folder: Path, **content: Any) -> Path:
    (folder / "one_word.yaml").write_text(ONE_WORD)
    given = {"seeds": [0], "prompt_texts": AXIS, "cells": [{"label": "m2pt", "config": "m2pt_base"}], **content}
    return write_sweep(folder, **{key: value for key, value in given.items() if value is not None})


def test_every_row_has_every_text_and_the_texts_change_fastest(tmp_path: Path) -> None:
    both = [{"label": "m2pt", "config": "m2pt_base"}, {"label": "lora", "config": "lora_base", "rates_of": "m2pt"}]
    sweep = read_sweep(sweep_of(tmp_path, seeds=[3, 4], cells=both))
    assert [(each.label, each.rates_of) for each in sweep.variants] == [
        ("m2pt, as it is", ""),
        ("m2pt, one word", ""),
        ("lora, as it is", "m2pt, as it is"),
        ("lora, one word", "m2pt, one word"),
    ]
    text, begin = f"{tmp_path}/one_word.yaml", "m2pt train --config experiments/m2pt_base.yaml"
    assert command_lines(cells(sweep, SweepSettings()))[:2] == [
        f"{begin} --seed_everything 3",
        f"{begin} --prompt_text {text} --seed_everything 3",
    ]
    grid = read_sweep(sweep_of(tmp_path, cells=None, config="m2pt_base", grid={"model.method.visual_length": [0, 5]}))
    assert [each.label for each in grid.variants][:3] == [
        "visual_length=0, as it is",
        "visual_length=0, one word",
        "visual_length=5, as it is",
    ]


def test_what_a_text_says_decides_its_cells_and_trials_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = {"trials": 2, "share_of_steps": "1/3", "seed": 0, "ranges": {"*": [1e-4, 1e-2]}}
    path, setting = sweep_of(tmp_path, search=search), SweepSettings()

    def keys() -> list[list[str]]:
        sweep = read_sweep(path)
        assert sweep.search is not None
        rates = {"interaction": 1e-3}
        searches = [plan_search(sweep.search, each, setting, rates, 30) for each in sweep.variants]
        prints = [fingerprint(sweep.search, each, setting) for each in sweep.variants]
        trials = [search.trials[1].key for search in searches]
        return [list(found) for found in zip([job.key for job in cells(sweep, setting)], prints, trials, strict=True)]

    before = keys()
    assert not set(before[0]) & set(before[1])
    monkeypatch.chdir(tmp_path)
    assert keys() == before  # from whatever folder
    (tmp_path / "one_word.yaml").write_text(ONE_WORD.replace("one word", "a word"))
    after = keys()
    assert after[0] == before[0]
    assert all(new != old for new, old in zip(after[1], before[1], strict=True))


def test_cells_are_the_experiment_with_these_words(tmp_path: Path) -> None:
    """They come behind a prompt that the experiment's own file names; null leaves that one."""
    (tmp_path / "own.yaml").write_text('question: "tell me: {question}"\n')
    own = str(write_experiment(tmp_path, "own_prompt", prompt_text="own.yaml"))
    plain = str(write_experiment(tmp_path, "small"))
    cell = [{"label": "own", "config": own}, {"label": "small", "config": plain}]
    sweep = read_sweep(sweep_of(tmp_path, cells=cell))
    found = [parsed(each, SweepSettings()) for each in sweep.variants]
    templates = [each.data.template for each in found]
    texts = [read_prompt(tmp_path / name).text for name in ("own.yaml", "one_word.yaml")]
    said = [each.text if isinstance(each, RewordedTemplate) else None for each in templates]
    assert said == [texts[0], texts[1], None, texts[1]]
    assert [each.benchmarks[0].template for each in found] == templates
    for each in found:
        each.connect()
    names = [run_folder(each).name for each in found]
    assert names[1] == names[3]
    assert len(set(names)) == 3


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no file": ({"prompt_texts": {"a": "nowhere.yaml"}}, "there is no file nowhere.yaml"),
    "no text": ({"prompt_texts": {"a": [1]}}, "this is no text"),
    "empty": ({"prompt_texts": {}}, "there are no prompts"),
    "no mapping": ({"prompt_texts": ["one_word.yaml"]}, "this is no mapping"),
    "no label": ({"prompt_texts": {"a/b": None}}, "'m2pt, a/b' is no label"),
    "twice": ({"prompt_texts": {"a": None, "b": None}}, "'m2pt, b' is the same as 'm2pt, a'"),
    "of its own": (
        {"cells": [{"label": "m2pt", "config": "m2pt_base", "arguments": {"prompt_text": "x.yaml"}}]},
        "'m2pt' has a prompt_text of its own",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    content, sentence = WRONG[case]
    path = sweep_of(tmp_path, **content)
    with pytest.raises(BadInputError) as refused:
        read_sweep(path)
    text = str(refused.value)
    assert sentence in text
    assert f"{path}:" in text
    assert len(text.splitlines()) in (2, 3)


def test_a_wrong_prompt_ends_the_sweep_before_anything_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = sweep_of(tmp_path, cells=[{"label": "small", "config": str(write_experiment(tmp_path))}])
    (tmp_path / "one_word.yaml").write_text("question: answer with one word.\n")
    assert main(["sweep", "run", str(path), "--output_root", str(tmp_path / "out")]) == 2
    assert "{question}" in capfd.readouterr().err
    assert not (tmp_path / "out" / "small").exists()


@pytest.mark.slow
def test_a_tiny_sweep_runs_with_its_words_and_has_a_row_for_each(tmp_path: Path) -> None:
    path = sweep_of(tmp_path, cells=[{"label": "small", "config": str(write_experiment(tmp_path, steps=2))}])
    assert main(["sweep", "run", str(path), "--output_root", str(tmp_path / "out"), "--jobs", "2"]) == 0
    rows = json.loads((tmp_path / "out" / "sweeps" / "tiny" / "table.json").read_text())["rows"]
    assert [row["label"] for row in rows][-2:] == ["small, as it is", "small, one word"]
    runs = [Path(row["runs"][0]) for row in rows[-2:]]
    assert len(set(runs)) == 2
    digests = [TEMPLATE_DIGEST in json.dumps(read_run_record(run)) for run in runs]
    assert digests == [False, True]
