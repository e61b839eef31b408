"""The schema of experiment files: it takes what the parser takes, and an early refusal is the full parse's own."""

import json
import os
from pathlib import Path

import pytest
import yaml

from experiments.configuration import stored_description
from experiments.configuration.cli import parse_experiment
from experiments.configuration.completion_words import words_of_experiments
from experiments.configuration.description import experiment_schema, group_schema
from experiments.configuration.early import DoubtError, refuse_wrong_key, wrong_arguments
from experiments.configuration.stored_description import file_of, keep_schema, key_of_description, stored_schema
from lightning_m2pt.configuration.strict_yaml import plain, read_tree
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from tests.support.json_schema import fits
from tests.support.small_experiment import BASE, small_words

FILES = sorted([*Path("experiments").glob("*.yaml"), *Path("experiments").glob("[!s]*/*.yaml")])
FILES += sorted(Path("experiments/strategies").glob("*.yaml"))
M2PT = "lightning_m2pt.methods.m2pt.M2PT"
VSR = "data_modules.vsr.VSR"


@pytest.fixture(scope="module")
def schema():
    return experiment_schema()


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        keep_schema.cache_clear()
        keep_schema()
        yield
        keep_schema.cache_clear()


def document(text: str):
    return plain(yaml.compose(text))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_shipped_file_fits(path, schema):
    content = plain(read_tree(path))
    assert fits({"benchmarks": content} if isinstance(content, list) else content, schema, schema)


@pytest.mark.parametrize(
    "text",
    [
        "trainer: {max_stepz: 3}",
        "trainer: {max_steps: many}",
        "modell: {}",
        "model: {optimiser: {learning_rate: 1.0}}",
        "model: {optimizer: {learning_rat: 1.0}}",
        "model: {schedule: {name: cos}}",
        f"model: {{method: {{class_path: {M2PT}, init_args: {{visual_lenght: 3}}}}}}",
        f"model: {{method: {{class_path: {M2PT}, init_args: {{visual_length: ten}}}}}}",
        f"benchmarks: [{{class_path: {VSR}, init_args: {{rooot: x}}}}]",
        "data: {class_path: data_modules.vision_flan.VisionFlan, init_args: {batch_size: x}}",
        "seed_everything: -1",
        "include: [3]",
        "save_every_n_steps: 0",
    ],
)
def test_mistakes_do_not_fit(text, schema):
    assert not fits(document(text), schema, schema)


@pytest.mark.parametrize(
    "text",
    [
        "model: {method: {class_path: mine.Method, init_args: {anything: 1}}}",
        "model: {method: parts/method.yaml, optimizer: parts/optimizer.yaml}",
        "trainer: trainer.yaml",
        "include: [parts/testbed.yaml]",
        f"benchmarks: [sets.yaml, {{class_path: {VSR}, init_args: {{batch_size: '${{data.init_args.batch_size}}'}}}}]",
        "trainer: {callbacks: [{class_path: mine.Callback, init_args: {x: 1}}], precision: bf16-true}",
    ],
)
def test_what_only_the_parser_can_judge_fits(text, schema):
    assert fits(document(text), schema, schema)


def test_a_class_is_described_in_its_own_words(schema):
    described = schema["$defs"][M2PT]
    length = described["properties"]["visual_length"]
    assert length["default"] == 20
    assert length["description"].startswith("Visual prompt rows per layer")
    assert "Required." in schema["$defs"][VSR]["properties"]["root"]["description"]
    assert described["properties"]["textual_depth"] == {
        **described["properties"]["textual_depth"],
        "anyOf": [{"enum": ["deep", "shallow"]}, {"type": "string", "pattern": "\\$\\{"}],
    }
    names = schema["$defs"]["method"]["anyOf"][1]["properties"]["class_path"]["anyOf"][0]["enum"]
    assert M2PT in names
    assert len(names) == 11


class TakesMore:
    """Takes more than it names."""

    def __init__(self, pair: "tuple[int, str]" = (1, "a"), names: "list[int | None]" = (), **more: int) -> None: ...


def test_what_a_signature_leaves_open_stays_open():
    described = group_schema("mine.TakesMore", TakesMore)
    assert (described["additionalProperties"], list(described["properties"])) == (True, ["pair", "names"])
    assert described["properties"]["pair"]["anyOf"][0] == {"type": "array"}  # its items are of several types
    assert described["properties"]["names"]["anyOf"][0] == {
        "type": "array",
        "items": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    }


