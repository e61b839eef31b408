"""Evaluation sets as words of the command line: every set once, each evaluation in a folder of its own, own places."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.commands.answer import decides
from experiments.commands.evaluate import evaluation_folder, main, move_benchmarks
from experiments.configuration.chosen_sets import split_off_names
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import short_hash, without_later_settings
from lightning_m2pt.commands.attention import say_missing_words
from lightning_m2pt.errors import BadInputError
from tests.support.small_experiment import BASE, small_words


def sets(*templates: str) -> str:
    return json.dumps(
        [{"class_path": "data_modules.vsr.VSR", "init_args": {"root": "vsr", "template": name}} for name in templates]
    )


@pytest.mark.parametrize("templates", [("vicuna_v1", "plain"), ("plain", "plain")])
def test_a_set_that_is_there_twice_is_refused_because_one_would_replace_the_other(
    tmp_path: Path, templates: tuple[str, ...]
) -> None:
    with pytest.raises(BadInputError, match="the set 'vsr' is there twice") as caught:
        parse_experiment([*small_words(tmp_path), "--benchmarks", sets(*templates)])
    assert caught.value.where == "command line: benchmarks"


def test_a_set_answered_in_another_type_has_a_folder_of_its_own(tmp_path: Path) -> None:
    words = ["--config", BASE, "--benchmarks", "[]", "--data", json.dumps(json.loads(sets("plain"))[0])]
    own, other = (parse_experiment([*words, *more]) for more in ([], ["--model.backbone.dtype", "bfloat16"]))
    (tmp_path / "config.yaml").write_text(json.dumps(own.config))
    arguments = {**own.config["data"]["init_args"], "root": "vsr"}
    former = {"class_path": own.config["data"]["class_path"], "init_args": arguments}
    assert decides(tmp_path, own) == former, "runs of before keep their folders"
    assert short_hash(decides(tmp_path, other)) != short_hash(decides(tmp_path, own))


@pytest.mark.parametrize(
    ("class_path", "setting", "other"),
    [
        ("data_modules.pope.POPE", "question_file", "q.jsonl"),
        ("data_modules.text_vqa.TextVQA", "ocr_tokens", True),
        ("data_modules.mnist.MNIST", "candidates", "words"),
    ],
)
def test_a_later_setting_at_its_default_is_as_if_it_were_not_there(
    tmp_path: Path, class_path: str, setting: str, other: object
) -> None:
    entry = {"class_path": class_path, "init_args": {"root": "r", "template": "plain"}}
    words = ["--config", BASE, "--benchmarks", json.dumps([entry])]
    own, changed = (
        parse_experiment([*words, *more])
        for more in ([], [f"--benchmarks.{setting}", str(other).replace("True", "true")])
    )
    recorded = json.loads(json.dumps(own.config))
    del recorded["benchmarks"][0]["init_args"][setting]
    (tmp_path / "config.yaml").write_text(json.dumps(recorded))
    assert evaluation_folder(tmp_path, own, frozenset(), "greedy", 0) == tmp_path
    assert evaluation_folder(tmp_path, changed, frozenset(), "greedy", 0).parent == tmp_path / "evaluations"
    assert setting not in without_later_settings(own.config["benchmarks"][0])["init_args"]
    assert without_later_settings(changed.config["benchmarks"][0])["init_args"][setting] == other


def test_several_files_of_ones_own_are_sets_by_their_names(tmp_path: Path) -> None:
    def entry(file: str, **others: str) -> dict[str, object]:
        arguments = {"file": file, "rule": "any_match", "template": "plain", **others}
        return {"class_path": "data_modules.questions.Questions", "init_args": arguments}

    part = tmp_path / "mine.yaml"
    part.write_text(json.dumps([entry("a/first.csv"), entry("b.jsonl", name="second")]))
    experiment = parse_experiment(["--config", BASE, "--benchmarks", str(part)])
    assert [benchmark.name for benchmark in experiment.benchmarks] == ["first", "second"]
    assert experiment.config["benchmarks"][0]["init_args"]["file"] == str(tmp_path / "a" / "first.csv")
    part.write_text(json.dumps([entry("a/first.csv"), entry("b/first.csv")]))
    with pytest.raises(BadInputError, match="the set 'first' is there twice"):
        parse_experiment(["--config", BASE, "--benchmarks", str(part)])
    with pytest.raises(BadInputError, match="first is a file of its own and has no folder below a common one"):
        move_benchmarks(experiment, tmp_path)


def test_every_verb_takes_the_names_of_an_experiments_sets() -> None:
    words = ["--config", "experiments/frozen.yaml"]
    every = parse_experiment(words)
    names = [benchmark.name for benchmark in every.benchmarks]
    for given, expected in ((["--benchmarks", "vsr, pope"], ["vsr", "pope"]), (["--benchmarks=all"], names)):
        experiment = parse_experiment([*words, *given])
        assert [benchmark.name for benchmark in experiment.benchmarks] == expected
        in_order = [every.config["benchmarks"][names.index(name)] for name in expected]
        assert experiment.config["benchmarks"] == in_order
    with pytest.raises(BadInputError, match="the experiment has no set 'vqa'") as caught:
        parse_experiment([*words, "--benchmarks", "vsr,vqa"])
    assert caught.value.expected == ", ".join(names)
    with pytest.raises(BadInputError, match="the experiment has no set 'vsr'") as caught:
        parse_experiment(["--config", BASE, "--benchmarks", "[]", "--benchmarks", "vsr"])
    assert "which has none" in str(caught.value)


def test_classes_lists_and_files_are_no_names() -> None:
    kept = ["--benchmarks", "data_modules.pope.POPE", "--benchmarks=[]", "--benchmarks", "mine.yaml", "--data", "a"]
    assert split_off_names([*kept, "--benchmarks", "vsr", "--benchmarks+=my.Set"]) == (
        "vsr",
        [*kept, "--benchmarks+=my.Set"],
    )
    assert split_off_names(["--benchmarks", "null", "--benchmarks"]) == (None, ["--benchmarks", "null", "--benchmarks"])


def test_names_choose_among_a_list_of_the_same_command() -> None:
    with pytest.raises(BadInputError, match="the experiment has no set 'pope'") as caught:
        main(["--config", BASE, "--benchmarks", sets("plain"), "--benchmarks", "pope"])
    assert caught.value.expected == "vsr"


def test_a_word_that_nothing_is_drawn_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    sample = SimpleNamespace(question=SimpleNamespace(id="test/1"), sides=[SimpleNamespace(tokens=[" Cat", "?"])])
    say_missing_words(sample, ["cat"])  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""
    say_missing_words(sample, ["cat", "dog"])  # type: ignore[arg-type]
    assert "no token of test/1 is dog" in capsys.readouterr().out
