"""`m2pt push` against a hub on this machine: what it shows, sends, refuses, and goes on with."""

import hashlib
from pathlib import Path

import pytest

from lightning_m2pt.application.publishing import ADAPTER_FILES, notes_for_readers, publication
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.storage.adapter_folder import CARD_FILE, CONFIG_FILE, TENSOR_FILE
from lightning_m2pt.system import hub_patience, hub_upload
from tests.support.hub.pushed_adapter import write_run
from tests.support.hub.stand_in import Fault, StandInHub, hub_stand_in, talk_to

NAME = "someone/tuned"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with hub_stand_in() as served:
        talk_to(served, str(tmp_path / "cache"), monkeypatch)
        yield served


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("pushed"))


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("other"), scale=2.0)


def push(capfd: pytest.CaptureFixture, run: Path, *words: str, name: str = NAME, licence: str = "mit"):
    code = main(["push", str(run), name, *(["--license", licence] if licence else []), *words])
    captured = capfd.readouterr()
    assert len(captured.err.strip().splitlines()) <= 3
    return code, captured.out, captured.err


def bytes_of(run: Path) -> dict[str, bytes]:
    return {name: (run / "adapter" / name).read_bytes() for name in ADAPTER_FILES}


def test_nothing_is_sent_or_asked_without_yes(hub: StandInHub, run: Path, capfd) -> None:
    code, out, _ = push(capfd, run)
    assert code == ExitCode.DONE
    assert hub.asked == []
    sizes = {name: len(content) for name, content in bytes_of(run).items()}
    for name in ("adapter_config.json", TENSOR_FILE):
        assert f"{name:<28} {sizes[name]:>14,} bytes" in out
    assert f"README.md{' ' * 20}{sizes['README.md'] + len('license: mit') + 1:>14,} bytes" in out
    assert f"to {NAME} (for everybody to see if it is new), licence mit:" in out
    assert "  license: mit\n" in out
    assert "# m2pt adapter of experiment invented" in out
    assert "its base is files that only their content names: its reader needs the same ones, base=..." in out
    assert out.endswith("nothing was sent: --yes sends it\n")


@pytest.mark.parametrize("private", [False, True])
def test_all_files_in_one_commit(hub: StandInHub, run: Path, capfd, private: bool) -> None:
    code, out, _ = push(capfd, run, "--yes", *(["--private"] if private else []))
    assert code == ExitCode.DONE
    repository = hub.repositories[NAME]
    assert repository.private is private
    assert len(repository.commits) == 2  # the empty one that it begins with, and ours
    assert f"sent: {NAME} at {repository.branches['main']}" in out
    files = repository.files("main")
    assert set(files) == {".gitattributes", *ADAPTER_FILES}
    ours = bytes_of(run)
    assert files["adapter_config.json"] == ours["adapter_config.json"]
    assert files[TENSOR_FILE] == ours[TENSOR_FILE]
    assert files["README.md"] == ours["README.md"].replace(b"---\n", b"---\nlicense: mit\n", 1)
    assert bytes_of(run) == ours  # the run is as it was
    before = len(hub.asked)
    code, out, _ = push(capfd, run, "--yes")
    assert (code, len(repository.commits)) == (ExitCode.DONE, 2)
    assert "nothing to send" in out
    assert len(hub.asked) == before + 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/objects/", 500),
        ("POST", "/commit/", 500),
        ("POST", "/commit/", 0),
        ("POST", "/preupload/", 503),
        ("POST", "/objects/batch", 500),
    ],
)
def test_a_push_that_was_cut_off_goes_on(
    hub: StandInHub, run: Path, capfd, monkeypatch, method: str, path: str, status: int
) -> None:
    monkeypatch.setattr(hub_patience, "SECONDS_WITHOUT_A_BYTE", 1.0)
    hub.faults = [Fault(method, path, status, times=6)]  # the library tries some requests six times
    code, _, err = push(capfd, run, "--yes")
    assert code == ExitCode.ENVIRONMENT
    assert "give the same command again" in err
    assert (f"HTTP {status}" if status else "Timeout") in err
    assert set(hub.repositories[NAME].files("main")) == {".gitattributes"}  # nobody sees half an adapter
    hub.faults.clear()
    stored = hub.sent("PUT", "/objects/") if path == "/commit/" else None
    assert push(capfd, run, "--yes")[0] == ExitCode.DONE
    assert set(hub.repositories[NAME].files("main")) == {".gitattributes", *ADAPTER_FILES}
    assert len(hub.repositories[NAME].commits) == 2
    if stored is not None:
        assert hub.sent("PUT", "/objects/") == stored == 1  # the tensors were not sent again


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub: StandInHub, run: Path, capfd) -> None:
    hub.faults = [Fault("GET", "/api/models/someone/tuned/revision/", 500, times=0)]
    assert push(capfd, run, "--yes")[0] == ExitCode.DONE
    hub.repositories[NAME].private = False
    code, out, _ = push(capfd, run, "--yes")
    assert (code, len(hub.repositories[NAME].commits)) == (ExitCode.DONE, 2)
    assert "nothing to send" in out


