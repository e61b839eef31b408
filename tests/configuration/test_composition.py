"""Files, then words: what stands where in the end, and which of several items a word is meant for."""

from pathlib import Path

import pytest

from experiments.configuration.cli import parse_experiment
from experiments.configuration.composition import check_names, compose, read_words
from experiments.configuration.parts import PartReader
from lightning_m2pt.configuration.interpolation import interpolated
from lightning_m2pt.errors import BadInputError

BASE = ["--config", "experiments/m2pt_base.yaml"]
M2PT, LORA = "lightning_m2pt.methods.m2pt.M2PT", "lightning_m2pt.methods.lora.LoRA"
SETS = {"benchmarks": [{"class_path": "a.One", "init_args": {"limit": 1}}, {"class_path": "a.Two"}]}


def put_together(*words, files=()):
    """Composes trees and words; the class ``a.Two`` alone takes the argument ``question``."""
    settings = PartReader().of_words(read_words(words).settings)
    return compose(files, settings, accepts=lambda path, name: name != "question" or path == "a.Two")


def method(class_path, **arguments):
    return {"model": {"method": {"class_path": class_path, "init_args": arguments}}}


def test_words_win_over_every_file_wherever_they_stand(tmp_path):
    later = tmp_path / "later.yaml"
    later.write_text("save_every_n_steps: 7\noutput_root: later\n")
    experiment = parse_experiment([*BASE, "--save_every_n_steps", "9", "--config", str(later)])
    assert (experiment.save_every_n_steps, str(experiment.output_root)) == (9, "later")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("model: {optimizer.learning_rate: 0.5}", "model"),
        ("model: {method.init_args.visual_length: 3}", "model"),
        ("model: {backbone.init_args.vision_weights: x}", "model"),
        ("data: {init_args.batch_size: 3}", "data"),
        ("data: {init_args: {batch_size.x: 3}}", "data"),
        ("trainer: {callbacks: [{class_path: a.B, init_args.x: 3}]}", "trainer.callbacks.B"),
        ("trainer: {logger: {class_path: a.B, init_args: {of: {class_path: a.C, x.y: 3}}}}", "trainer.logger.of"),
    ],
)
def test_a_dotted_name_in_a_file_is_refused_and_wins_over_nothing(tmp_path, text, key):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(BadInputError, match="has a dot in it") as error:
        parse_experiment([*BASE, "--config", str(tmp_path / "own.yaml"), "--model.optimizer.learning_rate", "0.25"])
    assert error.value.where == f"{tmp_path}/own.yaml:1: {key}"


def test_dots_in_names_of_other_mappings_stay():
    check_names({"trainer": {"callbacks": [{"class_path": "a.B", "init_args": {"shares": {"a.b": 1}}}]}})


@pytest.mark.parametrize(
    ("later", "merged"),
    [
        (method(M2PT, dropout=0.5), {"visual_length": 2, "dropout": 0.5}),
        (method("M2PT", dropout=0.5), {"visual_length": 2, "dropout": 0.5}),
        ({"model": {"method": {"init_args": {"dropout": 0.5}}}}, {"visual_length": 2, "dropout": 0.5}),
        ({"model": {"method": M2PT}}, {"visual_length": 2, "dropout": 0.1}),
        (method(LORA, rank=4), {"rank": 4}),
    ],
    ids=["same class", "its short name", "arguments alone", "the class alone", "another class"],
)
def test_arguments_stay_while_the_class_does(later, merged):
    tree = put_together(files=[method(M2PT, visual_length=2, dropout=0.1), later])
    component = tree["model"]["method"]
    assert component["init_args"] == merged
    assert component["class_path"] == (LORA if "rank" in merged else M2PT)


def test_of_a_short_and_a_whole_name_the_whole_one_stays_and_equal_ends_are_not_one_class():
    tree = put_together(files=[method("M2PT", visual_length=2), method(M2PT, dropout=0.5), method("M2PT")])
    assert tree == method(M2PT, visual_length=2, dropout=0.5)
    assert put_together(files=[method(M2PT, visual_length=2), method("mine.M2PT")]) == method("mine.M2PT")