def test_of_a_class_that_takes_more_no_name_is_refused_early():
    described = {"$defs": {"mine.TakesMore": group_schema("mine.TakesMore", TakesMore)}}
    component = {"class_path": "mine.TakesMore", "init_args": {"other": 1}}
    with pytest.raises(DoubtError):
        list(wrong_arguments(["data"], component, described))
    described["$defs"]["mine.TakesMore"]["additionalProperties"] = False
    assert list(wrong_arguments(["data"], component, described)) == [(["data"], "other", ["pair", "names"])]
    assert list(wrong_arguments(["data"], {"class_path": "mine.Other", "init_args": {"other": 1}}, described)) == []


def early(words: list[str]) -> str:
    """Returns the message of the early refusal; empty if there is none."""
    try:
        refuse_wrong_key(words)
    except BadInputError as error:
        return error.message()
    return ""


def full(words: list[str]) -> str:
    with pytest.raises(BadInputError) as caught:
        parse_experiment(words)
    return caught.value.message()


WRONG_WORDS = [
    ["--model.method.visual_lenght", "3"],
    ["--model.method.qqq", "3"],
    ["--trainer.max_stepz", "3"],
    ["--model.optimizer.learning_rat", "1"],
    ["--model.optimiser.learning_rate", "1"],
    ["--model.schedule.nam", "linear"],
    ["--model.shortcuts.bogus", "true"],
    ["--data.batch_sise", "3"],
    ["--model.backbone.vision_confik", "x"],
    ["--benchmarks+=data_modules.vsr.VSR", "--benchmarks.rooot", "x"],
]


@pytest.mark.parametrize("words", WRONG_WORDS, ids=lambda words: words[0])
def test_a_wrong_word_is_refused_early_as_by_the_parser(words):
    words = ["--config", BASE, *words]
    assert early(words) == full(words) != ""


@pytest.mark.parametrize(
    "text",
    [
        f"model:\n  method:\n    class_path: {M2PT}\n    init_args:\n      visual_lenght: 3\n",
        "model:\n  optimiser:\n    learning_rate: 1\n",
        "trainer:\n  max_stepz: 3\n",
        f"benchmarks:\n  - class_path: {VSR}\n    init_args: {{root: x, template: plain, batch_size: 1, lmit: 3}}\n",
    ],
)
def test_a_wrong_key_of_a_file_is_refused_early_as_by_the_parser(tmp_path, text):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    words = ["--config", BASE, "--config", str(path)]
    message = early(words)
    assert message == full(words)
    assert f"{path}:" in message


def test_nothing_that_parses_is_refused(tmp_path):
    for path in FILES:
        assert early(["--config", str(path)]) == ""
        assert early(["--config", BASE, "--config", str(path)]) == ""
    assert early(small_words(tmp_path)) == ""
    assert early([*small_words(tmp_path), "--benchmarks+=data_modules.vsr.VSR", "--benchmarks.root", "x"]) == ""


@pytest.mark.parametrize(
    "words",
    [
        ["--model.method", "mine.Method", "--model.method.anything", "1"],
        ["--model.method", "Adapter", "--model.method.visual_lenght", "1"],
        ["--trainer.callbacks+=mine.Callback", "--trainer.callbacks.x", "1"],
        ["--benchmarks+=mine.Set", "--benchmarks.x", "1"],
        ["--trainer.max_stepz", "1", "--data.batch_sise", "1"],
        ["--trainer.max_stepz"],
        ["--config", "there_is_none.yaml", "--trainer.max_stepz", "1"],
        ["--bogus", "1", "--trainer.max_stepz", "1"],
        ["--trainer", "[1", "--trainer.max_stepz", "1"],
    ],
    ids=" ".join,
)
def test_in_doubt_the_parser_decides(words):
    assert early(["--config", BASE, *words]) == ""


def test_a_dotted_name_is_the_parsers_to_refuse(tmp_path):
    (tmp_path / "own.yaml").write_text("model: {optimizer.learning_rate: 0.5}")
    words = ["--config", BASE, "--config", str(tmp_path / "own.yaml")]
    assert early(words) == ""
    assert "has a dot in it" in full(words)


