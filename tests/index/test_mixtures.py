"""A mixture from its index is the mixture that was read; each of its sets is kept for itself, too."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_modules.conversations import Conversations
from data_modules.mixture import Mixture, samples_of_sets
from data_modules.vision_flan import ANNOTATION_FILE, VisionFlan
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import mistakes_of
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.testing.small_processor import small_processor
from tests.index.test_indexed_sets import OfMemory, batches_of, numbers_of

SETTINGS: dict[str, Any] = {"template": "vicuna_v1", "batch_size": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    VisionFlan.write_fake(tmp_path / "flan")
    Conversations.write_fake(tmp_path / "own")
    return tmp_path


def mixture(folder: Path, *, index: bool = True, own: dict[str, Any] | None = None, **options: Any) -> Mixture:
    """A mixture that is checked as before every training."""
    sets = [
        VisionFlan(str(folder / "flan"), questions_per_sample=2, validation_fraction=0.4, **SETTINGS),
        Conversations(str(folder / "own" / "records.jsonl"), **SETTINGS, **(own or {})),
    ]
    kept = {"index_folder": str(folder / "index")} if index else {"index": False}
    made = Mixture(sets, **{**SETTINGS, "order_seed": 3, **kept, **options})
    made.connect(small_processor(8))
    made.check()
    made.fingerprint()
    return made


def indexes(folder: Path, kind: str) -> int:
    return len(list((folder / "index").glob(f"{kind}*.safetensors")))


def without_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conversations, "read", lambda _: pytest.fail("read"))
    monkeypatch.setattr(Mixture, "read", lambda _: pytest.fail("mixed"))
    monkeypatch.setattr(Processor, "encode_each", lambda *_, **__: pytest.fail("encoded"))


@pytest.mark.parametrize("options", [{}, {"weights": [1, 3], "group_by_length": 2}, {"sizes": [5, 9]}], ids=str)
def test_a_mixture_from_its_index_is_the_one_that_was_read(folder: Path, monkeypatch, capsys, options: dict) -> None:
    read = mixture(folder, index=False, **options)
    expected, said = numbers_of(read), capsys.readouterr().out
    assert numbers_of(mixture(folder, **options)) == expected
    assert capsys.readouterr().out == said
    without_reading(monkeypatch)
    second = mixture(folder, **options)
    assert capsys.readouterr().out == said
    assert "note: records: records.jsonl: 8 records" in said
    assert "an epoch takes" in said
    assert numbers_of(second) == expected
    assert (second.epoch_size, second.state_dict()) == (read.epoch_size, read.state_dict())
    for ours, theirs in zip(batches_of(second), batches_of(read), strict=True):
        assert (ours.sample_ids, ours.tasks) == (theirs.sample_ids, theirs.tasks)
        assert ours.input_ids.equal(theirs.input_ids)
        assert ours.pixel_values.equal(theirs.pixel_values)


def test_a_set_that_has_not_changed_is_not_read_again_for_another_mixture(folder: Path, monkeypatch) -> None:
    mixture(folder)
    assert indexes(folder, "samples") == 3
    records = json.loads((folder / "flan" / ANNOTATION_FILE).read_text())
    records[3]["conversations"][1]["value"] = "red"
    (folder / "flan" / ANNOTATION_FILE).write_text(json.dumps(records))
    reads = []
    read = Conversations.read
    monkeypatch.setattr(Conversations, "read", lambda self: reads.append(type(self)) or read(self))
    changed = mixture(folder, sizes=[3, 4])
    assert reads == [VisionFlan]
    assert numbers_of(changed) == numbers_of(mixture(folder, index=False, sizes=[3, 4]))
    assert indexes(folder, "samples") == 5
    del reads[:]
    assert mixture(folder, names=["a", "b"]).items()[0].id.startswith("a/")
    assert reads == []


def test_other_shares_need_no_other_index(folder: Path, monkeypatch) -> None:
    mixture(folder)
    without_reading(monkeypatch)
    assert mixture(folder, sizes=[3, 7]).epoch_size.taken == (3, 7)
    assert mixture(folder, weights=[1, 1]).epoch_size.sizes == mixture(folder).epoch_size.sizes


def test_a_set_that_names_no_files_leaves_the_others_theirs(folder: Path, monkeypatch) -> None:
    def with_own() -> Mixture:
        sets = [VisionFlan(str(folder / "flan"), **SETTINGS), OfMemory(str(folder / "flan"), **SETTINGS)]
        made = Mixture(sets, **SETTINGS, order_seed=3, index_folder=str(folder / "index"))
        made.connect(small_processor(8))
        made.check()
        return made

    first = with_own()
    assert indexes(folder, "samples") == 1
    monkeypatch.setattr(VisionFlan, "read", lambda _: pytest.fail("read"))
    assert numbers_of(with_own()) == numbers_of(first)
    monkeypatch.setattr(OfMemory, "answer", "blue")
    assert with_own().items()[-1].turns[0].answer == "blue"


def test_mistakes_of_all_sets_are_told_once(folder: Path) -> None:
    records = json.loads((folder / "flan" / ANNOTATION_FILE).read_text())
    records[3]["task_name"] = []
    (folder / "flan" / ANNOTATION_FILE).write_text(json.dumps(records))
    (folder / "own" / "records.jsonl").open("a").write('{"messages": []}\n')
    for _ in range(2):
        with pytest.raises(BadInputError) as caught:
            mixture(folder)
        assert len(mistakes_of(caught.value)) == 2
    assert indexes(folder, "samples") == 0


def test_samples_are_counted_by_the_names_in_front_of_them() -> None:
    ids = ["a/0", "a/1/x", "c/0", "c/1", "c/2", "b/0"]
    assert samples_of_sets(ids, 5, ["a", "b", "c"]) == (2, 0, 3)
    assert samples_of_sets([], 0, ["a"]) == (0,)
