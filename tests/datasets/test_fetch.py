"""`m2pt data fetch`: revisions are pinned, files hashed, put in place whole and repaired; a local folder is the hub."""

import gzip
import hashlib
import inspect
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled, RevisionNotFoundError

from data_modules.cifar10 import CIFAR10
from data_modules.mnist import MNIST
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.system.hub_download import OFFLINE_VARIABLES
from tests.support.data_fixtures import fake_pictures
from tests.support.hub_files import picture, write_shards

OLD, NEW = "a" * 40, "b" * 40


class FakeHub:
    """A hub with one repository: commits are folders, and the newest one is `main`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.newest = OLD
        self.says: dict[str, str] = {}  # hashes that the hub claims instead of the real ones
        self.fails_after: int | None = None
        self.asked: list[str] = []

    def commit(self, name: str) -> Path:
        return self.folder / name

    def dataset_info(
        self, repository: str, *, revision: str | None = None, files_metadata: bool = False, timeout: float | None
    ) -> object:
        assert timeout is not None
        assert files_metadata
        commit = self.newest if revision in (None, "main") else revision
        self.asked.append(f"{repository}@{commit}")
        if not self.commit(commit).is_dir():
            raise RevisionNotFoundError("404", response=SimpleNamespace(headers={}, request=None))
        files = [path for path in sorted(self.commit(commit).rglob("*")) if path.is_file()]
        siblings = []
        for path in files:
            name = path.relative_to(self.commit(commit)).as_posix()
            content = path.read_bytes()
            known = self.says.get(name, hashlib.sha256(content).hexdigest())
            lfs = SimpleNamespace(sha256=known) if name.endswith(".parquet") else None
            blob_id = self.says.get(name, hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())
            siblings.append(SimpleNamespace(rfilename=name, size=len(content), blob_id=blob_id, lfs=lfs))
        return SimpleNamespace(sha=commit, siblings=siblings)

    def snapshot_download(
        self, repository: str, *, repo_type: str, revision: str, local_dir: Path, allow_patterns: list[str]
    ) -> str:
        assert repo_type == "dataset"
        for number, name in enumerate(allow_patterns):
            if number == self.fails_after:
                raise ConnectionError("the cable was pulled")
            (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.commit(revision) / name, local_dir / name)
        return str(local_dir)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    for switch in OFFLINE_VARIABLES:
        monkeypatch.delenv(switch, raising=False)
    fake = FakeHub(tmp_path / "hub")
    for commit, count in ((OLD, 4), (NEW, 5)):
        rows = [{"img": picture(image), "label": 1} for image in fake_pictures(count, 8)]
        for split in ("test", "train"):
            write_shards(fake.commit(commit) / "plain_text", split, rows, shards=2, image_column="img")
        (fake.commit(commit) / "README.md").write_text("about")
    monkeypatch.setattr(huggingface_hub, "dataset_info", fake.dataset_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


def fetch(capfd: pytest.CaptureFixture, root: Path, *words: str, name: str = "cifar10") -> tuple[int, str]:
    """Returns the exit code and everything said; an error has at most three lines."""
    form = ["--form", "hub"] if name == "cifar10" else []
    code = main(["data", "fetch", name, "--root", str(root / "data"), *form, *words])
    captured = capfd.readouterr()
    assert len(captured.err.strip().split("\n")) <= 3
    return code, captured.out + captured.err


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_first_fetch_pins_the_commit_and_every_hash(tmp_path: Path, hub: FakeHub, capfd) -> None:
    code, said = fetch(capfd, tmp_path)
    assert code == ExitCode.DONE
    assert f"uoft-cs/cifar10 at {OLD}" in said
    folder = tmp_path / "data" / "cifar10"
    record = json.loads((folder / "source.json").read_text())
    assert (record["revision"], record["form"], record["source"]) == (OLD, "hub", "uoft-cs/cifar10")
    fetched = {name: content for name, content in files_below(folder).items() if name != "source.json"}
    assert record["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in fetched.items()}
    assert len(fetched) == 4  # the README is not asked for
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["cifar10"]  # nothing half-done is left
    assert len(CIFAR10(str(folder), "plain").questions()) == 4


def test_later_fetches_stay_at_the_commit_and_repair(tmp_path: Path, hub: FakeHub, capfd, monkeypatch) -> None:
    fetch(capfd, tmp_path)
    folder = tmp_path / "data" / "cifar10"
    before = files_below(folder)
    hub.newest = NEW
    asked = len(hub.asked)
    code, said = fetch(capfd, tmp_path)
    assert (code, len(hub.asked)) == (ExitCode.DONE, asked)
    assert "complete: " in said
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(capfd, tmp_path)[0] == ExitCode.DONE
    monkeypatch.delenv("HF_HUB_OFFLINE")
    damaged = folder / "plain_text" / "test-00000-of-00002.parquet"
    damaged.write_bytes(b"damaged")
    code, said = (
        main(["check", "--benchmarks", "cifar10", "--data.root", str(tmp_path / "data")]),
        capfd.readouterr().out,
    )
    assert code == ExitCode.BAD_INPUT
    assert "1 of 4 fetched files are missing or changed: plain_text/test-00000-of-00002.parquet" in said
    assert fetch(capfd, tmp_path)[0] == ExitCode.DONE
    assert files_below(folder) == before
    assert hub.asked[-1] == f"uoft-cs/cifar10@{OLD}"


def test_another_revision_only_on_purpose(tmp_path: Path, hub: FakeHub, capfd) -> None:
    fetch(capfd, tmp_path)
    folder = tmp_path / "data" / "cifar10"
    (folder / "notes.txt").write_text("mine")
    (hub.commit(NEW) / "plain_text" / "train-00001-of-00002.parquet").unlink()
    code, said = fetch(capfd, tmp_path, "--revision", NEW)
    assert code == ExitCode.DONE
    assert f"the revision was {OLD}" in said
    assert json.loads((folder / "source.json").read_text())["revision"] == NEW
    assert len(CIFAR10(str(folder), "plain").questions()) == 5
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "plain_text" / "train-00001-of-00002.parquet").exists()
    hub.newest = NEW
    assert fetch(capfd, tmp_path, "--revision", "main")[0] == ExitCode.DONE
    code, said = fetch(capfd, tmp_path, "--revision", "c" * 40)
    assert code == ExitCode.BAD_INPUT
    assert "there is no such repository or revision" in said


def test_a_copy_of_the_repository_is_remembered(tmp_path: Path, hub: FakeHub, capfd) -> None:
    assert fetch(capfd, tmp_path, "--repository", "someone/cifar10")[0] == ExitCode.DONE
    (tmp_path / "data" / "cifar10" / "plain_text" / "test-00000-of-00002.parquet").unlink()
    assert fetch(capfd, tmp_path)[0] == ExitCode.DONE
    assert hub.asked == [f"someone/cifar10@{OLD}"] * 2
    code, said = fetch(capfd, tmp_path, "--repository", "uoft-cs/cifar10")
    assert code == ExitCode.BAD_INPUT
    assert "the set is there already, from someone/cifar10" in said


def test_a_commit_whose_content_changed_is_refused(tmp_path: Path, hub: FakeHub, capfd) -> None:
    fetch(capfd, tmp_path)
    folder = tmp_path / "data" / "cifar10"
    name = "plain_text/test-00000-of-00002.parquet"
    (folder / name).unlink()
    (hub.commit(OLD) / name).write_bytes((hub.commit(NEW) / name).read_bytes())
    before = files_below(folder)
    code, said = fetch(capfd, tmp_path)
    assert code == ExitCode.BAD_INPUT
    assert f"1 files, such as {name}, at the source differ from what was fetched first" in said
    assert files_below(folder) == before


def test_a_file_that_is_not_what_the_hub_says_is_refused(tmp_path: Path, hub: FakeHub, capfd) -> None:
    hub.says["plain_text/test-00000-of-00002.parquet"] = "0" * 64
    code, said = fetch(capfd, tmp_path)
    assert code == ExitCode.BAD_INPUT
    assert "not what the hub says it is" in said
    assert not (tmp_path / "data" / "cifar10").exists()
    hub.says.clear()
    assert fetch(capfd, tmp_path)[0] == ExitCode.DONE
    # Git keeps small files itself: the hub says its id of them, the SHA-1 of `blob`, their size and their content.
    (hub.commit(OLD) / "test.jsonl").write_bytes(b"hello\n")
    hub.says["test.jsonl"] = "0" * 40
    code, said = fetch(capfd, tmp_path, name="vsr")
    assert code == ExitCode.BAD_INPUT
    assert "6 bytes with Git id 0000" in said
    assert not (tmp_path / "data" / "vsr").exists()
    hub.says["test.jsonl"] = "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    assert fetch(capfd, tmp_path, name="vsr")[0] == ExitCode.DONE


def test_an_interrupted_fetch_leaves_nothing_in_place_and_goes_on(tmp_path: Path, hub: FakeHub, capfd) -> None:
    hub.fails_after = 2
    code, said = fetch(capfd, tmp_path)
    assert code == ExitCode.ENVIRONMENT
    assert "the cable was pulled" in said
    assert not (tmp_path / "data" / "cifar10").exists()
    assert len(files_below(tmp_path / "data" / ".cifar10.partial")) == 2
    hub.fails_after = None
    assert fetch(capfd, tmp_path)[0] == ExitCode.DONE


def test_a_silent_hub_library_cannot_pass_half_a_set_off_as_whole(
    tmp_path: Path, hub: FakeHub, capfd, monkeypatch
) -> None:
    # Without a connection snapshot_download returns what is in its folder, complete or not.
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repository, **options: str(options["local_dir"]))
    code, said = fetch(capfd, tmp_path)
    assert code == ExitCode.BAD_INPUT
    assert "the file was not fetched" in said


def test_other_peoples_files_are_never_replaced(tmp_path: Path, hub: FakeHub, capfd) -> None:
    path = tmp_path / "data" / "cifar10" / "plain_text" / "test-00000-of-00002.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    code, said = fetch(capfd, tmp_path)
    assert code == ExitCode.BAD_INPUT
    assert "which was not fetched" in said
    assert path.read_bytes() == b"mine"
    assert not (tmp_path / "data" / "cifar10" / "source.json").exists()


def test_a_file_where_the_folder_should_be_is_refused_before_anything_is_asked(tmp_path: Path, hub, capfd) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10").write_text("mine")
    code, said = fetch(capfd, tmp_path)
    assert (code, hub.asked) == (ExitCode.BAD_INPUT, [])
    assert "this is no folder" in said
    assert "--root" in said


def test_without_a_network_three_lines_say_so(tmp_path: Path, hub: FakeHub, capfd, monkeypatch) -> None:
    for switch in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(switch, "1")
        for words in ((), ("--form", "original")):
            code, said = fetch(capfd, tmp_path, *words)
            assert code == ExitCode.ENVIRONMENT
            assert f"{switch}=1: nothing can be fetched without a network" in said
        monkeypatch.delenv(switch)
    assert hub.asked == []

    for reason in (OfflineModeIsEnabled("no network"), HTTPError("Name or service not known")):

        def offline(*arguments: object, reason: Exception = reason, **options: object) -> None:
            raise reason

        for function in ("snapshot_download", "dataset_info"):
            monkeypatch.setattr(huggingface_hub, function, offline)
            code, said = fetch(capfd, tmp_path)
            assert code == ExitCode.ENVIRONMENT
            assert "the hub cannot be reached" in said
        monkeypatch.setattr(huggingface_hub, "dataset_info", hub.dataset_info)


def test_a_full_disk_is_noticed_before_anything_is_fetched(tmp_path: Path, hub: FakeHub, capfd, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    code, said = fetch(capfd, tmp_path)
    assert code == ExitCode.ENVIRONMENT
    assert "10 free bytes" in said
    assert files_below(tmp_path / "data") == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not valid JSON"),
        ('{"format": 2, "files": {}}', "format: the format is 2"),
        (
            '{"format": 1, "set": "x", "form": "hub", "source": "x", "revision": "x", "files": {"../a": "0"}}',
            "leads out",
        ),
        ('{"format": 1, "files": []}', "files: the record is a list"),
        (
            '{"format": 1, "set": "cifar10", "form": "x", "source": "x", "revision": "x", "files": {}}',
            "the record is of 'cifar10' in the form 'x'",
        ),
        (
            '{"format": 1, "set": "mme", "form": "hub", "source": "x", "revision": "x", "files": {}}',
            "the record is of 'mme' in the form 'hub'",
        ),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, hub: FakeHub, capfd, content: str, expected: str) -> None:
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    (tmp_path / "data" / "cifar10" / "source.json").write_text(content)
    code, said = fetch(capfd, tmp_path)
    assert code == ExitCode.BAD_INPUT
    assert expected in said


def test_what_may_not_be_fetched_is_explained(tmp_path: Path, hub: FakeHub, capfd) -> None:
    code, said = fetch(capfd, tmp_path, name="mme")
    assert code == ExitCode.DONE
    assert f"{tmp_path}/data/mme/<subtask>/" in said
    assert f"m2pt check --benchmarks mme --data.root {tmp_path}/data" in said
    assert hub.asked == []
    code, said = fetch(capfd, tmp_path, "--form", "original", name="mme")
    assert code == ExitCode.BAD_INPUT
    assert "mme cannot be fetched in the form 'original'" in said
    (hub.commit(OLD) / "test.jsonl").write_text("{}\n")
    code, said = fetch(capfd, tmp_path, name="vsr")
    assert code == ExitCode.DONE
    assert f"Unpack them as {tmp_path}/data/vsr/images/train2017" in said
    assert (tmp_path / "data" / "vsr" / "test.jsonl").exists()


def cifar_archive(path: Path) -> str:
    """Writes CIFAR-10's archive with invented pictures and returns its MD5 sum."""
    CIFAR10.write_fake(path.parent / "unpacked")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(path.parent / "unpacked" / "cifar-10-batches-py", "cifar-10-batches-py")
    path.write_bytes(content.getvalue())
    return hashlib.md5(content.getvalue()).hexdigest()


