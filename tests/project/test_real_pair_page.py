"""The commands of the real pair's page, which take hours and a download: each names what there is."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from experiments.commands.parsers.sweep import argument_parser
from lightning_m2pt.commands.verbs import VERBS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how_to/real_pair.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BLOCK = re.search(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
assert BLOCK is not None
COMMANDS = [line.partition("  #")[0].strip() for line in BLOCK.group(1).splitlines()]
FOLDERS = {"EXP": "experiments", "SWEEP": "experiments/sweeps"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_what_there_is(command):
    program, *words = shlex.split(command)
    if program == "make":
        target, variable = words
        assert f"\n{target}:" in MAKEFILE
        name, _, value = variable.partition("=")
        assert f"$({name})" in MAKEFILE
        assert name == "TORCH_INDEX" or (ROOT / FOLDERS[name] / f"{value}.yaml").is_file()
    else:
        assert program == "m2pt"
        assert words[0] in VERBS
        if words[0] == "sweep":
            options = argument_parser().parse_args(words[1:])
            assert (ROOT / "experiments/sweeps" / f"{options.file}.yaml").is_file()


def test_modules_of_the_page_can_be_run():
    modules = re.findall(r"python -m\s+([\w.]+)", PAGE)
    assert set(modules) >= {"benchmarks.learning.sweep_scores", "benchmarks.report.front"}
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module