def test_another_class_in_words_starts_from_its_defaults_and_keeps_what_words_set():
    words = ["--model.method.rank", "4", "--model.method", LORA]  # in either order
    for each in (words, words[2:] + words[:2], ["--model.method.class_path", LORA, *words[:2]]):
        tree = put_together(*each, files=[method(M2PT, dropout=0.1)])
        assert tree["model"]["method"] == {"class_path": LORA, "init_args": {"rank": "4"}}


def test_mappings_of_values_and_lists_are_replaced_not_mixed():
    rates = [{"model": {"optimizer": {"learning_rate": {part: 1.0}, "betas": [1, 2]}}} for part in ("a", "b")]
    rates[1]["model"]["optimizer"]["betas"] = [3]
    optimizer = put_together(files=rates)["model"]["optimizer"]
    assert optimizer == {"learning_rate": {"b": 1.0}, "betas": [3]}


def test_a_key_of_evaluation_sets_changes_all_that_have_it():
    tree = put_together("--benchmarks.limit", "5", "--benchmarks.question", "Why?", files=[SETS])
    assert [item["init_args"] for item in tree["benchmarks"]] == [{"limit": "5"}, {"limit": "5", "question": "Why?"}]
    experiment = parse_experiment([*BASE, "--benchmarks.batch_size", "3"])
    assert {benchmark.batch_size for benchmark in experiment.benchmarks} == {3}
    assert {config["init_args"]["batch_size"] for config in experiment.config["benchmarks"]} == {3}


def test_a_key_behind_an_added_item_belongs_to_it():
    words = ["--benchmarks+=a.Three", "--benchmarks.root", "r", "--benchmarks.limit=9"]
    tree = put_together(*words, files=[SETS])
    assert tree["benchmarks"][:2] == SETS["benchmarks"]
    assert tree["benchmarks"][2] == {"class_path": "a.Three", "init_args": {"root": "r", "limit": "9"}}


@pytest.mark.parametrize("key", ["callbacks", "plugins"])
def test_one_component_is_a_list_of_one(key):
    for words in ([f"--trainer.{key}", "a.B"], [f"--trainer.{key}+", "a.B"], [f"--trainer.{key}", "{class_path: a.B}"]):
        assert put_together(*words)["trainer"][key] == [{"class_path": "a.B"}]
    of_file = put_together(files=[{"trainer": {key: {"class_path": "a.B"}}}])
    assert of_file["trainer"][key] == [{"class_path": "a.B"}]
    both = put_together(f"--trainer.{key}+=a.C", f"--trainer.{key}.x", "1", files=[of_file])
    assert both["trainer"][key] == [{"class_path": "a.B"}, {"class_path": "a.C", "init_args": {"x": "1"}}]


def test_one_callback_by_its_name_reaches_the_trainer():
    words = ["--trainer.callbacks", "LearningRateMonitor", "--trainer.callbacks.logging_interval", "step"]
    environment = "lightning.pytorch.plugins.environments.LightningEnvironment"
    settings = parse_experiment([*BASE, *words, "--trainer.plugins", environment]).trainer_config
    assert [type(item).__name__ for item in settings["callbacks"]] == ["LearningRateMonitor"]
    assert [type(item).__name__ for item in settings["plugins"]] == ["LightningEnvironment"]


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["--benchmarks.root", "r"], [SETS]),
        (["--trainer.callbacks.x", "1"], [{"trainer": {"callbacks": ["a.B", "a.C"]}}]),
        (["--trainer.callbacks", "[a.B, a.C]", "--trainer.callbacks.x", "1"], []),
        (["--trainer.callbacks.x", "1"], []),
        (["--trainer.strategy.x", "1"], [{"trainer": {"strategy": "ddp"}}]),
        (["--trainer.devices.x", "1"], [{"trainer": {"devices": [0, 1]}}]),
        (["--trainer", "file.yaml"], []),
        (["--model", "null"], []),
        (["--data.x"], []),
        (["--data.x", "--data.y", "1"], []),
        (["stray"], []),
        (["--data..x", "1"], []),
        (["-x", "1"], []),
    ],
    ids=str,
)
def test_what_is_unclear_is_refused(words, files):
    with pytest.raises(BadInputError) as error:
        put_together(*words, files=files)
    assert error.value.expected


def test_null_is_nothing_and_any_other_word_stays_text():
    tree = put_together(
        "--trainer.a", "null", "--trainer.b=null", "--trainer.c", "Null", "--trainer.d=", "--trainer.e=3"
    )
    assert tree == {"trainer": {"a": None, "b": None, "c": "Null", "d": "", "e": "3"}}


