"""What holds for every benchmark: official layout to questions to loaders to scores."""

import gzip
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from data_modules.benchmark import BenchmarkDataModule
from data_modules.cifar10 import CIFAR10, write_cifar10
from data_modules.cifar100 import CIFAR100
from data_modules.mme import MME
from data_modules.mnist import MNIST
from data_modules.multiple_choice import MultipleChoice
from data_modules.pope import POPE
from data_modules.snli_ve import SNLIVE
from data_modules.text_vqa import TextVQA
from data_modules.vsr import VSR, VSRItem, write_vsr
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.metrics.closed_set import closed_set
from lightning_m2pt.testing.set_contract import set_contract
from lightning_m2pt.testing.small_processor import small_processor
from tests.support.data_fixtures import fake_pictures

BENCHMARKS = [MME, VSR, SNLIVE, POPE, CIFAR10, CIFAR100, MNIST, TextVQA, MultipleChoice]
QUESTIONS_IN_FAKE = dict.fromkeys([benchmark.name for benchmark in BENCHMARKS], 6) | {"mme": 12, "pope": 12}


OPTIONAL = {"pope": [f"coco_pope_{split}.json" for split in ("random", "popular", "adversarial")]}


@pytest.fixture(params=BENCHMARKS, ids=lambda benchmark: benchmark.__name__)
def benchmark(request: pytest.FixtureRequest, tmp_path: Path) -> BenchmarkDataModule:
    request.param.write_fake(tmp_path)
    module = request.param(str(tmp_path), "vicuna_v1", batch_size=4)
    module.connect(small_processor(8))
    return module


@pytest.mark.parametrize("kind", BENCHMARKS, ids=lambda kind: kind.__name__)
def test_every_set_keeps_the_contract(kind: type[BenchmarkDataModule]) -> None:
    set_contract(lambda root: kind(root, "vicuna_v1", batch_size=3), optional=OPTIONAL.get(kind.name, ()))


def test_everything_that_is_invented_is_read(benchmark: BenchmarkDataModule) -> None:
    assert len(benchmark.questions()) == QUESTIONS_IN_FAKE[benchmark.name]


