"""Bad adapters, runs and checkpoints: refused by file and key, and the run's folder is left as it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.main import main
from lightning_m2pt.storage.adapter_manifest import DIGEST
from tests.bad_inputs.refusal import Spoil, assert_refused
from tests.support.small_experiment import run_with_a_set, small_words

CONFIG, TENSORS = "adapter/adapter_config.json", "adapter/adapter_model.safetensors"
RECORD, SETTINGS = "run.json", "config.yaml"
METHOD = ("--model.method.visual_length", "2", "--model.method.textual_length", "1")
HTML = b"<!DOCTYPE html><html><body>404</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 13476839\n"
PICKLE = b"\x80\x04cos\nsystem\n(S'touch ran'\ntR."
ROWS = "textual_prompts.rows.0"


def to_bytes(file: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda run: (run / file).write_bytes(change((run / file).read_bytes()))


def content(file: str, data: bytes) -> Spoil:
    return lambda run: (run / file).write_bytes(data)


def key(file: str, name: str, value: object) -> Spoil:
    """Returns what sets a key of a JSON file; ``...`` removes it."""

    def spoil(run: Path) -> None:
        read = json.loads((run / file).read_text())
        read[name] = value
        (run / file).write_text(json.dumps({each: one for each, one in read.items() if one is not ...}))

    return spoil


def argument(name: str, value: object) -> Spoil:
    def spoil(run: Path) -> None:
        read = json.loads((run / CONFIG).read_text())
        read["arguments"][name] = value
        (run / CONFIG).write_text(json.dumps(read))

    return spoil


def tensors(change: Callable[[dict[str, Tensor]], Any]) -> Spoil:
    """Returns what changes the adapter's tensors, and leaves the manifest as it is."""

    def spoil(run: Path) -> None:
        read = load_file(run / TENSORS)
        changed = change(read)
        save_file(changed if isinstance(changed, dict) else read, run / TENSORS)

    return spoil


def remove(file: str) -> Spoil:
    return lambda run: (run / file).unlink()


def rename(file: str, name: str) -> Spoil:
    return lambda run: (run / file).rename((run / file).with_name(name))


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


ADAPTERS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    **{f"tensors cut at {share}": (to_bytes(TENSORS, lambda data, s=share: data[: int(s * len(data))]), (TENSORS,))
       for share in (0.0, 0.01, 0.5, 0.99)},
    "tensors with a byte too many": (to_bytes(TENSORS, lambda data: data + b"x"), (TENSORS,)),
    "tensors with a flipped bit": (to_bytes(TENSORS, lambda data: flipped(data, len(data) - 7)), (TENSORS,)),
    "tensors with a flipped bit in the header": (to_bytes(TENSORS, lambda data: flipped(data, 20)), (TENSORS,)),
    "tensors relabelled": (to_bytes(TENSORS, lambda data: data.replace(b'"F32"', b'"I32"', 1)), (TENSORS,)),
    "tensors with a header of 2^63": (to_bytes(TENSORS, lambda data: bytes(7) + b"\x80" + data[8:]), (TENSORS,)),
    "tensors that are HTML": (content(TENSORS, HTML), (TENSORS,)),
    "tensors that are an LFS pointer": (content(TENSORS, LFS), (TENSORS,)),
    "tensors that are a pickle": (content(TENSORS, PICKLE), (TENSORS,)),
    "no tensors": (remove(TENSORS), (TENSORS,)),
    "tensors as a pickle's file": (rename(TENSORS, "adapter_model.bin"), ("adapter",)),
    "a tensor missing": (tensors(lambda all_: {name: one for name, one in all_.items() if name != ROWS}), (ROWS,)),
    "a tensor too many": (tensors(lambda all_: {**all_, "more": torch.ones(2)}), ("more",)),
    "a tensor of another shape": (tensors(lambda all_: {**all_, ROWS: torch.ones(1, 2, 8)}), (ROWS,)),
    "a tensor of another type": (tensors(lambda all_: {**all_, ROWS: all_[ROWS].half()}), (ROWS,)),
    "a tensor of NaN": (tensors(lambda all_: {**all_, ROWS: all_[ROWS] * float("nan")}), (TENSORS,)),
    "a tensor of other numbers": (tensors(lambda all_: {**all_, ROWS: all_[ROWS] + 1}), (TENSORS,)),
    "no configuration": (remove(CONFIG), (CONFIG,)),
    **{f"a configuration that is {what}": (content(CONFIG, data), (CONFIG,)) for what, data in {
        "empty": b"", "half": b'{"peft_type": "M2', "a list": b"[]", "a number": b"3", "HTML": HTML,
        "not UTF-8": b'{"a": "\xff"}', "deep": b"[" * 100_000, "NaN": b'{"format": NaN}',
        "a key twice": b'{"a":1,"a":2}',
        "an object of nothing": b"{}",
    }.items()},
    "another method": (key(CONFIG, "peft_type", "LORA"), (CONFIG, "LORA")),
    "a method nobody knows": (key(CONFIG, "peft_type", "\x1b[2JX"), (CONFIG,)),
    "a method that is a list": (key(CONFIG, "peft_type", ["M2PT"]), (CONFIG,)),
    "no method": (key(CONFIG, "peft_type", ...), (CONFIG,)),
    "another base": (key(CONFIG, "base_fingerprint", "v2:" + "0" * 64), (CONFIG,)),
    "a base that is a number": (key(CONFIG, "base_fingerprint", 3), (CONFIG,)),
    "a base that is an object": (key(CONFIG, "base_fingerprint", {"a": []}), (CONFIG,)),
    "no base": (key(CONFIG, "base_fingerprint", ...), (CONFIG,)),
    "a newer format": (key(CONFIG, "format", 99), (CONFIG, "format")),
    "a format that is a text": (key(CONFIG, "format", "2"), (CONFIG, "format")),
    "no arguments": (key(CONFIG, "arguments", ...), (CONFIG, "arguments")),
    "arguments that are a list": (key(CONFIG, "arguments", [1]), (CONFIG, "arguments")),
    "another length": (argument("visual_length", 5), (CONFIG, "visual_length")),
    "other layers": (argument("textual_layers", [0]), (CONFIG, "textual_layers")),
    "other rows": (argument("visual_rows_to_text", "all"), (CONFIG, "visual_rows_to_text")),
    "an argument nobody knows": (argument("lenght", 5), (CONFIG, "lenght")),
    "another digest": (key(CONFIG, DIGEST, "0" * 64), ("adapter", "SHA-256")),
    "no settings": (remove(SETTINGS), ("no run here",)),
    "settings that are HTML": (content(SETTINGS, HTML), (SETTINGS,)),
    "settings with a call": (
        to_bytes(SETTINGS, lambda data: data + b"\nx: !!python/object/apply:os.getcwd []\n"), (SETTINGS,)
    ),
    "settings with a foreign key": (
        to_bytes(SETTINGS, lambda data: data.replace(b"{", b'{"dropuot": 3, ', 1)), ("dropuot",)
    ),
    "settings of a class of the system": (
        to_bytes(SETTINGS, lambda data: data.replace(b"lightning_m2pt.methods.m2pt.M2PT", b"os.system")),
        ("os.system",),
    ),
}  # fmt: skip


