"""An instruction set from its index is the set that was read, to the last number; whatever decides it makes another."""

import gc
import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import numpy
import pytest
import torch
from PIL import Image

from data_modules.base import items_fingerprint
from data_modules.index import picture_table
from data_modules.instruction import InstructionDataModule
from data_modules.training_samples import SampleDataset
from data_modules.vision_flan import VisionFlan
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.inputs.images import upright_size
from lightning_m2pt.inputs.picture_layout import ONE_RUN, PictureLayout, RunRows
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.inputs.samples import ImageSource, Sample, Turn
from lightning_m2pt.testing.small_processor import small_processor

ANNOTATION = "annotation_191-task_1k.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    VisionFlan.write_fake(tmp_path / "set")
    return tmp_path / "set"


def module(root: Path, **options: object) -> VisionFlan:
    arguments: dict = {"template": "vicuna_v1", "batch_size": 4, "order_seed": 1} | options
    made = VisionFlan(str(root), **arguments)
    made.connect(small_processor(8))
    return made


def kept(root: Path, **options: object) -> VisionFlan:
    """A set that is checked as before every training, with an index beside it."""
    made = module(root, index_folder=str(root.parent / "index"), **options)
    made.check()
    made.fingerprint()
    return made


def indexes(root: Path, kind: str = "") -> list[Path]:
    return sorted((root.parent / "index").glob(f"{kind}*.safetensors"))


def without_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing may be read, tokenised or opened."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("not from the index")

    monkeypatch.setattr(VisionFlan, "read", never)
    monkeypatch.setattr(Processor, "encode_each", never)
    monkeypatch.setattr("data_modules.base.check_image", never)
    monkeypatch.setattr("data_modules.index.indexed_set.table_fingerprint", never)


def numbers_of(data: InstructionDataModule) -> list:
    """Everything of a set that can decide a number of a run."""
    texts = [*data.train_texts, *data.validation_texts]
    return [
        [[text.input_ids.tolist(), text.spans.tolist()] for text in texts],
        list(data.items()),
        [list(part) for part in data.read_once()],
        data.training_tasks(),
        data.fingerprint(),
        data.sampler(0, 1).positions().tolist(),
        data.largest_micro_batch(1, RunRows(16, 3)),
        [data.tokens_of_step(epoch, step) for epoch in range(2) for step in range(data.steps_per_epoch())],
        [data.pictures_of_step(epoch, step) for epoch in range(2) for step in range(data.steps_per_epoch())],
    ]


def batches_of(data: InstructionDataModule) -> list:
    loaders = [data.train_dataloader(), *data.val_dataloader()]
    return [batch for loader in loaders for batch in loader]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"validation_fraction": 0.4, "group_by_length": 2, "micro_batch_size": 2},
        {"questions_per_sample": 2, "batch_size": 2, "template": "plain"},
        {"num_workers": 1},
    ],
    ids=str,
)
def test_a_set_from_its_index_is_the_set_that_was_read(root: Path, monkeypatch, options: dict) -> None:
    read = module(root, **options)
    read.check()
    expected = numbers_of(read)
    assert numbers_of(kept(root, **options)) == expected
    without_reading(monkeypatch)
    second = kept(root, **options)
    assert numbers_of(second) == expected
    assert read.fingerprint() == items_fingerprint(list(read.items()))
    for ours, theirs in zip(batches_of(second), batches_of(read), strict=True):
        assert ours.sample_ids == theirs.sample_ids
        assert ours.tasks == theirs.tasks
        for name in ("input_ids", "labels", "spans", "pixel_values", "step_supervised_tokens"):
            mine, other = getattr(ours, name), getattr(theirs, name)
            assert torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other


def test_what_is_resumed_from_an_index_goes_on_with_the_same_samples(root: Path, monkeypatch) -> None:
    read = module(root, micro_batch_size=2)
    loader = read.train_dataloader()
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    state = loader.state_dict()
    kept(root, micro_batch_size=2)
    without_reading(monkeypatch)
    resumed = kept(root, micro_batch_size=2).train_dataloader()
    resumed.load_state_dict(state)
    assert [batch.sample_ids for batch in resumed] == [batch.sample_ids for batch in batches]


