"""Where a path stands: beside the file that names it, in the working directory, or at a place that goes by a name."""

import json
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from data_modules.mme import MME
from data_modules.vision_flan_held_out import VisionFlanHeldOut
from experiments.commands.evaluate import evaluation_folder, recorded_config
from experiments.configuration.cli import parse_experiment
from experiments.configuration.parts import files_of
from experiments.configuration.path_settings import paths_beside_files, paths_in_names, portable_paths
from experiments.runs.loading import experiment_of_run
from experiments.runs.opening import open_run_folder
from experiments.runs.prepare import TESTBED_ROOT
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.configuration.interpolation import interpolated
from lightning_m2pt.configuration.paths import (
    EMBEDDED,
    FileText,
    absolute,
    beside_its_file,
    embedded_names,
    path_arguments,
    portable,
    readable,
    without_dots,
)
from lightning_m2pt.configuration.recorded import recorded_configuration, recorded_tree
from lightning_m2pt.errors import BadInputError
from tests.support.small_experiment import small_words

ROOT = Path(__file__).parents[2]
VSR = ["--benchmarks.template", "plain", "--benchmarks.max_new_tokens", "1", "--benchmarks.batch_size", "1"]
SHIPPED = str(ROOT / "experiments" / "m2pt_base.yaml")


class PassesOn(MME):
    """A set of a user's own that passes arguments on."""

    def __init__(self, more: "Path | None" = None, words: str = "", **arguments):
        super().__init__(**arguments)


class Alone(MME):
    """One that does not."""

    def __init__(self, folders: list[Path], root: str = ""):
        super().__init__(root, "plain", 1, 1)


@pytest.mark.parametrize(
    ("owner", "named"),
    [
        (Trainer, {"default_root_dir"}),
        (ModelCheckpoint, {"dirpath"}),
        (TensorBoardLogger, {"save_dir", "root_dir"}),
        (WandbLogger, {"save_dir", "dir"}),
        (MME, {"root"}),
        (VisionFlanHeldOut, {"root"}),
        (PassesOn, {"root", "more"}),
        (Alone, {"folders"}),
        (
            OpenClipLlama,
            {"vision_config", "vision_weights", "language_config", "language_model", "projector_weights"}
            | {"feature_cache"},
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signatures_say_which_arguments_are_paths(owner, named):
    assert path_arguments(owner) == named


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data/x", "/files/data/x"),
        ("../data/./x", "/data/x"),
        ("/a/../b", "/b"),
        ("${oc.env:M2PT_DATA,../data}/x", "/data/x"),
        ("${oc.env: M2PT_DATA , ../d (a), b}/x", "${oc.env: M2PT_DATA , ../d (a), b}/x"),
        ("${oc.env:M2PT_MODELS,../m}/x", "${oc.env:M2PT_MODELS,../m}/x"),
        ("${embedded:testbed}/x", "${embedded:testbed}/x"),
        ("${data.init_args.root}/x", "${data.init_args.root}/x"),
    ],
)
def test_a_path_of_a_file_stands_beside_it(monkeypatch, text, expected):
    monkeypatch.delenv("M2PT_DATA", raising=False)
    monkeypatch.setenv("M2PT_MODELS", "/weights")
    assert beside_its_file(FileText(text, Path("/files"))) == expected
    assert beside_its_file(text) == text  # of the command line


def test_two_dots_behind_a_link_lead_where_the_system_leads(tmp_path, monkeypatch):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "real" / "sets").mkdir()
    (tmp_path / "sets").mkdir()  # where the link lies: another folder of the same name
    assert absolute("../sets", tmp_path / "link") == str(tmp_path / "real" / "sets")
    assert absolute("link/../sets/.", tmp_path) == str(tmp_path / "real" / "sets")
    assert absolute("link/x/../y", tmp_path) == str(tmp_path / "link" / "y")
    assert absolute("/../../a/./..//b/") == "/b"
    (tmp_path / "real" / "own.yaml").write_text("include: part.yaml\n")
    (tmp_path / "real" / "part.yaml").write_text("output_root: here\n")
    monkeypatch.chdir(tmp_path)
    for text, expected in (("../x", "../x"), ("../../x/../y", "../../y"), ("a/../../x", "../x"), ("a/..", ".")):
        assert without_dots(Path(text)) == Path(expected)
    assert [path.resolve() for path in files_of(Path("link/../own.yaml"))] == [
        tmp_path / "real" / "own.yaml",
        tmp_path / "real" / "part.yaml",
    ]