def the_checkpoint(run: Path) -> Path:
    return next((run / "checkpoints").iterdir())


def checkpoint_file(pattern: str, change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(run: Path) -> None:
        for path in the_checkpoint(run).glob(pattern):
            path.write_bytes(change(path.read_bytes()))

    return spoil


CHECKPOINTS: dict[str, Spoil] = {
    "tensors cut": checkpoint_file("*.safetensors", lambda data: data[:-9]),
    "tensors of no bytes": checkpoint_file("*.safetensors", lambda _: b""),
    "a flipped bit": checkpoint_file("*.safetensors", lambda data: flipped(data, len(data) - 5)),
    "tensors that are a pickle": checkpoint_file("*.safetensors", lambda _: PICKLE),
    "a state cut": checkpoint_file("state.json", lambda data: data[: len(data) // 2]),
    "a state that is HTML": checkpoint_file("state.json", lambda _: HTML),
    "a state in no encoding": checkpoint_file("state.json", lambda _: b'"\xff\xfe"'),
    "a manifest of nothing": checkpoint_file("manifest.json", lambda _: b""),
    "half a manifest": checkpoint_file("manifest.json", lambda data: data[: len(data) // 2]),
    "a manifest that is a list": checkpoint_file("manifest.json", lambda _: b"[]"),
    "a manifest of another step": checkpoint_file(
        "manifest.json", lambda data: data.replace(b'"step": 1', b'"step": 7')
    ),
    "no manifest": lambda run: (the_checkpoint(run) / "manifest.json").unlink(),
    "no state": lambda run: (the_checkpoint(run) / "state.json").unlink(),
    "a name of another step": lambda run: the_checkpoint(run).rename(run / "checkpoints" / "step=00000004"),
}  # fmt: skip
RECORDS: dict[str, Spoil] = {
    "that is HTML": content(RECORD, HTML),
    "that is empty": content(RECORD, b""),
    "that is a list": content(RECORD, b"[]"),
    "that is an object of nothing": content(RECORD, b"{}"),
    "that is deep": content(RECORD, b"[" * 100_000),
    "in no encoding": content(RECORD, b'{"a": "\xff"}'),
    "cut off": to_bytes(RECORD, lambda data: data[:100]),
    "without settings": key(RECORD, "deciding", ...),
    "whose settings are a list": key(RECORD, "deciding", [1]),
    "that is a folder": lambda run: ((run / RECORD).unlink(), (run / RECORD).mkdir()),
}
OTHER_SETTINGS = {
    "seed_everything": ("--seed_everything=3", ("seed", "0", "3")),
    "data": ("--data.validation_fraction=0.5", ("validation_fraction", "0.5")),
    "template": ("--data.template=plain", ("template", "vicuna_v1", "plain")),
    "length": ("--model.method.visual_length=3", ("visual_length", "2", "3")),
    "rate": ("--model.optimizer.learning_rate=0.5", ("learning_rate", "0.5")),
    "schedule": ("--model.schedule.name=linear", ("schedule", "cosine", "linear")),
    "steps": ("--trainer.max_steps=9", ("max_steps", "6", "9")),
    "clipping": ("--trainer.gradient_clip_val=0.5", ("gradient_clip_val", "0.5")),
    "type": ("--model.backbone.dtype=float64", ("dtype", "float64")),
    "averages": ("--model.loss_average=micro_batch", ("loss_average", "micro_batch")),
}
NO_RUNS = {"nothing": lambda path: None, "an empty folder": Path.mkdir, "a file": lambda path: path.write_text("x")}
OF_A_RUN = {
    "evaluate": (),
    "prompts": (),
    "validate": (),
    "attention": ("--sample", "vsr"),
    "attribution": ("--sample", "vsr"),
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return run_with_a_set(tmp_path_factory.mktemp("tuned"), *METHOD)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The words of a run that was stopped after a step, and its folder."""
    folder = tmp_path_factory.mktemp("stopped")
    words = [*small_words(folder, steps=6), *METHOD]
    return words, fit(parse_experiment([*words, "--trainer.max_time", "00:00:00:00"]), folder=folder / "run")


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_bad_adapter_or_run_is_refused_by_its_file(tuned, tmp_path, capfd, name):
    spoil, named = ADAPTERS[name]
    shutil.copytree(tuned, tmp_path / "run")
    spoil(tmp_path / "run")
    assert_refused(capfd, ["prompts", "--run", tmp_path / "run"], named, tmp_path)
    assert not Path("ran").exists()


@pytest.mark.parametrize("verb", OF_A_RUN)
@pytest.mark.parametrize("name", NO_RUNS)
def test_what_is_no_run_is_refused_by_its_path(tmp_path, capfd, verb, name):
    NO_RUNS[name](tmp_path / "run")
    assert_refused(capfd, [verb, "--run", tmp_path / "run", *OF_A_RUN[verb]], (str(tmp_path / "run"),), tmp_path)


@pytest.mark.parametrize("name", RECORDS)
def test_a_run_with_a_bad_record_does_not_go_on(stopped, tmp_path, capfd, name):
    words, run = stopped
    shutil.copytree(run, tmp_path / "run")
    RECORDS[name](tmp_path / "run")
    assert_refused(capfd, ["fit", *words, "--run", tmp_path / "run"], (str(tmp_path / "run"),), tmp_path)


@pytest.mark.parametrize("verb", sorted(set(OF_A_RUN) - {"validate"}))
def test_a_run_without_an_adapter_is_refused(tuned, tmp_path, capfd, verb):
    shutil.copytree(tuned, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "adapter")
    assert_refused(capfd, [verb, "--run", tmp_path / "run", *OF_A_RUN[verb]], ("adapter",), tmp_path)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_damaged_checkpoint_that_is_the_only_one_is_refused(stopped, tmp_path, capfd, name):
    words, run = stopped
    shutil.copytree(run, tmp_path / "run")
    CHECKPOINTS[name](tmp_path / "run")
    assert_refused(capfd, ["fit", *words, "--run", tmp_path / "run"], ("step=",), tmp_path)


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_a_run_goes_on_with_its_own_settings_alone(stopped, tmp_path, capfd, name):
    words, run = stopped
    shutil.copytree(run, tmp_path / "run")
    word, named = OTHER_SETTINGS[name]
    assert_refused(capfd, ["fit", *words, word, "--run", tmp_path / "run"], named, tmp_path)


def test_the_untouched_runs_are_right(tuned, stopped, tmp_path, capfd):
    """Or everything above would be refused for another reason."""
    words, run = stopped
    shutil.copytree(run, tmp_path / "run")
    assert main(["fit", *words, "--run", str(tmp_path / "run")]) == 0
    shutil.copytree(tuned, tmp_path / "tuned")
    assert main(["prompts", "--run", str(tmp_path / "tuned")]) == 0
    capfd.readouterr()
