"""The checkout is found beside the package or above the working directory, and nobody else's code is run."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import VERBS, help_text, main
from lightning_m2pt.system import checkout

ROOT = Path(__file__).parents[2]
PARTS = ("experiments", "data_modules", "callbacks", "setup.cfg")


def invented(
    folder: Path, described: str = f"[metadata]\nname = lightning-m2pt\nversion = {version('lightning-m2pt')}\n"
):
    """Writes a checkout with one verb, which says that it has run."""
    for name in ("experiments/commands", "data_modules", "callbacks"):
        (folder / name).mkdir(parents=True)
    (folder / "experiments" / "__init__.py").write_text("")
    (folder / "experiments" / "invented_verb.py").write_text("SAID = 'it runs'\n")
    (folder / "setup.cfg").write_text(described)
    return folder


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The package as installed from a wheel, and a working directory without a checkout."""
    monkeypatch.setattr(checkout, "PACKAGE", tmp_path / "site-packages" / "lightning_m2pt")
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def owned_by(monkeypatch, owners: dict[Path, int]) -> None:
    lstat = Path.lstat

    def as_said(path: Path):
        return SimpleNamespace(st_uid=owners[path]) if path in owners else lstat(path)

    monkeypatch.setattr(Path, "lstat", as_said)


def test_beside_the_package_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(invented(tmp_path / "other"))
    assert checkout.find_checkout() == ROOT


def test_above_the_working_directory(elsewhere, monkeypatch):
    assert checkout.find_checkout() is None
    folder = invented(elsewhere / "clone")
    (folder / "outputs" / "run").mkdir(parents=True)
    monkeypatch.chdir(folder / "outputs" / "run")
    assert checkout.find_checkout() == folder


@pytest.mark.parametrize("missing", ["experiments/commands", "data_modules", "callbacks"])
def test_a_folder_that_lacks_one_of_the_rooms_is_no_checkout(elsewhere, monkeypatch, missing):
    folder = invented(elsewhere / "clone")
    (folder / missing).rmdir()
    monkeypatch.chdir(folder)
    assert checkout.find_checkout() is None


def test_a_module_comes_from_the_checkout_found(elsewhere, monkeypatch):
    monkeypatch.chdir(invented(elsewhere / "clone"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)
    assert checkout.checkout_module("experiments.invented_verb", "m2pt invented").SAID == "it runs"
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("part", ["", *PARTS])
def test_another_users_code_is_not_run(elsewhere, monkeypatch, part):
    folder = invented(elsewhere / "clone")
    monkeypatch.chdir(folder)
    owned_by(monkeypatch, {folder / part: os.getuid() + 1})
    with pytest.raises(BadInputError, match="another user") as caught:
        checkout.find_checkout()
    assert caught.value.where == str(folder / part)


def test_roots_checkout_is_run(elsewhere, monkeypatch):
    folder = invented(elsewhere / "clone")
    monkeypatch.chdir(folder)
    owned_by(monkeypatch, {folder / part: 0 for part in ("", *PARTS)})
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert checkout.find_checkout() == folder


@pytest.mark.parametrize(
    ("described", "named"),
    [
        ("[metadata]\nname = another\nversion = 1.0\n", "it says it is another 1.0"),
        ("[metadata]\nname = lightning-m2pt\nversion = 99.0\n", "it says it is lightning-m2pt 99.0"),
        ("[metadata]\nversion = %(nothing)s\nname\n", "it says it is nothing"),
        ("", "it says it is nothing"),
    ],
    ids=["another project", "another version", "damaged", "empty"],
)
def test_another_projects_or_versions_code_is_not_run(elsewhere, monkeypatch, described, named):
    monkeypatch.chdir(invented(elsewhere / "clone", described))
    with pytest.raises(BadInputError, match=named) as caught:
        checkout.find_checkout()
    assert caught.value.where == str(elsewhere / "clone" / "setup.cfg")


def test_a_description_that_is_no_utf8_describes_nothing(elsewhere, monkeypatch):
    folder = invented(elsewhere / "clone")
    (folder / "setup.cfg").write_bytes(b"[metadata]\nname = lightning-m2pt\nauthor = J\xe9r\xf4me\n")
    monkeypatch.chdir(folder)
    with pytest.raises(BadInputError, match="it says it is nothing"):
        checkout.find_checkout()


def test_a_verb_without_a_checkout_says_what_it_needs(elsewhere, capsys):
    assert main(["train", "--config", "experiments/m2pt_base.yaml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "error: m2pt train: this needs a checkout of the project, and there is none here",
        f"  expected: experiments, data_modules, callbacks beside the package, in {elsewhere} or in one of its parents",
        "  hint: git clone the project's repository, cd into the clone, and give the command there",
    ]


def test_help_tells_which_verbs_need_a_checkout():
    before, _, behind = help_text().partition("verbs that run anywhere:")
    for verb, (module, summary) in VERBS.items():
        text = before if module.startswith("experiments.") else behind
        assert f"  {verb} " in text
        assert summary in text


def test_children_find_the_same_checkout_and_nothing_of_the_working_directory(tmp_path):
    stranger = invented(tmp_path / "stranger")
    (stranger / "lightning_m2pt").mkdir()
    (stranger / "lightning_m2pt" / "__init__.py").write_text("raise SystemExit('a stranger ran')")
    (stranger / "yaml.py").write_text("raise SystemExit('a stranger ran')")
    program = [sys.executable, "-m", "lightning_m2pt.main", "--version"]
    ended = subprocess.run(
        program, env=checkout.child_environment("test"), cwd=stranger, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, checkout.version_text() + "\n")


def test_children_keep_the_users_own_module_path_behind_the_checkout(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/own", "/other"]))
    assert checkout.child_environment("test")["PYTHONPATH"] == os.pathsep.join([str(ROOT), "/own", "/other"])
    monkeypatch.delenv("PYTHONPATH")
    assert checkout.child_environment("test")["PYTHONPATH"] == str(ROOT)


def test_version_names_version_commit_and_torch(elsewhere, capsys):
    assert main(["--version"]) == 0
    assert (
        capsys.readouterr().out == f"lightning-m2pt {version('lightning-m2pt')}, no commit, torch {version('torch')}\n"
    )


def test_the_commit_is_that_of_the_folder_itself(tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "-C", str(tmp_path), "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    commit = checkout.commit_of(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "inside").mkdir()
    assert checkout.commit_of(tmp_path / "inside") is None


def test_a_pipe_in_the_place_of_the_description_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "setup.cfg")
    assert checkout.description_of(tmp_path) == ("", "")