def test_another_adapter_is_replaced_on_purpose_only(hub: StandInHub, run: Path, other_run: Path, capfd) -> None:
    assert push(capfd, run, "--yes")[0] == ExitCode.DONE
    repository = hub.repositories[NAME]
    old = repository.branches["main"]
    code, _, err = push(capfd, other_run, "--yes")
    assert code == ExitCode.BAD_INPUT
    assert f"{NAME} at {old}: something else is there: README.md, adapter_config.json, adapter_model.safetensors" in err
    assert "--replace" in err
    assert repository.branches["main"] == old
    code, out, _ = push(capfd, other_run, "--yes", "--replace")
    assert code == ExitCode.DONE
    assert f"what was there before stays as --revision {old}" in out
    assert repository.files("main")[TENSOR_FILE] == bytes_of(other_run)[TENSOR_FILE]
    assert repository.files(old)[TENSOR_FILE] == bytes_of(run)[TENSOR_FILE]


def test_a_new_card_of_the_same_adapter_is_no_replacement(hub: StandInHub, run: Path, capfd) -> None:
    assert push(capfd, run, "--yes")[0] == ExitCode.DONE
    code, _, _ = push(capfd, run, "--yes", licence="apache-2.0")
    assert code == ExitCode.DONE
    assert b"license: apache-2.0" in hub.repositories[NAME].files("main")["README.md"]
    assert hub.sent("PUT", "/objects/") == 1


def test_a_whole_model_is_not_written_over(hub: StandInHub, run: Path, capfd) -> None:
    assert push(capfd, run, "--yes")[0] == ExitCode.DONE
    hub.repositories[NAME].add("main", {"config.json": b"{}", "model.safetensors": b"weights"})
    code, _, err = push(capfd, run, "--yes")
    assert code == ExitCode.BAD_INPUT
    assert "something else is there: config.json, model.safetensors" in err


def test_a_branch_stands_beside_main(hub: StandInHub, run: Path, other_run: Path, capfd) -> None:
    assert push(capfd, run, "--yes")[0] == ExitCode.DONE
    main_commit = hub.repositories[NAME].branches["main"]
    code, _, _ = push(capfd, other_run, "--yes", "--revision", "seed-2")
    assert code == ExitCode.DONE
    assert hub.repositories[NAME].branches["main"] == main_commit
    assert hub.repositories[NAME].files("seed-2")[TENSOR_FILE] == bytes_of(other_run)[TENSOR_FILE]
    code, _, err = push(capfd, run, "--revision", main_commit)
    assert code == ExitCode.BAD_INPUT
    assert "a commit cannot be changed" in err


def test_a_branch_that_was_made_and_got_nothing_goes_on(hub: StandInHub, run: Path, other_run: Path, capfd) -> None:
    assert push(capfd, run, "--yes")[0] == ExitCode.DONE
    repository = hub.repositories[NAME]
    main_commit = repository.branches["main"]
    hub.faults = [Fault("POST", "/commit/", 500, times=6)]
    assert push(capfd, other_run, "--yes", "--revision", "seed-2")[0] == ExitCode.ENVIRONMENT
    hub.faults.clear()
    assert repository.branches == {"main": main_commit, "seed-2": main_commit}  # made, and nothing sent to it
    code, out, _ = push(capfd, other_run, "--yes", "--revision", "seed-2")
    assert (code, repository.branches["main"]) == (ExitCode.DONE, main_commit)
    assert f"sent: {NAME} at {repository.branches['seed-2']}" in out
    assert repository.files("seed-2")[TENSOR_FILE] == bytes_of(other_run)[TENSOR_FILE]
    # With a commit of its own it is somebody's work.
    code, _, err = push(capfd, run, "--yes", "--revision", "seed-2")
    assert code == ExitCode.BAD_INPUT
    assert "something else is there" in err
    # So is main, which is always where main is.
    assert push(capfd, other_run, "--yes", "--revision", "main")[0] == ExitCode.BAD_INPUT


def test_what_should_be_private_is_not_published(hub: StandInHub, run: Path, capfd) -> None:
    assert push(capfd, run, "--yes")[0] == ExitCode.DONE
    for words in ((), ("--revision", "seed-2")):  # a branch of its own is no place to hide in
        code, _, err = push(capfd, run, "--yes", "--private", *words)
        assert code == ExitCode.BAD_INPUT
        assert "the repository is there, and everybody sees it" in err
    assert set(hub.repositories[NAME].branches) == {"main"}