def test_archives_are_checked_by_torchvisions_sums_and_unpacked(
    tmp_path: Path, hub: FakeHub, capfd, monkeypatch
) -> None:
    from torchvision import datasets
    from torchvision.datasets import utils

    assert datasets.CIFAR10.tgz_md5 == "c58f30108f718f92721af3b95e74349a"
    assert datasets.CIFAR100.tgz_md5 == "eb9058c3a382ffc7106e4002c42a8d85"
    archive = tmp_path / "made.tar.gz"
    checksum = cifar_archive(archive)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(utils, "_urlretrieve", lambda url, filename: shutil.copy(archive, filename))
    words = ["data", "fetch", "cifar10", "--root", str(tmp_path / "data")]
    assert main(words) == ExitCode.ENVIRONMENT
    assert "cifar-10-python.tar.gz cannot be fetched: RuntimeError" in capfd.readouterr().err
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", checksum)
    assert main(words) == ExitCode.DONE
    folder = tmp_path / "data" / "cifar10"
    assert len(CIFAR10(str(folder), "plain").questions()) == 6
    record = json.loads((folder / "source.json").read_text())
    assert record["revision"] == f"md5:{checksum}"
    assert set(record["files"]) == {"cifar-10-batches-py/test_batch", "cifar-10-batches-py/batches.meta"}
    assert main([*words, "--revision", "main"]) == ExitCode.BAD_INPUT
    assert main([*words, "--form", "hub"]) == ExitCode.BAD_INPUT
    assert "the set is there already in the form 'original'" in capfd.readouterr().err


