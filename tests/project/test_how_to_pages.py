"""The blocks of the pages under docs/how_to run as they stand there, in order, in a folder with two small runs."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.run_record import update_run_record
from tests.support.answers.saved_adapters import save_invented
from tests.support.models.tuned_runs import write_run
from tests.support.peft.written_folders import LORA, low_rank_tensors, write_peft

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path for path in sorted((ROOT / "docs/how_to").glob("*.md"))}
WITH_TESTS_OF_THEIR_OWN = {
    "publishing": "tests/application/test_publishing_page.py",
    "real_pair": "tests/project/test_real_pair_page.py",
}
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = '#!/bin/sh\nexec "{python}" -m lightning_m2pt.main "$@"\n'
WAIT = 240


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it: runs of small adapters on the testbed's base, PEFT's LoRA, two pictures."""
    folder = tmp_path_factory.mktemp("reader")
    for seed, name in enumerate(("picture", "other")):
        drawn = numpy.random.default_rng(seed).integers(0, 256, (60, 80, 3), numpy.uint8)
        Image.fromarray(drawn).save(folder / f"{name}.jpg")
    for name, method in {"m2pt": M2PT(visual_length=2, textual_length=2), "lora": Lora(rank=2)}.items():
        run = folder / "outputs" / "shapes" / name
        save_invented(run / "adapter", method, [])
        update_run_record(run, "seed", 0)
    write_peft(folder / "somebodys_lora", LORA, low_rank_tensors())
    write_run(folder / "tuned", M2PT(visual_length=2, textual_length=2))
    return folder


def run_in_shell(commands: str, folder: Path, programs: Path) -> None:
    """Runs a block of commands, which end at the first that fails."""
    program = programs / "m2pt"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", sorted(set(PAGES) - set(WITH_TESTS_OF_THEIR_OWN)))
def test_every_block_of_a_page_runs(prepared: Path, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)
    blocks = BLOCK.findall(PAGES[page].read_text(encoding="utf-8"))
    assert blocks
    names: dict[str, Any] = {"__name__": "__main__"}
    for language, code in blocks:
        if language == "python":
            exec(compile(code, str(PAGES[page]), "exec"), names)
        else:
            run_in_shell(code, prepared, tmp_path)


def test_pages_with_tests_of_their_own_have_them() -> None:
    for page, test in WITH_TESTS_OF_THEIR_OWN.items():
        assert page not in PAGES or (ROOT / test).is_file()