def test_a_change_by_somebody_else_meanwhile_stops_it(hub: StandInHub, run: Path, capfd, monkeypatch) -> None:
    assert push(capfd, run, "--yes")[0] == ExitCode.DONE
    repository, ask = hub.repositories[NAME], hub_upload.refuse_bad_card

    def meanwhile(name: str, card: Path) -> None:
        repository.add("main", {**repository.files("main"), "theirs.txt": b"new"})
        ask(name, card)

    monkeypatch.setattr(hub_upload, "refuse_bad_card", meanwhile)
    code, _, err = push(capfd, run, "--yes", licence="apache-2.0")
    assert code == ExitCode.ENVIRONMENT
    assert "somebody else changed it meanwhile" in err
    assert b"license: mit" in repository.files("main")["README.md"]


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/api/models/", 401, "the hub does not accept the token"),
        ("POST", "/api/repos/create", 401, "the hub does not accept the token"),
        ("POST", "/api/repos/create", 403, "the token may not write here"),
        ("POST", "/preupload/", 404, "no such repository, or the token may not see it"),
        ("POST", "/commit/", 429, "asked too often"),
        ("GET", "/api/models/", 502, "the hub failed (HTTP 502)"),
        ("POST", "/api/validate-yaml", 500, "the hub failed (HTTP 500)"),
        ("GET", "/api/models/", 0, "the hub cannot be reached"),
        ("GET", "/api/models/", 200, "what answers is no hub"),
        ("POST", "/api/repos/create", 200, "what answers is no hub"),
        ("POST", "/commit/", 200, "what answers is no hub"),
    ],
)
def test_what_the_hub_refuses_is_said_in_three_lines(
    hub: StandInHub, run: Path, capfd, monkeypatch, method: str, path: str, status: int, said: str
) -> None:
    monkeypatch.setattr(hub_patience, "SECONDS_WITHOUT_A_BYTE", 1.0)
    hub.faults = [Fault(method, path, status, times=6)]
    code, _, err = push(capfd, run, "--yes")
    assert code == ExitCode.ENVIRONMENT
    assert said in err
    assert len(err.strip().splitlines()) == (2 if status == 200 else 3)
    assert NAME not in hub.repositories or set(hub.repositories[NAME].files("main")) == {".gitattributes"}


def test_a_token_of_nobody_makes_no_repository(hub: StandInHub, run: Path, capfd) -> None:
    hub.faults = [Fault("GET", "/api/models/", 401, {"X-Error-Code": "RepoNotFound"})]
    code, _, err = push(capfd, run, "--yes")
    assert code == ExitCode.ENVIRONMENT
    assert "the hub does not accept the token" in err
    assert hub.sent("POST", "/") == 0


def test_somebody_elses_owner_and_a_dead_hub(hub: StandInHub, run: Path, capfd, monkeypatch) -> None:
    code, _, err = push(capfd, run, "--yes", name="others/tuned")
    assert code == ExitCode.ENVIRONMENT
    assert "the token may not write here" in err
    assert "a token that may write to others" in err
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    code, _, err = push(capfd, run, "--yes")
    assert code == ExitCode.ENVIRONMENT
    assert "the hub cannot be reached: ConnectError" in err


def test_a_file_that_arrives_otherwise_is_noticed(hub: StandInHub, run: Path, capfd, monkeypatch) -> None:
    digest = hashlib.sha256(bytes_of(run)[TENSOR_FILE]).hexdigest()
    hub.objects[digest] = b"other bytes"  # the hub believes to have it
    code, _, err = push(capfd, run, "--yes")
    assert code == ExitCode.ENVIRONMENT
    assert f"{TENSOR_FILE} is not there as it was sent" in err


