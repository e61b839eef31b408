"""docs/how_to/publishing.md is done as it stands there, block by block, against a hub on this machine."""

import contextlib
import io
import re
import shlex
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from tests.support.hub.stand_in import hub_stand_in, talk_to
from tests.support.small_experiment import fitted, small_words

PAGE = Path(__file__).parents[2] / "docs/how_to/publishing.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    _, run = fitted(small_words(tmp_path, steps=2))
    pixels = numpy.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=numpy.uint8)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Image.fromarray(pixels).save("picture.png")
    names: dict[str, Any] = {"__name__": "__main__"}
    with hub_stand_in() as hub:
        talk_to(hub, str(tmp_path / "cache"), monkeypatch)
        capfd.readouterr()
        asked = []
        for language, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
            if language == "sh":
                for line in code.splitlines():
                    words = [str(run) if word == "RUN" else word for word in shlex.split(line)]
                    assert words[0] == "m2pt"
                    assert main(words[1:]) == ExitCode.DONE, capfd.readouterr().err
            else:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(code, str(PAGE), "exec"), names)
            asked.append(len(hub.asked))
    said = capfd.readouterr().out
    assert asked[0] == 0  # the first block only looks
    assert set(hub.repositories["someone/spots"].branches) == {"main", "first-try"}
    assert "nothing was sent" in said
    card = hub.repositories["someone/spots"].files("main")["README.md"].decode()
    assert "ADAPTER" not in card
    assert names["model"].revision == hub.repositories["someone/spots"].branches["main"]
    assert asked[-1] == asked[-2]  # a commit that is here is not asked for
