"""Bad configuration files: what is no YAML, what is no configuration, and what would run or read something."""

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.runs.prepare import TESTBED_ROOT
from lightning_m2pt.main import main
from tests.bad_inputs.refusal import assert_refused
from tests.support.small_experiment import small_words

COMPLETE = Path("tests/support/complete_experiment.yaml")
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


def replaced(old: str, new: str) -> Callable[[str], str]:
    """Returns what changes one place of the file."""

    def change(text: str) -> str:
        assert text.count(old) >= 1, old
        return text.replace(old, new, 1)

    return change


def content(text: str | bytes) -> Callable[[str], str | bytes]:
    """Returns what puts other content in the file's place."""
    return lambda _: text


def behind(more: str) -> Callable[[str], str]:
    """Returns what adds lines at the end."""
    return lambda text: text + more


FILE = "own.yaml"
CASES: dict[str, tuple[Callable[[str], str | bytes], tuple[str, ...]]] = {
    # No YAML.
    "a tab": (replaced("  optimizer:", "\toptimizer:"), (FILE + ":19",)),
    "bad indent": (behind("  x: 1\n a: 2\n"), (FILE,)),
    "unclosed quote": (replaced("init: normal", 'init: "normal'), (FILE,)),
    "unclosed list": (behind("benchmarks: [1, 2\n"), (FILE,)),
    "unclosed mapping": (behind("x: {a: 1\n"), (FILE,)),
    "a key twice": (
        replaced("visual_length: 10", "visual_length: 10\n      visual_length: 12"),
        ("visual_length", FILE),
    ),
    "a section twice": (behind("\nmodel: {}\n"), ("model", FILE)),
    "a colon too many": (replaced("init: normal", "init: normal: wide"), (FILE,)),
    "an at sign": (replaced("init: normal", "init: @normal"), (FILE,)),
    "two documents": (behind("\n---\nmodel: {}\n"), (FILE,)),
    "an unknown alias": (replaced("init: normal", "init: *nothing"), (FILE, "nothing")),
    "a NUL byte": (behind("\nx: \0\n"), (FILE,)),
    "a bell": (behind('\nx: "\a"\n'), (FILE,)),
    "not UTF-8": (content(b"model: \xff\xfe\xfd\n"), (FILE,)),
    "UTF-16": (lambda text: text.encode("utf-16"), (FILE,)),
    "binary": (content(bytes(range(256)) * 10), (FILE,)),
    "JSON cut off": (content('{"model": {"backbone": '), (FILE,)),
    "HTML": (content("<!DOCTYPE html><html>Not found: 404</html>"), (FILE,)),
    "an LFS pointer": (content("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n"), (FILE,)),
    # No configuration.
    "empty": (content(""), (FILE,)),
    "white space": (content(" \n\n"), (FILE,)),
    "comments alone": (content("# nothing\n"), (FILE,)),
    "a list": (content("- model\n- data\n"), (FILE,)),
    "a word": (content("model\n"), (FILE,)),
    "a number": (content("7\n"), (FILE,)),
    "a number for a key": (behind("\n1: 2\n"), (FILE,)),
    "a list for a key": (behind("\n? [a]\n: 2\n"), (FILE,)),
    "null for a key": (behind("\n~: 2\n"), (FILE,)),
    "an unknown section": (behind("\nmodle: {}\n"), ("modle",)),
    "a misspelt key": (replaced("textual_length", "textual_lenght"), ("textual_lenght", "textual_length")),
    "a section that is a number": (replaced("trainer:\n", "trainer: 3\nunused:\n"), (FILE,)),
    "a section without values": (content("model:\ndata:\n"), (FILE,)),
    "a list for a mapping": (content("model: [1]\n"), ("model",)),
    "no model": (content("data: {class_path: data_modules.vision_flan.VisionFlan}\n"), ("missing",)),
    "a date": (replaced("visual_length: 10", "visual_length: 2024-01-01"), ("visual_length", FILE)),
    "a time": (replaced("visual_length: 10", "visual_length: 1:30"), ("visual_length",)),
    "an octal number": (replaced("visual_length: 10", "visual_length: 0o1_"), ("visual_length",)),
    "control characters in a key": (behind('\n"x\\e[2J\\ay": 1\n'), (FILE,)),
    "a very long key": (behind(f"\n{'k' * 3000}: 1\n"), (FILE,)),
    "a key from another project": (behind("\nlora_r: 8\n"), ("lora_r",)),
    # What would run, read or grow.
    "a call": (behind("\nx: !!python/object/apply:os.system [touch ran]\n"), (FILE, "tag")),
    "a call of ours": (replaced("init: normal", "init: !!python/object/apply:os.getcwd []"), (FILE, "tag")),
    "a name": (behind("\nx: !!python/name:os.system\n"), (FILE, "tag")),
    "a module": (behind("\nx: !!python/module:os\n"), (FILE, "tag")),
    "an own tag": (behind("\nx: !include other.yaml\n"), (FILE, "tag")),
    "a binary tag": (behind("\nx: !!binary aGVsbG8=\n"), (FILE,)),
    "an alias bomb": (content(BOMB), (FILE,)),
    "ten thousand levels": (content("a: " + "[" * 10_000 + "]" * 10_000 + "\n"), (FILE,)),
    "ten thousand mappings": (content("{a: " * 10_000 + "1" + "}" * 10_000), (FILE,)),
    "a class of the system": (replaced("lightning_m2pt.methods.m2pt.M2PT", "os.system"), ("os.system",)),
    "a class beside the file": (replaced("lightning_m2pt.methods.m2pt.M2PT", "beside.Method"), ("beside",)),
    "a function of torch": (replaced("data_modules.vision_flan.VisionFlan", "torch.load"), ("torch.load",)),
    "a class of another kind": (replaced("lightning_m2pt.methods.m2pt.M2PT", "torch.nn.Linear"), ("method",)),
    "a callback that calls": (
        behind(
            "  callbacks:\n    class_path: lightning.pytorch.callbacks.LambdaCallback\n"
            "    init_args: {on_fit_start: os.abort}\n"
        ),
        ("callbacks",),
    ),
    "a secret": (replaced("init: normal", "init: ${oc.env:HF_TOKEN}"), ("init", "HF_TOKEN")),
    "a value that is its own": (replaced("init: normal", "init: ${model.method.init_args.init}"), ("init",)),
    "two values that are each other's": (
        replaced(
            "visual_length: 10\n      textual_length: 10",
            "visual_length: ${model.method.textual_length}\n      textual_length: ${model.method.visual_length}",
        ),
        ("length",),
    ),
    "a value that is not there": (replaced("init: normal", "init: ${no.such.key}"), ("no.such.key",)),
    "a resolver nobody knows": (replaced("init: normal", "init: ${now:%Y}"), ("now",)),
    "a value nobody gave": (replaced("visual_length: 10", "visual_length: ???"), ("visual_length",)),
    "a file in place of a value": (replaced("init: normal", "init: /etc/passwd"), ("init",)),
    # Keys that contradict each other.
    "both ways to validate": (
        replaced(
            "validation_file: annotation_validation.json", "validation_file: x.json\n    validation_fraction: 0.5"
        ),
        ("validation_fraction",),
    ),
    "no rate for what is trained": (replaced("      textual_prompts: 1.0e-2\n", ""), ("learning_rate",)),
    "the text form of a number": (replaced("visual_prompts: 2.0e-2", "visual_prompts: fast"), ("learning_rate",)),
    "an end that never comes": (replaced("max_steps: 300", "max_steps: -1"), ("max_steps",)),
    "an evaluation set without a root": (replaced("root: data/testbed/mme, ", ""), ("root",)),
    "an evaluation set with a foreign key": (
        replaced("{root: data/testbed/mme, ", "{root: data/testbed/mme, dropuot: 1, "),
        ("dropuot",),
    ),
    "an evaluation set of no questions": (
        replaced("{root: data/testbed/mme, ", "{root: data/testbed/mme, limit: 0, "),
        ("limit",),
    ),
    "an instruction set among the evaluation sets": (
        replaced("data_modules.mme.MME", "data_modules.vision_flan.VisionFlan"),
        ("benchmarks",),
    ),
}
PLACES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a dangling link": lambda path: path.symlink_to(path.with_name("nothing")),
}


