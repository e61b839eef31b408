"""What a program may name: runs whose adapters know their base or do not, best adapters, other templates and types."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

import lightning_m2pt
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.run_record import update_run_record
from tests.support.answers.saved_adapters import TOKENS, asked_of, save_invented, write_pictures
from tests.support.models.tuned_runs import write_run


class Runs:
    """A run whose adapter knows its base by its content alone, and an adapter that says where it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = asked_of(write_pictures(folder / "pictures", 2))
        self.run = write_run(folder / "outputs" / "run", M2PT(visual_length=2, textual_length=2))
        self.answers = save_invented(folder / "adapter", M2PT(visual_length=2, textual_length=2), self.asked)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def answers_of(model: lightning_m2pt.Model, runs: Runs) -> list[str]:
    return model.ask_all(runs.asked, max_new_tokens=TOKENS)


def test_a_run_knows_where_the_files_of_its_base_are(runs: Runs) -> None:
    model = lightning_m2pt.load(runs.run, device="cpu")
    alone = lightning_m2pt.load(runs.run / "adapter", base="testbed", device="cpu")
    assert answers_of(model, runs) == answers_of(alone, runs)
    assert model.template.name == "plain"
    with pytest.raises(BadInputError, match="nothing names the base but its content"):
        lightning_m2pt.load(runs.run / "adapter")
    double = lightning_m2pt.load(runs.run, device="cpu", dtype="float64")
    assert double._base.backbone.dtype_name == "float64"


def test_no_configuration_is_read_where_the_adapter_says_its_base(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.folder / "adapter", tmp_path / "run" / "adapter")
    (tmp_path / "run" / "config.yaml").write_text("{: no YAML")
    for source in (tmp_path / "run", str(tmp_path / "run"), runs.folder / "adapter"):
        assert answers_of(lightning_m2pt.load(source, device="cpu"), runs) == runs.answers


def test_a_run_that_says_so_is_asked_with_its_best_adapter(runs: Runs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs.folder / "adapter", run / "adapter_best")
    save_invented(run / "adapter", M2PT(visual_length=2, textual_length=2), [], seed=5)
    update_run_record(run, "seed", 0)
    assert answers_of(lightning_m2pt.load(run, device="cpu"), runs) != runs.answers
    update_run_record(run, "best_adapter", {"evaluated": "best", "by": "val/loss"})
    assert answers_of(lightning_m2pt.load(run, device="cpu"), runs) == runs.answers
    shutil.rmtree(run / "adapter_best")
    with pytest.raises(BadInputError, match="no adapter of it is the best"):
        lightning_m2pt.load(run)


def test_a_template_that_an_older_adapter_only_names_is_the_runs(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.run, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.yaml").read_text())
    (tmp_path / "words.yaml").write_text(yaml.safe_dump({"question": "is it {question}", "based_on": "vicuna_v1"}))
    sets = [{"class_path": "data_modules.vsr.VSR", "init_args": {"template": str(tmp_path / "words.yaml")}}]
    (tmp_path / "run" / "config.yaml").write_text(json.dumps({**config, "benchmarks": sets}))
    path = tmp_path / "run" / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "template": "vicuna_v1+words", "format": 2}))
    model = lightning_m2pt.load(tmp_path / "run", device="cpu")
    assert model.template.name == "vicuna_v1+words"
    assert model.ask(*runs.asked[0], max_new_tokens=TOKENS) is not None
    with pytest.raises(BadInputError, match="words"):
        lightning_m2pt.load(tmp_path / "run" / "adapter", base="testbed")


def test_what_is_not_as_it_was_tuned_is_said(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(runs.folder / "adapter", tmp_path / "run" / "adapter")
    update_run_record(tmp_path / "run", "made_with", [{}])
    lightning_m2pt.load(tmp_path / "run", device="cpu", dtype="float64")
    shown = capsys.readouterr()
    assert "note: tuned on a base in float32, which is in float64 now" in shown.err
    assert "note: tuning was stopped before its last step" in shown.err
    assert shown.out == ""


def test_a_run_without_an_adapter_says_what_is_missing(runs: Runs, tmp_path: Path) -> None:
    shutil.copy(runs.run / "config.yaml", tmp_path / "config.yaml")
    with pytest.raises(BadInputError, match="no adapter here") as refused:
        lightning_m2pt.load(tmp_path)
    assert len(str(refused.value).splitlines()) == 3


def test_who_names_no_run_hears_of_the_newest_beside_it_or_inside(runs: Runs, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs" / "experiment"
    for place, second in (("first", 100), ("second", 200)):
        (outputs / place).mkdir(parents=True)
        (outputs / place / "config.yaml").touch()
        os.utime(outputs / place, (second, second))
    for named in (outputs / "RUN", outputs):
        with pytest.raises(BadInputError) as refused:
            lightning_m2pt.load(named)
        assert refused.value.hint == f"{outputs / 'second'} is the newest of 2 runs there"
    for nothing in (str(tmp_path / "a" / "b" / "c"), "a\0b", "x" * 5000, ""):
        with pytest.raises(BadInputError) as refused:
            lightning_m2pt.load(nothing)
        assert refused.value.hint == "ls outputs/*/"


def test_a_model_says_what_it_is(runs: Runs) -> None:
    model = lightning_m2pt.load(runs.run, device="cpu")
    assert repr(model) == "<lightning_m2pt.Model 'default': m2pt on OpenClipLlama in float32, cpu>"
    model.add("other", runs.folder / "adapter")
    assert repr(model).endswith("in float32, cpu, also 'other'>")