def test_interpolation_takes_the_value_that_holds_in_the_end(tmp_path):
    file = tmp_path / "more.yaml"
    file.write_text("seed_everything: 3\ndata:\n  init_args:\n    order_seed: ${seed_everything}\n")
    for words, seed in (([], 3), (["--seed_everything", "5"], 5)):
        experiment = parse_experiment([*BASE, "--config", str(file), *words])
        assert (experiment.seed, experiment.config["data"]["init_args"]["order_seed"]) == (seed, seed)


def test_interpolation_in_lists_texts_chains_and_the_environment(monkeypatch):
    tree = {
        "data": {"class_path": "a.B", "init_args": {"root": "${oc.env:M2PT_DATA, data}/x", "size": 3}},
        "benchmarks": [
            {"class_path": "a.One", "init_args": {"root": "${data.init_args.root}/1", "size": "${data.init_args.size}"}}
        ],
        "output_root": "${benchmarks[0].init_args.root}-${data.init_args.size}",
        "trainer": {"limits": ["${data.init_args.size}"]},
    }
    monkeypatch.setenv("M2PT_DATA", "d")
    found = interpolated(tree)
    assert found["benchmarks"][0]["init_args"] == {"root": "d/x/1", "size": 3}
    assert (found["output_root"], found["trainer"]) == ("d/x/1-3", {"limits": [3]})
    monkeypatch.delenv("M2PT_DATA")
    assert interpolated(tree)["data"]["init_args"]["root"] == "data/x"


@pytest.mark.parametrize(
    "text",
    [
        *("${oc.env:HF_TOKEN}", "a${oc.env:HF_TOKEN,x}", "${oc.env: HF_TOKEN }", "${oc.env:M2PT_DATA_2,x}"),
        *("${oc.env:${x}}", "${oc.decode:1}", "${oc.create:{}}", "${oc.dict.keys:data}", "${x:1}", "${${y}}"),
        *(
            "${a}",
            "${b}",
            "${nope}",
            r"\${b}",
            "${a",
            "${}",
            "${.a}",
            "x${list}",
            "x${none}",
            "x${flag}",
            "${list.7}",
            "${oc.env:M2PT_DATA}",
        ),
    ],
)
def test_no_other_interpolation_is_resolved(text, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("M2PT_DATA", raising=False)
    tree = {"a": text, "b": "${a}", "list": [1], "none": None, "flag": True, "x": "HF_TOKEN", "y": "x"}
    with pytest.raises(BadInputError) as error:
        interpolated(tree)
    assert "hf_secret" not in error.value.message()


def test_what_cannot_be_resolved_is_named_by_the_classes_of_lists():
    tree = {"benchmarks": [{"class_path": "a.One"}, {"class_path": "a.Two", "init_args": {"sizes": [1, "${nope}"]}}]}
    with pytest.raises(BadInputError) as error:
        interpolated(tree)
    assert error.value.where == "benchmarks.Two.sizes.1"


def test_the_mark_itself_is_said_to_have_no_place():
    with pytest.raises(BadInputError, match=r"a: the text \$\{ cannot stand in a setting"):
        interpolated({"a": r"\${b}", "b": "c"})


@pytest.mark.parametrize("as_text", [True, False])
def test_a_key_that_a_new_class_lacks_is_missing_where_that_class_is_named(tmp_path: Path, as_text: bool) -> None:
    other, own = tmp_path / "other.yaml", "data_modules.conversations.Conversations"
    other.write_text(f"seed_everything: 3\ndata:\n  class_path: {own}\n  init_args: {{file: a.json, batch_size: 4}}\n")
    if as_text:
        words = ["--data", own, "--data.file", "a.json", "--data.batch_size", "4"]
        place = "command line: data.template"
    else:
        words, place = ["--config", str(other)], f"{other}:4: data.template"
    with pytest.raises(BadInputError, match="this key is missing") as caught:
        parse_experiment([*BASE, *words])
    assert caught.value.where == place
    other.write_text("data:\n  class_path: VisionFlan\n  init_args: {batch_size: x}\n")
    with pytest.raises(BadInputError) as caught:
        parse_experiment([*BASE, "--config", str(other), "--data", "data_modules.vision_flan.VisionFlan"])
    assert caught.value.where == f"{other}:3: data.batch_size"
