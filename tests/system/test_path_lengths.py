"""A name that no file can have is refused in three lines, with exit code 2, at the flag or key that has it."""

from pathlib import Path

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.system.path_lengths import refuse_too_long, refused_by_the_system

LONG = "x" * 300
BASE = ("--config", "experiments/m2pt_base.yaml")


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["score", LONG], "command line: predictions"),
        (["report", LONG], "command line: RUN"),
        (["convert", f"folder/{LONG}/file"], "command line: SOURCE"),
        (["push", LONG, "somebody/name"], "command line: RUN"),
        (["export", "predictions", "FILE", "--format", "llava", "--output", LONG], "command line: --output"),
        (["schema", f"--output={LONG}"], "command line: --output"),
        (["list", "runs", "--output_root", LONG], "command line: --output_root"),
        (["evaluate", "--run", LONG], "command line: --run"),
        (["check", "--config", f"{LONG}.yaml"], "command line: --config"),
        (["params", *BASE, "--output_root", LONG], "command line: output_root"),
        (["params", *BASE, "--data.root", f"a/{LONG}"], "command line: data.root"),
        (["params", *BASE, "--config", "EXPERIMENT"], "own.yaml:3: model.backbone.language_model"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_every_verb_names_the_place(
    words: list[str], place: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"model:\n  backbone:\n    language_model: {LONG}\n")
    assert main([str(own) if word == "EXPERIMENT" else word for word in words]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) <= 3
    assert f"{place}: {LONG[:40]}... is no file's name: it has 30" in lines[0]
    assert lines[1] == "  expected: at most 255 bytes between two slashes"


def test_lengths_by_value() -> None:
    refuse_too_long("a/" * 2047 + "b", "a")  # 4,095 bytes
    refuse_too_long("/".join(["y" * 255] * 15), "key")
    refuse_too_long("é" * 127, "key")
    with pytest.raises(BadInputError, match=r"key: é{40}\.{3} is no file's name: it has 256 bytes"):
        refuse_too_long(f"a/{'é' * 128}/b", "key")
    with pytest.raises(BadInputError, match=r"it has 4,100 bytes\n  expected: at most 4,095 bytes$"):
        refuse_too_long("abc/" * 1025, "key")


def test_what_the_system_refuses_is_found_among_the_words() -> None:
    name = "z" * 250
    draft = f"/outputs/.{name}.machine-123.draft"  # longer than the name that was written
    for words, place in (
        (["--output", f"outputs/{name}"], "command line: --output"),
        ([f"--output=outputs/{name}"], "command line: --output"),
        ([name], "command line"),
        (["--output", "outputs/other"], "a path"),
    ):
        assert refused_by_the_system(draft, words).where == place
    deep = "abc/" * 1025
    assert refused_by_the_system(f"/here/{deep}", ["--run", deep]).where == "command line: --run"