@pytest.mark.parametrize("world_size", [1, 2, 5, 50])
def test_ranks_share_out_the_batches_of_one_process(benchmark: BenchmarkDataModule, world_size: int) -> None:
    alone = [batch.sample_ids for batch in benchmark.predict_dataloader()]
    shares = []
    for rank in range(world_size):
        benchmark.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        shares.append([batch.sample_ids for batch in benchmark.predict_dataloader()])
    assert {len(share) for share in shares} == {-(-len(alone) // world_size)}
    assert {tuple(batch) for share in shares for batch in share} == set(map(tuple, alone))
    assert {name for batch in alone for name in batch} == {question.id for question in benchmark.questions()}


class Listener(LightningModule):
    """Notes which questions it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))
        self.asked: list[str] = []

    def predict_step(self, batch: Batch, batch_index: int) -> None:
        self.asked += batch.sample_ids

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.asked += batch.sample_ids


@pytest.mark.parametrize("command", ["predict", "test"])
def test_lightning_takes_the_loaders_as_they_are(benchmark: BenchmarkDataModule, command: str) -> None:
    module = Listener()
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    getattr(trainer, command)(module, datamodule=benchmark)
    assert module.asked == [name for batch in benchmark.predict_dataloader() for name in batch.sample_ids]


def test_a_limit_takes_whole_groups_spread_over_the_set(benchmark: BenchmarkDataModule) -> None:
    few = type(benchmark)(str(benchmark.root), "plain", batch_size=1, limit=5)
    ids = [question.id for question in benchmark.questions()]
    chosen = [question.id for question in few.questions()]
    assert len(chosen) == 5 - 5 % benchmark.limit_unit
    assert [name for name in ids if name in chosen] == chosen
    assert ids.index(chosen[-1]) >= len(ids) // 2
    if benchmark.limit_unit > 1:
        with pytest.raises(BadInputError, match="at least 2"):
            type(benchmark)(str(benchmark.root), "plain", batch_size=1, limit=1)


def test_mme_reads_both_layouts_alike(tmp_path: Path) -> None:
    MME.write_fake(tmp_path)
    together = MME(str(tmp_path), "plain").questions()
    folder = tmp_path / "count"
    (folder / "images").mkdir()
    (folder / "questions_answers_YN").mkdir()
    for path in [*folder.glob("*.png"), *folder.glob("*.txt")]:
        path.rename(folder / ("images" if path.suffix == ".png" else "questions_answers_YN") / path.name)
    apart = MME(str(tmp_path), "plain").questions()
    assert [(question.id, question.text) for question in apart] == [
        (question.id, question.text) for question in together
    ]


def test_pope_reads_lists_and_restarting_numbers(tmp_path: Path) -> None:
    POPE.write_fake(tmp_path)
    lines = POPE(str(tmp_path), "plain").questions()
    path = tmp_path / "coco_pope_random.json"
    path.write_text("[" + ",\n".join(path.read_text().splitlines()) + "]")
    listed = POPE(str(tmp_path), "plain").questions()
    assert [question.id for question in listed] == [question.id for question in lines]
    assert lines[0].id == "random/1"
    assert lines[4].id == "popular/1"


def test_cifar_pixels_are_planar_and_of_any_size(tmp_path: Path) -> None:
    for side in (24, 32):
        images = fake_pictures(5, side)
        write_cifar10(tmp_path, images, [0, 1, 0, 1, 0], ["cat", "dog"], split="train")
        write_cifar10(tmp_path, images[:1], [1], ["cat", "dog"])
        questions = CIFAR10(str(tmp_path), "plain", split="train").questions()
        assert all((question.image == image).all() for question, image in zip(questions, images, strict=True))
        assert [question.target for question in questions] == ["cat", "dog", "cat", "dog", "cat"]
        assert [question.target for question in CIFAR10(str(tmp_path), "plain").questions()] == ["dog"]


def test_torchvision_reads_what_we_write(tmp_path: Path) -> None:
    from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10

    class AnyCIFAR10(TorchvisionCIFAR10):
        test_list = [["test_batch", None]]
        train_list = []
        meta = TorchvisionCIFAR10.meta | {"md5": None}

    images = fake_pictures(3, 32)
    write_cifar10(tmp_path, images, [0, 1, 0], ["cat", "dog"])
    theirs = AnyCIFAR10(str(tmp_path), train=False)
    assert (theirs.data == images).all()
    assert theirs.targets == [0, 1, 0]
    assert theirs.classes == ["cat", "dog"]


def test_mnist_reads_compressed_files(tmp_path: Path) -> None:
    MNIST.write_fake(tmp_path)
    plain = MNIST(str(tmp_path), "plain").data_revision
    for path in list(tmp_path.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert MNIST(str(tmp_path), "plain").data_revision == plain


def test_mnist_compares_numerals_or_words_and_both_are_scored_alike(tmp_path: Path) -> None:
    MNIST.write_fake(tmp_path)
    numerals, words = MNIST(str(tmp_path), "plain"), MNIST(str(tmp_path), "plain", candidates="words")
    assert numerals.candidates_of(numerals.questions()[0]) == tuple("0123456789")
    assert words.candidates_of(words.questions()[0])[:3] == ("zero", "one", "two")
    assert [closed_set(word, words.classes) for word in words.candidates] == numerals.candidates
    assert words.data_revision == numerals.data_revision


def test_missing_images_are_counted_and_the_first_ten_named(tmp_path: Path) -> None:
    items = [
        VSRItem(f"{number:02d}.png", image, f"Caption {number}.", 1, "on", "a", "b")
        for number, image in enumerate(fake_pictures(15, 4))
    ]
    write_vsr(tmp_path, items)
    for number in range(12):
        (tmp_path / "images" / f"{number:02d}.png").unlink()
    for act in ("check", "setup", "fingerprint"):
        with pytest.raises(BadInputError, match="12 of 15 images are missing") as caught:
            getattr(VSR(str(tmp_path), "plain"), act)()
        message = str(caught.value)
        assert all(f"{number:02d}.png" in message for number in range(10))
        assert "10.png" not in message
        assert len(message.split("\n")) <= 3


def test_check_reads_headers_and_ends_only(tmp_path: Path) -> None:
    VSR.write_fake(tmp_path)
    path = tmp_path / "images" / "fake_0.png"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 8] ^= 255
    path.write_bytes(content)
    VSR(str(tmp_path), "plain").check()
    with pytest.raises(BadInputError, match=r"jsonl:1: .*fake_0.png: the image is damaged"):
        VSR(str(tmp_path), "plain").check(decode=True)
    path.write_bytes(b"<html>")
    with pytest.raises(BadInputError, match="HTML page"):
        VSR(str(tmp_path), "plain").check()
    assert Image.open(tmp_path / "images" / "fake_1.png").size == (32, 32)


@pytest.mark.parametrize("limit", [2, 6, 20])
def test_a_limited_pope_asks_yes_and_no_alike(tmp_path: Path, limit: int) -> None:
    """Its questions take turns: an even step over single ones would find one answer only."""
    POPE.write_fake(tmp_path)
    whole = [question.target for question in POPE(str(tmp_path), "plain", batch_size=1).questions()]
    targets = [question.target for question in POPE(str(tmp_path), "plain", batch_size=1, limit=limit).questions()]
    assert whole[::2] != whole[1::2]
    assert targets.count("yes") == targets.count("no") == min(limit, len(whole)) // 2