def test_a_changed_annotation_makes_another_index(root: Path) -> None:
    kept(root)
    records = json.loads((root / ANNOTATION).read_text())
    records[3]["conversations"][1]["value"] = "red"
    before = (root / ANNOTATION).stat()
    (root / ANNOTATION).write_text(json.dumps(records, ensure_ascii=False, indent=0))
    os.utime(root / ANNOTATION, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = kept(root)
    assert changed.items()[3].turns[0].answer == "red"
    assert numbers_of(changed) == numbers_of(ready(module(root)))
    assert len(indexes(root, "samples")) == len(indexes(root, "texts")) == 2


def ready(data: VisionFlan) -> VisionFlan:
    data.check()
    return data


@pytest.mark.parametrize(
    "options",
    [{"template": "plain"}, {"validation_fraction": 0.4}, {"questions_per_sample": 2}, {"skip_empty_answers": True}],
    ids=str,
)
def test_another_setting_makes_another_index(root: Path, options: dict) -> None:
    kept(root)
    assert numbers_of(kept(root, **options)) == numbers_of(ready(module(root, **options)))
    assert numbers_of(kept(root)) == numbers_of(ready(module(root)))


def test_another_tokenizer_makes_other_tokens(root: Path) -> None:
    kept(root)
    tokenizer = small_processor(8).tokenizer
    tokenizer.add_tokens(["number"])
    other = module(root, index_folder=str(root.parent / "index"))
    other.connect(Processor(tokenizer, 8, (0.5,) * 3, (0.5,) * 3))
    other.check()
    assert other.train_texts[0].input_ids.max() == len(tokenizer) - 1
    assert len(indexes(root, "texts")) == 2


def test_what_a_batch_is_made_of_makes_no_other_index(root: Path, monkeypatch) -> None:
    kept(root)
    without_reading(monkeypatch)
    kept(root, batch_size=2, micro_batch_size=1, num_workers=2, order_seed=5, group_by_length=3)


def test_other_code_makes_another_index(root: Path, monkeypatch) -> None:
    kept(root)
    monkeypatch.setattr("data_modules.index.identity.code_digest", lambda _kind: "other")
    monkeypatch.setattr("data_modules.index.indexed_set.code_digest", lambda _kind: "other")
    kept(root)
    assert [len(indexes(root, kind)) for kind in ("samples", "texts")] == [2, 2]


def test_a_changed_picture_is_opened_again_and_others_are_not(root: Path, monkeypatch) -> None:
    kept(root)
    picture = root / "images_191task_1k" / "fake_3.png"
    content = picture.read_bytes()
    for changed in (content[: len(content) // 2], bytes(len(content))):  # of the same size it has another time
        picture.write_bytes(changed)
        with pytest.raises(BadInputError, match=r"fake_3\.png"):
            kept(root)
    picture.write_bytes(content)
    renewed = kept(root)
    assert renewed.fingerprint() == module(root).fingerprint()
    picture.unlink()
    with pytest.raises(BadInputError, match=r"1 of 8 images are missing.*fake_3\.png"):
        kept(root)
    monkeypatch.setattr(picture_table, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(picture_table, "ASKED_FIRST", 3)
    with pytest.raises(BadInputError, match=r"1 of 8 images are missing.*fake_3\.png"):
        kept(root)


def test_every_picture_is_opened_where_somebody_asks_for_it(root: Path, monkeypatch) -> None:
    kept(root)
    opened = []
    monkeypatch.setattr("data_modules.base.check_image", lambda image, *_: opened.append(image))
    kept(root)
    assert opened == []
    module(root, index_folder=str(root.parent / "index")).check(decode=True)
    assert len(opened) == 8


@pytest.mark.parametrize("kind", ["samples", "texts", "fingerprint"])
@pytest.mark.parametrize("place", [3, 40, -1, None], ids=["length", "header", "content", "cut off"])
def test_a_damaged_index_is_noticed_and_written_again(root: Path, kind: str, place: int | None) -> None:
    expected = numbers_of(kept(root))
    (path,) = indexes(root, kind)
    whole = path.read_bytes()
    damaged = bytearray(whole[: len(whole) // 2] if place is None else whole)
    if place is not None:
        damaged[place] ^= 1
    path.write_bytes(damaged)
    assert numbers_of(kept(root)) == expected
    assert path.read_bytes() == whole


def test_two_at_once_write_one(root: Path, monkeypatch) -> None:
    reads = []
    read = VisionFlan.read
    monkeypatch.setattr(VisionFlan, "read", lambda self: reads.append(self) or read(self))
    modules = [module(root, index_folder=str(root.parent / "index")) for _ in range(4)]
    threads = [Thread(target=each.setup) for each in modules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1
    assert all(numbers_of(each) == numbers_of(modules[0]) for each in modules)
    assert not list((root.parent / "index").glob(".*"))


def test_a_full_disk_ends_in_three_lines_and_leaves_nothing(root: Path, monkeypatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_m2pt.system.atomic_files.os.fsync", full)
    with pytest.raises(EnvironmentFailure, match="No space left") as caught:
        kept(root)
    assert len(str(caught.value).split("\n")) == 3
    assert "data.index: false" in str(caught.value)
    assert list((root.parent / "index").iterdir()) == []
    module(root, index=False, index_folder=str(root.parent / "index")).check()


def test_a_folder_that_cannot_be_written_is_named(root: Path, caplog, monkeypatch) -> None:
    (root.parent / "file").write_text("")
    with pytest.raises(EnvironmentFailure, match=r"data\.index_folder"):
        module(root, index_folder=str(root.parent / "file" / "inside")).check()
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "file"))
    monkeypatch.setattr("data_modules.instruction.LARGE_BYTES", 1)
    monkeypatch.setattr("data_modules.instruction.LARGE_SAMPLES", 1)
    module(root).check()
    assert "cannot be written" in caplog.text


def test_small_sets_keep_nothing_and_large_ones_do_so_in_the_users_cache(root: Path, monkeypatch) -> None:
    cache = root.parent / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    module(root).check()
    assert not cache.exists()
    monkeypatch.setattr("data_modules.instruction.LARGE_BYTES", 1)
    module(root).check()
    kinds = sorted(path.name.partition("-")[0] for path in (cache / "m2pt" / "sets").iterdir())
    assert kinds == ["pictures", "samples", "texts"]


def test_a_set_with_a_mistake_leaves_no_index(root: Path) -> None:
    records = json.loads((root / ANNOTATION).read_text())
    records[2]["task_name"] = []
    (root / ANNOTATION).write_text(json.dumps(records))
    for _ in range(2):
        with pytest.raises(BadInputError, match="task_name"):
            kept(root)
    assert indexes(root) == []


def test_a_text_that_is_too_long_leaves_no_tokens(root: Path) -> None:
    for _ in range(2):
        with pytest.raises(BadInputError, match=r"has 4\d tokens"):
            kept(root, max_text_length=30)
    assert indexes(root, "texts") == []


def test_tokens_of_a_wider_limit_are_not_those_of_a_narrower_one(root: Path) -> None:
    kept(root)
    with pytest.raises(BadInputError, match=r"has 4\d tokens"):
        kept(root, max_text_length=30)


class ByWidth(Processor):
    """A picture has as many rows as columns of pixels."""

    def layouts(self, sources: Sequence[ImageSource], where: str = "") -> list[PictureLayout]:
        return [PictureLayout(ONE_RUN.token_ids, (upright_size(source, where)[0],)) for source in sources]

    def identity(self) -> dict[str, object] | None:
        return self._identity() | {"rows": "width"}


def test_a_picture_of_another_size_has_another_layout(root: Path) -> None:
    small = small_processor(8)

    def rows() -> list[int]:
        made = module(root, index_folder=str(root.parent / "index"))
        made.connect(ByWidth(small.tokenizer, 8, (0.5,) * 3, (0.5,) * 3))
        made.check()
        return made._layouts(0).rows(made.train_texts, RunRows(1)).tolist()

    first = rows()
    assert rows() == first
    Image.new("RGB", (70, 8)).save(root / "images_191task_1k" / "fake_3.png")
    changed = rows()
    assert [number for number, (one, other) in enumerate(zip(first, changed, strict=True)) if one != other] == [6, 7]
    assert len(indexes(root, "layouts")) == 2


class OfMemory(InstructionDataModule):
    """A set of one's own, which says nothing of its files."""

    answer = "red"

    def read(self) -> tuple[list[Sample], list[Sample]]:
        picture = self.root / "images_191task_1k" / "fake_0.png"
        turns = (Turn("what color ?", self.answer),)
        return [Sample(str(n), picture, picture.name, turns, ("t",), f"line {n}") for n in range(8)], []

    @staticmethod
    def write_fake(root: Path) -> None:
        VisionFlan.write_fake(root)


def test_a_set_that_names_no_files_is_read_and_its_tokens_are_kept(root: Path, monkeypatch) -> None:
    def own() -> OfMemory:
        made = OfMemory(str(root), "plain", 4, order_seed=1, index_folder=str(root.parent / "index"))
        made.connect(small_processor(8))
        made.check()
        made.fingerprint()
        return made

    first = own()
    assert indexes(root, "samples") == []
    without_reading(monkeypatch)
    assert numbers_of(own()) == numbers_of(first)
    monkeypatch.undo()
    monkeypatch.setattr(OfMemory, "answer", "blue")
    assert not numpy.array_equal(own().train_texts[0].input_ids, first.train_texts[0].input_ids)


def test_what_is_sent_to_a_worker_is_the_place_of_the_index(root: Path) -> None:
    data = kept(root)
    sent = pickle.dumps((data.read_once()[0], data.train_texts))
    assert len(sent) < 1000
    samples, texts = pickle.loads(sent)
    dataset = SampleDataset(samples, texts, data.processor)
    assert dataset[5].sample_id == data.items()[5].id
    assert dataset[5].text.input_ids.tolist() == data.train_texts[5].input_ids.tolist()
    for path in indexes(root):
        path.unlink()
    with pytest.raises(EnvironmentFailure, match="removed"):
        pickle.loads(sent)
    assert list(data.items()) == list(module(root).items())  # what is mapped stays


def test_garbage_is_collected_again_after_a_set_was_read_or_refused(root: Path, monkeypatch) -> None:
    seen = []
    read = VisionFlan.read
    monkeypatch.setattr(VisionFlan, "read", lambda self: seen.append(gc.isenabled()) or read(self))
    module(root).check()
    assert (seen, gc.isenabled()) == ([False], True)
    (root / ANNOTATION).write_text("[1]")
    with pytest.raises(BadInputError):
        module(root).check()
    assert gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(BadInputError):
            module(root).check()
        assert not gc.isenabled()
    finally:
        gc.enable()