def test_lightnings_variables_leave_it_to_the_parser(monkeypatch):
    monkeypatch.setenv("PL_TRAINER_MAX_STEPS", "3")
    assert early(["--config", BASE, "--trainer.max_stepz", "1"]) == ""


def test_a_setting_of_several_sets_is_left_to_the_parser_if_one_of_them_is_unknown(tmp_path):
    sets = [{"class_path": VSR, "init_args": {}}, {"class_path": "mine.Set", "init_args": {}}]
    assert early(["--config", BASE, "--benchmarks", json.dumps(sets), "--benchmarks.own_key", "1"]) == ""


@pytest.mark.parametrize("damage", ["cut", "other hash", "other key", "empty", "list", "nan", "folder", "pipe"])
def test_a_damaged_record_is_ignored_and_written_anew(damage, schema, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_schema.cache_clear()
    keep_schema()
    assert stored_schema() == json.loads(json.dumps(schema))
    path = file_of(key_of_description())
    content = path.read_text()
    record = json.loads(content)
    del record["schema"]["$defs"]["trainer"]["properties"]["max_steps"]
    damaged = {
        "cut": content[:-100],
        "other hash": json.dumps(record),
        "other key": json.dumps({**json.loads(content), "key": "0" * 64}),
        "empty": "",
        "list": "[]",
        "nan": '{"key": NaN}',
    }
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(damaged[damage])
    assert stored_schema() is None
    assert early(["--config", BASE, "--trainer.max_steps", "1"]) == ""
    if damage != "folder":
        keep_schema.cache_clear()
        keep_schema()
        assert path.read_text() == content


def test_a_record_of_another_size_is_not_read(monkeypatch):
    size = file_of(key_of_description()).stat().st_size
    monkeypatch.setattr(stored_description, "MOST_BYTES", size)
    assert stored_schema() is not None
    monkeypatch.setattr(stored_description, "MOST_BYTES", size - 1)
    assert stored_schema() is None


def test_only_the_newest_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = file_of(key_of_description()).parent
    folder.mkdir(parents=True)
    for number in range(12):
        (folder / f"{number}.json").write_text("{}")
        os.utime(folder / f"{number}.json", (number, number))
    keep_schema.cache_clear()
    keep_schema()
    kept = {path.name for path in folder.glob("*.json")}
    assert kept == {file_of(key_of_description()).name, *(f"{number}.json" for number in range(5, 12))}


def test_without_a_place_to_keep_it_nothing_breaks(tmp_path, monkeypatch, schema):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    monkeypatch.setattr("experiments.configuration.description.experiment_schema", lambda: schema)
    keep_schema.cache_clear()
    keep_schema()
    assert stored_schema() is None
    assert early(["--config", BASE, "--trainer.max_stepz", "1"]) == ""
    assert list(words_of_experiments()) == ["--config", "--allow-import"]


def test_other_sources_or_packages_have_a_schema_of_their_own(monkeypatch, tmp_path):
    key = key_of_description()
    (tmp_path / "sources").mkdir()
    monkeypatch.setattr(stored_description, "SOURCES", (*stored_description.SOURCES, tmp_path / "sources"))
    assert key_of_description() == key
    (tmp_path / "sources" / "more.py").write_text("x = 1\n")
    with_more = key_of_description()
    assert with_more != key
    (tmp_path / "sources" / "more.py").write_text("x = 2\n")  # as long as before
    assert key_of_description() not in (key, with_more)
    monkeypatch.undo()
    monkeypatch.setattr(stored_description, "version_of", lambda name: "0")
    assert key_of_description() != key


def test_the_verb_writes_it(tmp_path, capsys, schema):
    assert main(["schema", "--output", str(tmp_path / "new" / "experiment.json")]) == 0
    written = json.loads((tmp_path / "new" / "experiment.json").read_text())
    assert written == json.loads(json.dumps(schema))
    capsys.readouterr()
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == written
    assert main(["schema", "--output", str(tmp_path)]) == 2


@pytest.mark.parametrize("verb", ["train", "check"])
def test_a_verb_refuses_before_its_module_is_imported(verb, capsys, monkeypatch):
    monkeypatch.setattr("lightning_m2pt.main.module_of", lambda *_: pytest.fail("imported"))
    assert main([verb, "--config", BASE, "--trainer.max_stepz", "3"]) == 2
    assert "did you mean max_steps?" in capsys.readouterr().err
