"""The blocks of docs/python.md run as they stand there, one after the other, twice in one process as in a notebook."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_modules.vision_flan import VisionFlan
from data_modules.vsr import VSR
from lightning_m2pt.storage.adapter_folder import TENSOR_FILE

PAGE = Path(__file__).parents[2] / "docs/python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALLER = (("max_steps=300", "max_steps=1"), ('"max_steps": 300', '"max_steps": 1'), ("batch_size=32", "batch_size=8"))
"""What is changed, so that it takes seconds."""


def test_every_block_runs_twice_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    VisionFlan.write_fake(Path("data/testbed/vision_flan"))
    VSR.write_fake(Path("data/testbed/vsr"))
    code = "\n".join(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    for as_it_stands, smaller in SMALLER:
        assert as_it_stands in code
        code = code.replace(as_it_stands, smaller)
    adapters, said = [], []
    for _ in range(2):
        names: dict[str, Any] = {"__name__": "__main__"}
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, str(PAGE), "exec"), names)
        adapters.append(Path("outputs/six_lines/adapter", TENSOR_FILE).read_bytes())
        said.append(out.getvalue())
    assert adapters[0] == adapters[1]
    assert all(
        re.search(r"^[\d.]+% by yes_no_words, \d+ questions, chance [\d.]+%$", text, re.MULTILINE) for text in said
    )
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", "".join(said).replace("\r", ""))
    assert "callbacks" in json.dumps(json.loads(Path("outputs/mine/run.json").read_text(encoding="utf-8"))["deciding"])