def test_mnist_comes_as_four_compressed_files_from_any_mirror(tmp_path: Path, hub: FakeHub, monkeypatch) -> None:
    from torchvision import datasets
    from torchvision.datasets import utils

    MNIST.write_fake(tmp_path / "made")
    resources, contents = [], {}
    for path in sorted((tmp_path / "made").iterdir()):
        contents[f"{path.name}.gz"] = gzip.compress(path.read_bytes())
        resources.append((f"{path.name}.gz", hashlib.md5(contents[f"{path.name}.gz"]).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["https://gone.org/", "https://here.org/"])

    def retrieve(url: str, filename: str) -> None:
        if "gone" in url:
            raise OSError("404")
        Path(filename).write_bytes(contents[Path(filename).name])

    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(utils, "_urlretrieve", retrieve)
    assert main(["data", "fetch", "mnist", "--root", str(tmp_path / "data")]) == ExitCode.DONE
    assert len(MNIST(str(tmp_path / "data" / "mnist"), "plain").questions()) == 6


def test_the_stand_ins_take_what_the_library_takes(hub: FakeHub) -> None:
    for function in ("dataset_info", "snapshot_download"):
        theirs = inspect.signature(getattr(huggingface_hub.HfApi, function)).parameters
        assert set(inspect.signature(getattr(FakeHub, function)).parameters) - {"repository"} <= set(theirs)


def test_make_data_fetches_only_with_a_set() -> None:
    for words, expected in ((["data"], "m2pt data testbed"), (["data", "SET=vsr"], "m2pt data fetch vsr")):
        shown = subprocess.run(["make", "--dry-run", *words], capture_output=True, text=True, check=True).stdout
        assert expected in shown