def written(folder: Path, **arguments: object) -> list[str]:
    """Returns words that put a file of data arguments over the shipped experiment."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.yaml").write_text(json.dumps({"data": {"init_args": arguments}}))
    return ["--config", SHIPPED, "--config", str(folder / "own.yaml")]


def test_files_and_words_name_paths_each_from_where_it_stands(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    of_file = parse_experiment(written(tmp_path / "files", root="../sets"))
    assert of_file.data.root == tmp_path / "sets"
    of_words = parse_experiment(["--config", SHIPPED, "--data.root", "sets", "--model.backbone.feature_cache=c"])
    assert of_words.data.root == tmp_path / "here" / "sets"
    assert of_words.benchmarks[0].root == TESTBED_ROOT / "mme" == ROOT / "data" / "testbed" / "mme"
    assert of_words.output_root == Path("outputs")
    arguments = of_words.config["model"]["backbone"]["init_args"]
    assert arguments["feature_cache"] == str(tmp_path / "here" / "c")


def test_a_variable_stands_in_the_working_directory_and_its_default_beside_the_file(tmp_path, monkeypatch):
    words = written(tmp_path / "files, (with) ümlaut", root="${oc.env:M2PT_DATA,../data}/x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("M2PT_DATA", raising=False)
    assert parse_experiment(words).data.root == tmp_path / "data" / "x"
    monkeypatch.setenv("M2PT_DATA", "sets")
    assert parse_experiment(words).data.root == tmp_path / "sets" / "x"


def test_a_path_goes_on_from_another_setting_wherever_that_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = written(tmp_path / "files", root="sets")
    cache = {"feature_cache": "${data.init_args.root}/cache"}
    (tmp_path / "more.yaml").write_text(json.dumps({"model": {"backbone": {"init_args": cache}}}))
    arguments = parse_experiment([*words, "--config", "more.yaml"]).config["model"]["backbone"]["init_args"]
    assert arguments["feature_cache"] == str(tmp_path / "files" / "sets" / "cache")


def test_short_names_and_lightnings_classes_have_paths_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "own.yaml").write_text(
        "trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: logs, prefix: a/b}}}\n"
    )
    config = parse_experiment(["--config", SHIPPED, "--config", "files/own.yaml"]).config
    assert config["trainer"]["logger"]["init_args"]["save_dir"] == str(tmp_path / "files" / "logs")
    assert config["trainer"]["logger"]["init_args"]["prefix"] == "a/b"


def test_every_path_of_a_list_and_a_groups_own_stand_beside_their_file():
    a, b = (FileText(name, Path("/files")) for name in ("a", "../b"))
    tree = {"trainer": {"default_root_dir": a}, "data": {"class_path": f"{__name__}.Alone", "init_args": {"root": a}}}
    tree["data"]["init_args"]["folders"] = [a, b]
    found = paths_beside_files(tree, ("tests",))
    assert found["trainer"] == {"default_root_dir": "/files/a"}
    assert found["data"]["init_args"] == {"folders": ["/files/a", "/b"], "root": "a"}  # its root is just a text


def test_an_empty_path_is_no_folder(tmp_path):
    for text in ("", " "):
        for words in (written(tmp_path, root=text), ["--config", SHIPPED, "--data.root", text]):
            with pytest.raises(BadInputError, match=r"data\.root: an empty text"):
                parse_experiment(words)


def test_a_path_that_only_the_working_directory_has_is_refused_with_the_way_there(tmp_path, monkeypatch):
    (tmp_path / "sets").mkdir()
    monkeypatch.chdir(tmp_path)
    words = written(tmp_path / "files", root="sets")
    with pytest.raises(BadInputError) as error:
        parse_experiment(words)
    assert error.value.message().splitlines() == [
        f"error: {tmp_path}/files/own.yaml:1: data.root: there is no {tmp_path}/files/sets",
        "  expected: a path as seen from the file that names it",
        "  hint: it is there as seen from the working directory: write ../sets",
    ]


@pytest.mark.parametrize("text", ["${embedded:nothing}", "${embedded:..}", "${embedded:}", "${embedded:testbed,x}"])
def test_nothing_but_what_comes_with_the_package_is_embedded(text):
    with pytest.raises(BadInputError, match="embedded"):
        interpolated({"a": text})


def test_embedded_weights_go_by_their_name_anywhere(tmp_path, monkeypatch):
    assert interpolated({"a": "${embedded: testbed}/language"}) == {"a": str(EMBEDDED / "testbed" / "language")}
    assert portable(str(EMBEDDED / "testbed" / "language")) == "${embedded:testbed}/language"
    assert portable(str(EMBEDDED / "nothing" / "x")) == str(EMBEDDED / "nothing" / "x")
    assert readable(str(EMBEDDED / "testbed" / "language")) == "lightning_m2pt/embedded/testbed/language"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("sets", "${{oc.env:M2PT_DATA,{0}/sets}}/mme/a"), ("ümlaut", "{0}/ümlaut/mme/a"), ("a{b", "{0}/a{{b/mme/a")],
)
def test_what_lies_below_a_variable_goes_by_the_variable(tmp_path, monkeypatch, folder, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M2PT_DATA", folder)
    path = str(tmp_path / folder / "mme" / "a")
    kept = portable(path)
    assert kept == expected.format(tmp_path)
    assert interpolated({"a": kept}) == {"a": absolute(path)} if "${" not in kept else True
    monkeypatch.delenv("M2PT_DATA")
    assert interpolated({"a": kept}) == {"a": path}
    assert portable(path) == path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Returns a run's folder with its record, made with data below M2PT_DATA."""
    monkeypatch.setenv("M2PT_DATA", str(tmp_path / "a"))
    words = small_words(tmp_path / "a", SHIPPED)
    experiment = parse_experiment(words)
    folder = tmp_path / "outputs" / "small" / "run"
    open_run_folder(folder, experiment)
    return folder


