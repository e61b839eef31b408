"""What a file or a word may say of a setting: the value it seems to say, or three lines that name it."""

import json
import os

import pytest

from experiments.configuration.cli import parse_experiment
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main

BASE = ["--config", "experiments/m2pt_base.yaml"]
LENGTH, RATE = "model.method.visual_length", "model.optimizer.weight_decay"
CLIP, STEPS, SEED = "trainer.gradient_clip_val", "trainer.max_steps", "seed_everything"

NO_WHOLE_NUMBER = "??? ten true 2.5 .nan .inf -.inf nan 1e999 1_0 1:30 0x10 010 [] {}".split()  # noqa: SIM905
NO_NUMBER = "??? x true false .nan .NaN nan NaN .inf 1e999 -1e999 inf 1:30.5 [1]".split()  # noqa: SIM905
ENORMOUS = ("9" * 19, "-" + "9" * 30, "9" * 5000)
WRONG = [
    *((LENGTH, value) for value in [*NO_WHOLE_NUMBER, *ENORMOUS, "null"]),
    *((RATE, value) for value in [*NO_NUMBER, *ENORMOUS, "null"]),
    *((SEED, value) for value in ("false", "true", "null", "-1", "1099511627776", "0.5", ".nan", "", ENORMOUS[2])),
    *((STEPS, value) for value in ("true", "2.5", ".inf", "null", "1_0", ENORMOUS[0])),
    *((CLIP, value) for value in ("true", ".nan", ".inf", "x")),
    *(("save_every_n_steps", value) for value in ("0", "true", "null", "1.5")),
    *(("validate_every_n_steps", value) for value in ("-1", "true", "null", "1.5")),
    *(("output_root", value) for value in ("", "null", "???")),
    *(("data.root", value) for value in ("", "null", "???")),
    *(("model.backbone.vision_config", value) for value in ("", "null")),
    *((key, "null") for key in ("data.batch_size", "data.template", "model.schedule.name", "model.method.interaction")),
    *((key, "null") for key in ("model", "trainer", "data", "benchmarks", "model.backbone", "model.method")),
    *((key, "5") for key in ("model", "trainer", "data", "benchmarks", "model.method", "model.optimizer")),
    *(("model.schedule.name", value) for value in ("cos", "true")),
    *(("model.method.interaction", value) for value in ("1", "yes")),
    *(("trainer.callbacks", value) for value in ("[null]", "5")),
    *(("benchmarks", value) for value in ("[5]", "[{}]")),
]


def short(value):
    return str(value)[:24]


def at(key, value):
    """Returns a file's lines that set a dotted key; arguments of components stand in ``init_args``."""
    *groups, last = key.split(".")
    lines = []
    for group in groups:
        lines.append("  " * len(lines) + f"{group}:")
        if group in ("method", "data", "backbone"):
            lines.append("  " * len(lines) + "init_args:")
    return "\n".join([*lines, "  " * len(lines) + f"{last}: {value}"]) + "\n"


def refused(tmp_path, key, value, in_file):
    """Asserts that a value is refused with its place, in a file or on the command line."""
    file = tmp_path / "wrong.yaml"
    file.write_text(at(key, value if value else '""'))
    line = len(at(key, value).splitlines())
    words = ["--config", str(file)] if in_file else [f"--{key}={value}"]
    with pytest.raises(BadInputError) as error:
        parse_experiment([*BASE, *words])
    message = error.value.message()
    assert message.startswith(f"error: {file}:{line}: {key}: " if in_file else f"error: command line: {key}: "), message
    assert "expected: " in message
    assert len(message.splitlines()) <= 3
    assert len(message) < 600


# Every second value quickly, in a file and on the command line in turn; all of them in both places takes half a minute.
@pytest.mark.parametrize(
    ("place", "key", "value"), [(place, *case) for place, case in enumerate(WRONG[::2])], ids=short
)
def test_every_second_wrong_value(tmp_path, place, key, value):
    refused(tmp_path, key, value, in_file=place % 2 == 0)


@pytest.mark.slow
@pytest.mark.parametrize("in_file", [True, False])
@pytest.mark.parametrize(("key", "value"), WRONG, ids=short)
def test_wrong_values(tmp_path, key, value, in_file):
    refused(tmp_path, key, value, in_file=in_file)


RIGHT = [
    {LENGTH: ("7", 7), RATE: ("1e-3", 0.001), SEED: ("0", 0), "model.method.init_std": ("1e-3", 0.001)},
    {
        LENGTH: ("'7'", 7),
        RATE: (".5", 0.5),
        SEED: ("4294967295", 2**32 - 1),
        "data.image_folder": ("2024_01", "2024_01"),
    },
    {
        LENGTH: ("+7", 7),
        RATE: ("0", 0.0),
        "data.validation_file": ("null", None),
        "data.image_folder": ("'007'", "007"),
    },
    {
        RATE: ("1.", 1.0),
        "trainer.max_time": ("'00:01:30:00'", "00:01:30:00"),
        "model.method.interaction": ("false", False),
    },
]