@pytest.fixture(scope="module")
def complete() -> str:
    return COMPLETE.read_text()


@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_is_refused_by_its_place(complete, tmp_path, capfd, monkeypatch, name):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    change, named = CASES[name]
    changed, path = change(complete), tmp_path / FILE
    absolute = changed if isinstance(changed, bytes) else changed.replace("data/testbed", str(TESTBED_ROOT)).encode()
    path.write_bytes(absolute)
    (tmp_path / "beside.py").write_text("raise SystemExit(99)")
    monkeypatch.syspath_prepend(tmp_path)
    words = (
        ["check", "--config", str(path), "--benchmarks", "[]"]
        if "evaluation set" not in name
        else ["check", "-c", path]
    )
    assert_refused(capfd, words, named, tmp_path, may_report=True)
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_file_is_refused(tmp_path, capfd, name):
    path = tmp_path / FILE
    PLACES[name](path)
    assert_refused(capfd, ["check", "--config", path], (FILE,), tmp_path)


@pytest.mark.parametrize("spoil", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")])
def test_a_mark_at_the_front_and_windows_lines_are_no_mistake(tmp_path, capfd, spoil):
    path = tmp_path / FILE
    path.write_bytes(spoil(COMPLETE.read_bytes()))
    words = small_words(tmp_path)
    words[1] = str(path)
    assert main(["params", *words]) == 0
    capfd.readouterr()