def test_a_run_keeps_names_of_places_and_is_read_where_they_are_now(run, tmp_path, monkeypatch):
    kept = json.loads((run / "config.yaml").read_text())
    assert kept["data"]["init_args"]["root"] == f"${{oc.env:M2PT_DATA,{tmp_path}/a}}/vision_flan"
    assert kept["model"]["backbone"]["init_args"]["language_model"] == "${embedded:testbed}/language"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M2PT_DATA", "b")
    again = experiment_of_run(run)
    assert again.data.root == tmp_path / "b" / "vision_flan"
    assert again.config["model"]["backbone"]["init_args"]["language_model"] == str(EMBEDDED / "testbed" / "language")
    assert evaluation_folder(run, again, frozenset(), "greedy", 0) == run
    monkeypatch.delenv("M2PT_DATA")
    assert experiment_of_run(run).data.root == tmp_path / "a" / "vision_flan"


def test_runs_of_before_are_read_from_the_working_directory(run, tmp_path, monkeypatch):
    path = run / "config.yaml"
    former = json.loads(path.read_text())
    former["data"]["init_args"]["root"] = "data/vision_flan"
    arguments = former["model"]["backbone"]["init_args"]
    arguments |= {
        "language_model": "experiments/backbones/testbed/language",
        "vision_config": "lightning_m2pt/embedded/testbed/vision/open_clip_config.json",
        "projector_weights": "experiments/backbones/others/projector",
    }
    path.write_text(json.dumps(former))
    monkeypatch.chdir(tmp_path)
    recorded = recorded_config(run, ())
    assert recorded["data"]["init_args"]["root"] == str(tmp_path / "data" / "vision_flan")
    found = recorded["model"]["backbone"]["init_args"]
    assert found["language_model"] == str(EMBEDDED / "testbed" / "language")
    assert found["vision_config"] == str(EMBEDDED / "testbed" / "vision" / "open_clip_config.json")
    assert found["projector_weights"] == str(tmp_path / "experiments/backbones/others/projector")
    assert recorded_configuration(path)["data"]["init_args"]["root"] == "data/vision_flan"


def test_former_names_are_found_in_lists_too(tmp_path):
    former = ["experiments/backbones/testbed/a", "experiments/backbones/other/a", 3]
    (tmp_path / "config.yaml").write_text(json.dumps({"model": {"x": [former]}, "data": {"x": former[0]}}))
    assert recorded_tree(tmp_path / "config.yaml") == {
        "model": {"x": [[str(EMBEDDED / "testbed" / "a"), *former[1:]]]},
        "data": {"x": former[0]},
    }


def test_a_runs_configuration_asks_for_nothing_else(run, monkeypatch):
    path = run / "config.yaml"
    text = path.read_text().replace('"normal"', '"${oc.env:HF_TOKEN}"')
    path.write_text(text)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(BadInputError, match="HF_TOKEN") as error:
        recorded_configuration(path)
    assert "hf_secret" not in error.value.message()
    assert "${oc.env:HF_TOKEN}" in str(recorded_tree(path))