@pytest.mark.parametrize("settings", RIGHT, ids=str)
def test_right_values(tmp_path, settings):
    files = []
    for number, (key, (text, _)) in enumerate(settings.items()):
        files += ["--config", str(tmp_path / f"{number}.yaml")]
        (tmp_path / f"{number}.yaml").write_text(at(key, text))
    for words in (files, [f"--{key}={text.strip(chr(39))}" for key, (text, _) in settings.items()]):
        config = parse_experiment([*BASE, *words]).config
        for key, (_, read) in settings.items():
            found = config
            for part in key.split("."):
                found = found[part] if part in found else found["init_args"][part]
            assert found == read
            assert type(found) is type(read)


LOGGER = "  logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: x, nothing: 1}}"


@pytest.mark.parametrize(
    ("files", "words", "place", "expected"),
    [
        # A later file has other keys of the group; the earlier one has the key itself.
        (
            [f"trainer:\n  max_epochs: 3\n{LOGGER}\n", "trainer:\n  max_steps: 3\n"],
            [],
            "0.yaml:3: trainer.logger.nothing",
            "save_dir",
        ),
        # A word gives a component or a list as a whole.
        ([], ["--trainer.logger", LOGGER.partition(":")[2]], "command line: trainer.logger.nothing", "save_dir"),
        ([], ["--benchmarks", "[data_modules.mme.MME]"], "command line: benchmarks.MME.root", "a value"),
        ([], ["--benchmarks.limit", "x"], "command line: benchmarks.limit: 'x' does not fit", "int"),
        ([], ["--data.order_seed", "x"], "command line: data.order_seed: 'x' does not fit", "int"),
        ([], ["--trainer.max_epochs", "x"], "command line: trainer.max_epochs: 'x' does not fit", "int"),
        ([], ["--trainer.limit_val_batches=x"], "command line: trainer.limit_val_batches: 'x' does", "float or int"),
    ],
    ids=["file", "component", "list", "all sets", "component's", "whole number or none", "number or none"],
)
def test_an_error_names_the_place_that_decided(tmp_path, files, words, place, expected):
    paths = [tmp_path / f"{number}.yaml" for number in range(len(files))]
    for path, text in zip(paths, files, strict=True):
        path.write_text(text)
    with pytest.raises(BadInputError) as error:
        parse_experiment([*BASE, *(word for path in paths for word in ("--config", str(path))), *words])
    assert place in error.value.message()
    assert expected in error.value.expected


def test_what_a_run_has_recorded_is_read_again(tmp_path):
    """``config.yaml`` holds all defaults, those of other packages' classes too: texts that are empty, and mappings."""
    package, hours = "lightning.pytorch", {"hours": 1}
    loggers = [
        {"class_path": f"{package}.loggers.CSVLogger", "init_args": {"save_dir": "x", "name": ""}},
        {"class_path": f"{package}.loggers.TensorBoardLogger", "init_args": {"save_dir": "x"}},
    ]
    callbacks = [
        {"class_path": f"{package}.callbacks.RichProgressBar"},
        {"class_path": f"{package}.callbacks.Timer", "init_args": {"duration": hours}},
    ]
    settings = {"max_time": hours, "logger": loggers, "callbacks": callbacks}
    words = [f"--trainer.{key}={json.dumps(value)}" for key, value in settings.items()]
    config = parse_experiment([*BASE, *words]).config
    assert config["trainer"]["max_time"] == config["trainer"]["callbacks"][1]["init_args"]["duration"] == hours
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    assert parse_experiment(["--config", str(tmp_path / "config.yaml")], was_run=True).config == config


@pytest.mark.parametrize("verb", ["fit", "train", "check", "params", "evaluate", "validate"])
def test_every_verb_refuses_with_exit_code_2_and_writes_nothing(capsys, tmp_path, verb):
    root = ["--output_root", str(tmp_path / "out")]
    for words in ([f"--{LENGTH}", "???"], [f"--{CLIP}", ".nan"], ["--seed_everything", "false"], ["--nope", "1"]):
        assert main([verb, *BASE, *root, *words]) == ExitCode.BAD_INPUT
        lines = capsys.readouterr().err.splitlines()
        assert 2 <= len(lines) <= 3
        assert lines[0].startswith(f"error: command line: {words[0][2:]}: ")
    assert not (tmp_path / "out").exists()


def test_the_environment_sets_nothing_unseen(monkeypatch):
    before = parse_experiment(BASE).config
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    monkeypatch.setenv("PL_SAVE_EVERY_N_STEPS", "5")
    monkeypatch.setenv("PL_TRAINER__MIN_STEPS", "5")
    assert parse_experiment(BASE).config == before
    for name in ("PL_TRAINER_PRECISION", "PL_TRAINER_LIMIT_PREDICT_BATCHES"):
        monkeypatch.setenv(name, "1")
        with pytest.raises(BadInputError, match=name):
            parse_experiment(BASE)
        monkeypatch.delenv(name)


def test_a_secret_of_the_environment_is_never_shown(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(os.environ, "HF_TOKEN", "hf_secret")
    file = tmp_path / "asks.yaml"
    file.write_text("output_root: ${oc.env:HF_TOKEN}\n")
    for words in (["--config", str(file)], ["--output_root", "${oc.env:HF_TOKEN}"]):
        assert main(["params", *BASE, *words]) == ExitCode.BAD_INPUT
        captured = capsys.readouterr()
        assert "HF_TOKEN" in captured.err
        assert "hf_secret" not in captured.out + captured.err
