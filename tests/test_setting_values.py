"""What a file or a word may say of a setting: the value it seems to say, or three lines that name it."""

import os

import pytest

from experiments.cli import parse_experiment
from experiments.main import main
from lightning_m2pt.errors import BadInputError, ExitCode

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


@pytest.mark.parametrize(("place", "key", "value"), [(place, *case) for place, case in enumerate(WRONG)], ids=short)
def test_wrong_values(tmp_path, place, key, value):
    refused(tmp_path, key, value, in_file=place % 2 == 0)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "key", "value"), [(place, *case) for place, case in enumerate(WRONG)], ids=short)
def test_wrong_values_in_the_other_place(tmp_path, place, key, value):
    refused(tmp_path, key, value, in_file=place % 2 == 1)


RIGHT = [
    {LENGTH: ("7", 7), RATE: ("1e-3", 0.001), SEED: ("0", 0), "model.method.init_std": ("1e-3", 0.001)},
    {LENGTH: ("'7'", 7), RATE: (".5", 0.5), SEED: ("4294967295", 2**32 - 1), "data.root": ("2024_01", "2024_01")},
    {LENGTH: ("+7", 7), RATE: ("0", 0.0), "data.validation_file": ("null", None), "data.root": ("'007'", "007")},
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
