"""Runs `m2pt report` and `m2pt compare` in this process."""

import json

from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main


def run(capfd, *words) -> tuple[int, str]:
    code = main([str(word) for word in words])
    captured = capfd.readouterr()
    return code, captured.out + captured.err


def records(capfd, *words) -> list[dict]:
    code, text = run(capfd, *words, "--format", "json")
    assert code == ExitCode.DONE, text
    return json.loads(text)["tables"][0]["records"]


def refused(capfd, *words) -> str:
    code, text = run(capfd, *words)
    assert code == ExitCode.BAD_INPUT
    assert len(text.splitlines()) <= 3, text
    return text
