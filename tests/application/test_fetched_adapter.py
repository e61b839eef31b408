"""Adapters of the hub: fetched when that is asked for and not otherwise, compared with their hashes, pinned."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lightning_m2pt
from lightning_m2pt.application.fetched_adapter import adapter_of_hub
from lightning_m2pt.application.publishing import ADAPTER_FILES
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE, TENSOR_FILE
from lightning_m2pt.system import hub_patience
from tests.support.answers.saved_adapters import TOKENS, asked_of, save_invented, write_pictures
from tests.support.hub.pushed_adapter import write_run
from tests.support.hub.stand_in import Fault, StandInHub, environment_of, hub_stand_in, talk_to

ROOT = Path(__file__).parents[2]
NAME = "someone/tuned"
KNOWN_BASE: dict[str, str] = {"base": "testbed"}
EXTRA = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"\x80\x04", ".gitattributes": b""}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with hub_stand_in() as served:
        talk_to(served, str(tmp_path / "cache"), monkeypatch)
        yield served


def pushed(run: Path, *words: str) -> None:
    assert main(["push", str(run), NAME, "--license", "mit", "--yes", *words]) == ExitCode.DONE


def refused(*arguments: object, **options: object) -> str:
    with pytest.raises((BadInputError, EnvironmentFailure)) as caught:
        adapter_of_hub(*arguments, **options)
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def test_nothing_is_asked_unless_it_is_said(hub: StandInHub, tmp_path: Path) -> None:
    pushed(write_run(tmp_path))
    before = list(hub.asked)
    said = refused(NAME)
    assert f"{NAME} is not on this machine" in said
    assert f"m2pt models fetch {NAME}, or fetch=True" in said
    assert hub.asked == before
    folder = adapter_of_hub(NAME, fetch=True)
    assert folder.name == hub.repositories[NAME].branches["main"]
    fetched = len(hub.asked)
    assert adapter_of_hub(NAME) == adapter_of_hub(NAME, folder.name) == folder
    assert adapter_of_hub(NAME, folder.name, fetch=True) == folder  # a commit that is here never changes
    assert len(hub.asked) == fetched


def test_only_the_adapters_files_come(hub: StandInHub, tmp_path: Path) -> None:
    run = write_run(tmp_path)
    pushed(run)
    repository = hub.repositories[NAME]
    repository.add("main", repository.files("main") | EXTRA)
    folder = adapter_of_hub(NAME, fetch=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(ADAPTER_FILES)
    assert (folder / TENSOR_FILE).read_bytes() == (run / "adapter" / TENSOR_FILE).read_bytes()


def test_a_branch_is_what_it_was_when_it_was_fetched(hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    pushed(write_run(tmp_path))
    first = adapter_of_hub(NAME, fetch=True)
    pushed(write_run(tmp_path / "other", scale=2.0), "--replace")
    assert adapter_of_hub(NAME) == first
    second = adapter_of_hub(NAME, fetch=True)
    assert second.name == hub.repositories[NAME].branches["main"] != first.name
    assert adapter_of_hub(NAME) == second
    assert adapter_of_hub(NAME, first.name) == first
    assert (first / TENSOR_FILE).read_bytes() != (second / TENSOR_FILE).read_bytes()


def test_a_fetch_that_was_cut_off_leaves_the_branch(hub: StandInHub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(hub_patience, "SECONDS_WITHOUT_A_BYTE", 1.0)
    pushed(write_run(tmp_path))
    for fault in (
        Fault("GET", f"/resolve/{hub.repositories[NAME].branches['main']}/{TENSOR_FILE}", 500, times=6),
        Fault("GET", "/api/models/", 0, times=1),
        Fault("GET", "/api/models/", 200, times=1),
    ):
        hub.faults = [fault]
        assert "the hub cannot be reached" in refused(NAME, fetch=True)
        assert "not on this machine" in refused(NAME)
    assert adapter_of_hub(NAME, fetch=True).is_dir()


def test_what_the_hub_has_not(hub: StandInHub, tmp_path: Path, monkeypatch) -> None:
    assert "no such repository or revision" in refused(NAME, fetch=True)
    pushed(write_run(tmp_path))
    assert "no such repository or revision" in refused(NAME, "other", fetch=True)
    assert "is no name of the hub" in refused("../x/y", fetch=True)
    assert "is no revision" in refused(NAME, "../main", fetch=True)
    hub.repositories[NAME].add("main", {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b""})
    assert f"the repository has no {CONFIG_FILE}" in refused(NAME, fetch=True)
    hub.repositories[NAME].private = True
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    assert "no such repository or revision" in refused(NAME, fetch=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE=1: nothing can be fetched" in refused(NAME, fetch=True)


def test_a_programs_own_way_to_the_hub_is_taken_and_kept(hub: StandInHub, tmp_path: Path) -> None:
    """Such as one that knows a proxy, or certificates of the house."""
    from huggingface_hub.utils import _http

    pushed(write_run(tmp_path))
    made = []

    def of_the_program() -> Any:
        made.append(_http.default_client_factory())
        return made[-1]

    _http.set_client_factory(of_the_program)
    try:
        adapter_of_hub(NAME, fetch=True)
        assert made
        assert {client.timeout.read for client in made} == {hub_patience.SECONDS_WITHOUT_A_BYTE}
        assert _http._GLOBAL_CLIENT_FACTORY is of_the_program
    finally:
        _http.set_client_factory(_http.default_client_factory)


def test_models_fetch_says_what_an_adapter_is_for(hub: StandInHub, tmp_path: Path, capfd) -> None:
    pushed(write_run(tmp_path))
    capfd.readouterr()
    assert main(["models", "fetch", NAME]) == ExitCode.DONE
    assert f'lightning_m2pt.load("{NAME}")' in capfd.readouterr().out
    assert adapter_of_hub(NAME).is_dir()
    theirs = {CONFIG_FILE: json.dumps({"peft_type": "LORA"}).encode(), TENSOR_FILE: b"tensors"}
    hub.repositories[NAME].add("main", theirs)
    assert main(["models", "fetch", NAME]) == ExitCode.DONE
    assert "an adapter of another tool: m2pt convert " in capfd.readouterr().out


def test_what_was_sent_answers_as_it_did(hub: StandInHub, tmp_path: Path, monkeypatch) -> None:
    questions = asked_of(write_pictures(tmp_path / "pictures", 1))
    method = M2PT(visual_length=2, textual_length=2, init="normal", init_std=0.1)
    expected = save_invented(tmp_path / "work" / "adapter", method, questions)
    pushed(tmp_path / "work" / "adapter")
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path / "work")  # nothing of it is left
    model = lightning_m2pt.load(NAME, fetch=True, **KNOWN_BASE)
    assert model.revision == hub.repositories[NAME].branches["main"]
    assert model.ask_all(questions, max_new_tokens=TOKENS) == expected
    again = lightning_m2pt.load(f"hub:{NAME}", revision=model.revision, **KNOWN_BASE)
    assert again.ask(*questions[0], max_new_tokens=TOKENS) == expected[0]
    again.add("second", NAME, revision="main")
    again.use("second")
    assert (again.revision, again.frozen().revision) == (model.revision, None)
    cached = adapter_of_hub(NAME) / TENSOR_FILE
    content = bytearray(cached.read_bytes())
    content[-1] ^= 1
    cached.resolve().write_bytes(content)
    with pytest.raises(BadInputError, match="its content is not what was saved"):
        lightning_m2pt.load(NAME, **KNOWN_BASE)
    (tmp_path / "someone" / "tuned").mkdir(parents=True)
    with pytest.raises(BadInputError, match="a folder is not fetched"):
        lightning_m2pt.load(NAME, fetch=True)


LOADS = """
import lightning_m2pt
model = lightning_m2pt.load("someone/tuned", fetch=True, base="testbed", device="cpu")
print(model.ask("PICTURE", "What is this?", max_new_tokens=TOKENS))
"""


@pytest.mark.slow
def test_in_processes_of_their_own_in_an_empty_folder(tmp_path: Path) -> None:
    questions = asked_of(write_pictures(tmp_path / "pictures", 1))[:1]
    method = M2PT(visual_length=2, textual_length=2, init="normal", init_std=0.1)
    expected = save_invented(tmp_path / "adapter", method, questions)
    (tmp_path / "empty").mkdir()
    code = LOADS.replace("PICTURE", str(questions[0][0])).replace("TOKENS", str(TOKENS))
    with hub_stand_in() as hub:
        environment = {**os.environ, **environment_of(hub, str(tmp_path / "cache")), "PYTHONPATH": str(ROOT)}
        said = []
        for words in (
            ["-m", "lightning_m2pt.main", "push", str(tmp_path / "adapter"), NAME, "--license", "mit", "--yes"],
            ["-c", code],
        ):
            ended = subprocess.run(
                [sys.executable, *words],
                cwd=tmp_path / "empty",
                env=environment,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert (ended.returncode, ended.stderr) == (0, "")
            said.append(ended.stdout)
    assert f"sent: {NAME} at {hub.repositories[NAME].branches['main']}" in said[0]
    assert said[1].splitlines()[-1] == expected[0]