def test_a_configuration_that_was_kept_is_the_one_that_was_resolved(run):
    experiment = experiment_of_run(run)
    assert portable_paths(experiment.config, ()) == json.loads((run / "config.yaml").read_text())


def test_other_evaluations_have_the_names_they_had_in_whatever_checkout(run, tmp_path, monkeypatch):
    former = experiment_of_run(run)
    names = set()
    for checkout in ("one", "two"):
        (tmp_path / checkout).mkdir()
        monkeypatch.chdir(tmp_path / checkout)
        experiment = experiment_of_run(run, ["--data.root", "x"])
        words = [
            "--benchmarks",
            json.dumps([{"class_path": "data_modules.vsr.VSR", "init_args": {"root": "sets/vsr"}}]),
        ]
        experiment.config["benchmarks"] = parse_experiment(["--config", SHIPPED, *words, *VSR]).config["benchmarks"]
        monkeypatch.setattr("experiments.configuration.path_settings.CHECKOUT", tmp_path / checkout)
        for directory in (tmp_path / checkout, tmp_path, run):  # the working directory has no say
            monkeypatch.chdir(directory)
            names.add(evaluation_folder(run, experiment, frozenset({"interaction"}), "greedy", 0).name)
    assert len(names) == 1
    model = {name: former.config["model"][name] for name in ("method", "backbone")}
    assert paths_in_names({"model": model}, ())["model"]["backbone"]["init_args"]["language_model"] == (
        "experiments/backbones/testbed/language"
    )


@pytest.mark.parametrize(
    ("written", "problem"), [("???", "still to be filled in"), ('"a\\0b"', "NUL"), ('" "', "empty")]
)
def test_what_is_no_path_is_refused_as_what_it_is(tmp_path, written, problem):
    (tmp_path / "own.yaml").write_text(f"data:\n  init_args:\n    root: {written}\n")
    with pytest.raises(BadInputError, match=problem) as error:
        parse_experiment(["--config", SHIPPED, "--config", str(tmp_path / "own.yaml")])
    assert "own.yaml:3: data.root" in error.value.message()


@pytest.mark.parametrize("name", embedded_names())
@pytest.mark.parametrize("former", ["experiments/backbones", "lightning_m2pt/embedded"])
def test_former_names_of_embedded_weights_mean_the_same_weights(tmp_path, name, former):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"model: {{backbone: {{init_args: {{a: {former}/{name}/language, b: {former}/other/x, c: {name}}}}}}}\n"
    )
    assert recorded_configuration(path)["model"]["backbone"]["init_args"] == {
        "a": str(EMBEDDED / name / "language"),
        "b": f"{former}/other/x",
        "c": name,
    }


def test_a_template_s_file_stands_beside_the_file_that_names_it_and_a_name_nowhere(tmp_path, monkeypatch):
    """A name is no path, whatever lies about."""
    (tmp_path / "forms").mkdir()
    (tmp_path / "forms" / "own.yaml").write_text('before_answer: " A:"\n')
    (tmp_path / "plain").write_text("")
    sets = [{"class_path": "data_modules.mme.MME", "init_args": {"root": ".", "template": "own.yaml"}}]
    (tmp_path / "forms" / "sets.yaml").write_text(json.dumps({"benchmarks": sets}))
    monkeypatch.chdir(tmp_path)
    files = ["--config", SHIPPED, "--config", str(tmp_path / "forms" / "sets.yaml")]
    experiment = parse_experiment([*files, "--data.template", "forms/own.yaml"])
    assert [each["init_args"]["template"] for each in experiment.config["benchmarks"]] == [
        str(tmp_path / "forms" / "own.yaml")
    ]
    assert experiment.config["data"]["init_args"]["template"] == str(tmp_path / "forms" / "own.yaml")
    assert experiment.data.template.name == experiment.benchmarks[0].template.name == "own.yaml"
    named = parse_experiment(["--config", SHIPPED, "--data.template", "plain", "--benchmarks", "[]"])
    assert named.config["data"]["init_args"]["template"] == "plain"
    with pytest.raises(BadInputError, match=r"unknown conversation template 'plane'"):
        parse_experiment(["--config", SHIPPED, "--data.template", "plane"])