def test_without_token_or_network_nothing_is_asked(hub: StandInHub, run: Path, tmp_path, capfd, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = push(capfd, run, "--yes")
    assert code == ExitCode.ENVIRONMENT
    assert "HF_HUB_OFFLINE=1: nothing can be sent without a network" in err
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    code, _, err = push(capfd, run, "--yes")
    assert code == ExitCode.ENVIRONMENT
    assert "hf auth login" in err
    assert hub.asked == []


def test_the_licence_is_known_before_anything_is_made(hub: StandInHub, run: Path, tmp_path: Path, capfd) -> None:
    code, _, err = push(capfd, run, "--yes", licence="")
    assert code == ExitCode.BAD_INPUT
    assert "the card names no licence" in err
    code, _, err = push(capfd, run, "--yes", licence="Apache 2")
    assert code == ExitCode.BAD_INPUT
    assert "no licence's short name" in err
    assert hub.asked == []
    code, _, err = push(capfd, run, "--yes", licence="apache2")
    assert code == ExitCode.BAD_INPUT
    assert "the hub refuses its header" in err
    assert NAME not in hub.repositories
    known = write_run(tmp_path, card="---\nlicense: mit\n---\n# card\n")
    code, out, _ = push(capfd, known, licence="")
    assert code == ExitCode.DONE
    assert "licence mit:" in out


def test_the_card_says_how_it_is_loaded_from_here(hub: StandInHub, tmp_path: Path, capfd) -> None:
    lines = (
        '```python\nm = lightning_m2pt.load("ADAPTER", base="FOLDER")\n```\n\n`ADAPTER` is this folder, and so on.\n'
    )
    code, out, _ = push(capfd, write_run(tmp_path, card="# card\n" + lines), "--yes")
    assert code == ExitCode.DONE
    card = hub.repositories[NAME].files("main")["README.md"].decode()
    assert card.startswith("---\nlicense: mit\n---\n# card\n")
    assert f'm = lightning_m2pt.load("{NAME}", fetch=True, base="FOLDER")' in card
    assert f"`{NAME}` is this repository, and so on." in card
    assert all(f"  {line}".rstrip() in out for line in card.splitlines())


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("tuned", [], "'tuned' has no owner"),
        ("../x/y", [], "is no name of the hub"),
        (NAME, ["--revision", "../main"], "is no revision"),
        (NAME, ["--reviison", "main"], "unrecognized arguments"),
    ],
)
def test_odd_targets(hub: StandInHub, run: Path, capfd, name: str, words: list[str], said: str) -> None:
    code, _, err = push(capfd, run, "--yes", *words, name=name)
    assert code == ExitCode.BAD_INPUT
    assert said in err
    assert hub.asked == []


def test_only_whole_adapters_are_sent(hub: StandInHub, tmp_path: Path, capfd) -> None:
    code, _, err = push(capfd, tmp_path / "none")
    assert (code, "is not there" in err) == (ExitCode.BAD_INPUT, True)
    run = write_run(tmp_path)
    tensors = run / "adapter" / TENSOR_FILE
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    code, _, err = push(capfd, run)
    assert code == ExitCode.BAD_INPUT
    assert "its content is not what was saved" in err
    (run / "adapter" / "README.md").unlink()
    content[-1] ^= 1
    tensors.write_bytes(content)
    code, _, err = push(capfd, run)
    assert code == ExitCode.BAD_INPUT
    assert "no card that can be read" in err
    (run / "adapter" / "adapter_config.json").unlink()
    code, _, err = push(capfd, run)
    assert code == ExitCode.BAD_INPUT
    assert "no adapter here" in err
    assert hub.asked == []


def test_what_readers_will_need_is_said() -> None:
    of_base = {"format": 3, "base_fingerprint": "v2:" + "ab" * 32}
    place = {"repository": "some-org/base-7b", "commit": "c" * 40}
    of_hub = {"kind": "hub", "class": "VisionLanguageModel", "arguments": {"model": place}}
    embedded = {"kind": "embedded", "class": "OpenClipLlama", "arguments": {"name": "testbed"}}
    of_files = {"kind": "files", "class": "OpenClipLlama", "arguments": {}}
    assert notes_for_readers({**of_base, "base": embedded}, {}) == []
    assert notes_for_readers({**of_base, "base": of_hub}, {}) == [
        f"its reader needs the base: m2pt models fetch some-org/base-7b --revision {'c' * 40}"
    ]
    (note,) = notes_for_readers({**of_base, "base": of_files}, {})
    assert "its reader needs the same ones, base=..., with fingerprint v2:abababababab" in note
    (note,) = notes_for_readers({**of_base, "format": 2}, {})
    assert "an adapter of format 2 does not say its base: its reader needs base=..." in note
    (note,) = notes_for_readers({**of_base, "base": embedded}, {"made_with": [{}]})
    assert note.startswith("tuning was stopped before its last step")


def test_what_was_looked_at_is_what_is_sent(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    sent = publication(run, NAME, "mit", ())
    config, tensors = run / "adapter" / CONFIG_FILE, run / "adapter" / TENSOR_FILE
    content, stored = config.read_bytes(), tensors.read_bytes()
    config.write_text(config.read_text().replace("vicuna_v1", "/home/anna/words.yaml"))
    (tmp_path / "staged").mkdir()
    files = sent.staged(tmp_path / "staged")
    assert {name: path.read_bytes() for name, path in files.items() if name != CARD_FILE} == {
        CONFIG_FILE: content,
        TENSOR_FILE: stored,
    }
    assert sent.sizes() == {name: files[name].stat().st_size for name in ADAPTER_FILES}
    tensors.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    with pytest.raises(BadInputError, match="its content is not what was saved"):
        sent.staged(tmp_path / "staged")
