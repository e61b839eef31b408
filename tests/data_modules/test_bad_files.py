"""Bad inputs: each ends in at most three lines that name the place, and changes nothing on disk."""

import gzip
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from data_modules.base import DataModule
from data_modules.cifar10 import CIFAR10
from data_modules.cifar100 import CIFAR100
from data_modules.mme import MME
from data_modules.mnist import MNIST
from data_modules.pope import POPE
from data_modules.reading.restricted_pickle import read_batch
from data_modules.snli_ve import SNLIVE
from data_modules.text_vqa import TextVQA
from data_modules.vision_flan import VisionFlan
from data_modules.vsr import VSR
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.testing.small_processor import small_processor

ANNOTATIONS = "annotation_191-task_1k.json"
IMAGES = "images_191task_1k"
TEXT_VQA = "TextVQA_0.5.1_val.json"
Spoil = Callable[[Path], object]


def write(name: str, content: str | bytes) -> Spoil:
    """Returns what overwrites a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda root: (root / name).write_bytes(data)


def cut(name: str, keep: float) -> Spoil:
    """Returns what cuts a file off."""

    def spoil(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: int(keep * len(data))])

    return spoil


def line(name: str, number: int, **changes: object) -> Spoil:
    """Returns what changes one record of a JSON lines file; the value ``...`` removes the key."""

    def spoil(root: Path) -> None:
        lines = (root / name).read_text().splitlines()
        record = json.loads(lines[number - 1]) | changes
        lines[number - 1] = json.dumps({key: value for key, value in record.items() if value is not ...}, default=str)
        (root / name).write_text("\n".join(lines))

    return spoil


def record(number: int, **changes: object) -> Spoil:
    """Returns what changes one record of Vision-Flan; the value ``...`` removes the key."""

    def spoil(root: Path) -> None:
        records = json.loads((root / ANNOTATIONS).read_text())
        changed = records[number - 1] | changes
        records[number - 1] = {key: value for key, value in changed.items() if value is not ...}
        (root / ANNOTATIONS).write_text(json.dumps(records))

    return spoil


def text_vqa_record(number: int, **changes: object) -> Spoil:
    """Returns what changes one record of TextVQA; the value ``...`` removes the key."""

    def spoil(root: Path) -> None:
        content = json.loads((root / TEXT_VQA).read_text())
        changed = content["data"][number - 1] | changes
        content["data"][number - 1] = {key: value for key, value in changed.items() if value is not ...}
        (root / TEXT_VQA).write_text(json.dumps(content))

    return spoil


def conversation(*entries: tuple[str, object]) -> dict[str, list]:
    return {"conversations": [{"from": speaker, "value": value} for speaker, value in entries]}


def link_out(folder: str, name: str) -> Spoil:
    """Returns what replaces a picture by a link to a file outside."""

    def spoil(root: Path) -> None:
        target = root.parent / (root.name + "_secret.png")
        (root / folder / name).rename(target)
        (root / folder / name).symlink_to(target)

    return spoil


VISION_FLAN = [
    (lambda root: (root / ANNOTATIONS).unlink(), f"{ANNOTATIONS}: the file does not exist"),
    (write(ANNOTATIONS, ""), f"{ANNOTATIONS}: the file is empty"),
    (write(ANNOTATIONS, b"[\xff]"), f"{ANNOTATIONS}:1: this is not UTF-8"),
    (write(ANNOTATIONS, '[\n{"id": 1},\n{"id" 2}\n]'), f"{ANNOTATIONS}:3: this is not valid JSON"),
    (write(ANNOTATIONS, "[" * 200_000), "nested too deeply"),
    (write(ANNOTATIONS, "[]"), "no sample is left"),
    (write(ANNOTATIONS, "[1]"), f"{ANNOTATIONS}: record 1: the record is a int"),
    (cut(ANNOTATIONS, 0.5), "this is not valid JSON"),
    (record(3, image=...), f"{ANNOTATIONS}: record 3: there are 1 <image> marks, and the record has no image"),
    (record(3, image=7), f"{ANNOTATIONS}: record 3: image: the picture is 7"),
    (record(3, task_name=[]), f"{ANNOTATIONS}: record 3: task_name: the value is \\[\\]"),
    (record(3, image="../secret.png"), f"{ANNOTATIONS}: record 3: image: the image name '../secret.png' leads out"),
    (record(3, image="/etc/passwd"), f"{ANNOTATIONS}: record 3: image: the image name '/etc/passwd' leads out"),
    (record(3, image="http://x.org/a.png"), "record 3: image: the picture is an address"),
    (link_out(IMAGES, "fake_1.png"), f"{ANNOTATIONS}: record 3: image: the image name 'fake_1.png' leads out"),
    (record(3, image="none.png"), "1 of 9 images are missing"),
    (record(3, conversations=[]), f"{ANNOTATIONS}: record 3: conversations"),
    (record(3, conversations=...), f"{ANNOTATIONS}: record 3: the key 'conversations' is missing"),
    (record(3, **conversation(("human", "<image>\na"))), "record 3: conversations: the last question has no answer"),
    (record(3, **conversation(("gpt", "a"), ("human", "<image>"))), "the last question has no answer"),
    (record(3, **conversation(("narrator", "a"), ("gpt", "b"))), "entry 1: the turn is from 'narrator'"),
    (record(3, **conversation(("human", "<image>\na"), ("gpt", ""))), "record 3: conversations: the answer of"),
    (record(3, **conversation(("human", "<image><image> a"), ("gpt", "b"))), "2 <image> marks for 1 image"),
    (
        record(3, **conversation(("human", "<image> a <image>"), ("gpt", "b"))),
        "words stand between the 2 <image> marks",
    ),
    (
        record(3, **conversation(("human", "<image> a"), ("gpt", "<image>"))),
        "an <image> mark stands outside of questions",
    ),
    (record(3, **conversation(("human", 3), ("gpt", "b"))), "record 3: conversations: entry 1: the value is 3"),
    (write(f"{IMAGES}/fake_1.png", ""), "record 3: .*fake_1.png: the image file is empty"),
    (write(f"{IMAGES}/fake_1.png", "<html>"), "record 3: .*fake_1.png: this is not an image"),
    (cut(f"{IMAGES}/fake_1.png", 0.5), "record 3: .*fake_1.png: the image is damaged"),
]
BENCHMARK_CASES = [
    (MME, write("count/fake_0.txt", "One?\tYes\n"), "fake_0.txt: the image 'fake_0' has 1 questions"),
    (MME, write("count/fake_0.txt", "One?\tYes\nTwo?\tNo\nThree?\tNo\n"), "has 3 questions"),
    (MME, write("count/fake_0.txt", "One?\tYes\nTwo?\tmaybe\n"), "fake_0.txt:2: the line is"),
    (MME, write("count/fake_0.txt", "One?\tYes\nTwo? No\n"), "fake_0.txt:2: the line is"),
    (MME, lambda root: (root / "animals").mkdir(), "unknown subtask folders: animals"),
    (MME, lambda root: (root / "count" / "fake_0.png").unlink(), "fake_0.txt:1: 1 of 6 images are missing"),
    (MME, lambda root: (root / "color").mkdir(), "color: the subtask has no text files"),
    (VSR, line("test.jsonl", 3, label=2), "test.jsonl:3: label: the value is 2"),
    (VSR, line("test.jsonl", 3, label=True), "test.jsonl:3: label: the value is True"),
    (VSR, line("test.jsonl", 3, label=...), "test.jsonl:3: label: the value is None"),
    (VSR, line("test.jsonl", 3, caption=""), "test.jsonl:3: caption: the text is empty"),
    (VSR, line("test.jsonl", 3, image="../a.png"), "test.jsonl:3: image: the image name"),
    (VSR, line("test.jsonl", 3, image="none.png"), "test.jsonl:3: 1 of 4 images are missing"),
    (VSR, write("test.jsonl", '{"image"\n'), "test.jsonl:1: this is not valid JSON"),
    (VSR, write("test.jsonl", "\n\n"), "test.jsonl: the file is empty"),
    (VSR, lambda root: (root / "test.jsonl").unlink(), "test.jsonl: the file does not exist"),
    (VSR, link_out("images", "fake_1.png"), "test.jsonl:3: image: the image name"),
    (SNLIVE, line("snli_ve_test.jsonl", 3, gold_label="-"), "snli_ve_test.jsonl:3: gold_label: the value is '-'"),
    (SNLIVE, line("snli_ve_test.jsonl", 3, gold_label="yes"), "snli_ve_test.jsonl:3: gold_label: the value is 'yes'"),
    (SNLIVE, line("snli_ve_test.jsonl", 3, gold_label=...), "snli_ve_test.jsonl:3: the key 'gold_label' is missing"),
    (SNLIVE, line("snli_ve_test.jsonl", 3, Flickr30K_ID=...), "jsonl:3: the key 'Flickr30K_ID' is missing"),
    (SNLIVE, line("snli_ve_test.jsonl", 3, Flickr30K_ID=7), "jsonl:3: Flickr30K_ID: the value is 7"),
    (SNLIVE, line("snli_ve_test.jsonl", 3, Flickr30K_ID="../a"), "jsonl:3: Flickr30K_ID: the image name '../a.jpg'"),
    (SNLIVE, line("snli_ve_test.jsonl", 3, Flickr30K_ID="none"), "jsonl:3: 1 of 4 images are missing: .*none.jpg"),
    (SNLIVE, line("snli_ve_test.jsonl", 3, sentence2=" "), "snli_ve_test.jsonl:3: sentence2: the text is empty"),
    (SNLIVE, line("snli_ve_test.jsonl", 3, pairID="fake_0.jpg#0r1"), "is there twice, first at .*jsonl:1"),
    (SNLIVE, link_out("flickr30k_images", "fake_1.png"), "jsonl:3: Flickr30K_ID: the image name 'fake_1.png'"),
    (TextVQA, text_vqa_record(3, answers=["a"] * 9), f"{TEXT_VQA}: record 3: answers: there are 9 answers"),
    (TextVQA, text_vqa_record(3, answers=["a"] * 9 + [1]), "record 3: answers: one of the answers is 1"),
    (TextVQA, text_vqa_record(3, answers=["a"] * 9 + ["\ud800"]), "record 3: answers: one of the answers is"),
    (TextVQA, text_vqa_record(3, answers=[" "] * 10), "record 3: answers: all answers are empty"),
    (TextVQA, text_vqa_record(3, answers=...), "record 3: answers: the value is None"),
    (TextVQA, text_vqa_record(3, question=""), "record 3: question: the text is empty"),
    (TextVQA, text_vqa_record(3, question_id=None), "record 3: question_id: the value is None"),
    (TextVQA, text_vqa_record(3, question_id=True), "record 3: question_id: the value is True"),
    (TextVQA, text_vqa_record(3, question_id=100), "'val/100' is there twice, first at .*: record 1"),
    (TextVQA, text_vqa_record(3, image_id="/a"), "record 3: image_id: the image name '/a.jpg' leads out"),
    (TextVQA, text_vqa_record(3, image_id="none"), "record 3: 1 of 4 images are missing: .*none.jpg"),
    (TextVQA, write(TEXT_VQA, "[]"), f"{TEXT_VQA}: the record is a list"),
    (TextVQA, write(TEXT_VQA, "{}"), f"{TEXT_VQA}: data: the value is None"),
    (TextVQA, write(TEXT_VQA, '{"data": [1]}'), f"{TEXT_VQA}: record 1: the record is a int"),
    (TextVQA, write(TEXT_VQA, '{"data": []}'), "the set has no questions"),
    (TextVQA, cut(TEXT_VQA, 0.5), f"{TEXT_VQA}:1: this is not valid JSON"),
    (POPE, line("coco_pope_popular.json", 2, label=""), "coco_pope_popular.json:2: label: the text is empty"),
    (POPE, line("coco_pope_popular.json", 2, label="maybe"), "coco_pope_popular.json:2: label: the value is 'maybe'"),
    (POPE, line("coco_pope_popular.json", 2, question_id=1), "'popular/1' is there twice, first at .*popular.json:1"),
    (POPE, line("coco_pope_popular.json", 2, question_id=...), "coco_pope_popular.json:2: question_id"),
    (POPE, lambda root: [path.unlink() for path in root.glob("*.json")], "none of POPE's files"),
    (CIFAR10, cut("cifar-10-batches-py/test_batch", 0.5), "test_batch: cannot be read"),
    (CIFAR10, cut("cifar-10-batches-py/batches.meta", 0.5), "batches.meta: cannot be read"),
    (CIFAR10, write("cifar-10-batches-py/test_batch", ""), "test_batch: cannot be read"),
    (CIFAR10, lambda root: (root / "cifar-10-batches-py/test_batch").unlink(), "test_batch: the file does not exist"),
    (CIFAR100, cut("cifar-100-python/test", 0.5), "test: cannot be read"),
    (CIFAR100, cut("cifar-100-python/meta", 0.5), "meta: cannot be read"),
    (CIFAR100, lambda root: (root / "cifar-100-python/meta").unlink(), "meta: the file does not exist"),
    (CIFAR100, lambda root: (root / "cifar-100-python/test").unlink(), "test: the file does not exist"),
    (MNIST, cut("t10k-images-idx3-ubyte", 0.5), "t10k-images-idx3-ubyte: the file is cut off"),
    (MNIST, cut("t10k-images-idx3-ubyte", 0.001), "t10k-images-idx3-ubyte: the file is cut off in its header"),
    (MNIST, cut("t10k-labels-idx1-ubyte", 0.9), "t10k-labels-idx1-ubyte: the file is cut off"),
    (MNIST, write("t10k-labels-idx1-ubyte", struct.pack(">2i", 2051, 6) + b"123456"), "the magic number is 2051"),
    (MNIST, write("t10k-labels-idx1-ubyte", struct.pack(">2i", 2049, 5) + b"\0\0\0\0\0"), "5 labels and 6 pictures"),
    (MNIST, write("t10k-labels-idx1-ubyte", struct.pack(">2i", 2049, 6) + b"\0\0\0\0\0\x0b"), "record 6: the label"),
]


def refused(module: DataModule, root: Path, expected: str) -> None:
    """Checks that reading everything ends in one short error and leaves the disk as it was."""

    def everything() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}

    before = everything()
    with pytest.raises(BadInputError, match=expected) as caught:
        read_everything(module)
    assert len(str(caught.value).split("\n")) <= 3
    assert everything() == before


def read_everything(module: DataModule) -> None:
    module.connect(small_processor(8))
    module.check()
    module.setup("fit")
    loaders = (module.train_dataloader(),) if isinstance(module, VisionFlan) else (module.predict_dataloader(),)
    for loader in loaders:
        for _ in loader:
            pass


@pytest.mark.parametrize(("spoil", "expected"), VISION_FLAN, ids=lambda value: value if isinstance(value, str) else "")
def test_vision_flan_refuses(tmp_path: Path, spoil: Spoil, expected: str) -> None:
    VisionFlan.write_fake(tmp_path)
    spoil(tmp_path)
    refused(VisionFlan(str(tmp_path), "plain", batch_size=4, order_seed=1), tmp_path, expected)


@pytest.mark.parametrize(
    ("benchmark", "spoil", "expected"),
    BENCHMARK_CASES,
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""),
)
def test_benchmarks_refuse(tmp_path: Path, benchmark: type, spoil: Spoil, expected: str) -> None:
    benchmark.write_fake(tmp_path)
    spoil(tmp_path)
    refused(benchmark(str(tmp_path), "plain", batch_size=4), tmp_path, expected)


def test_marks_carriage_returns_and_a_missing_last_newline_are_fine(tmp_path: Path) -> None:
    VSR.write_fake(tmp_path)
    path = tmp_path / "test.jsonl"
    expected = [question.text for question in VSR(str(tmp_path), "plain").questions()]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().strip().replace(b"\n", b"\r\n\r\n"))
    assert [question.text for question in VSR(str(tmp_path), "plain").questions()] == expected


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    MNIST.write_fake(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    compressed = gzip.compress(path.read_bytes())
    path.unlink()
    for content in (compressed[:-30], b"\x1f\x8b" + b"\0" * 20, b"no gzip"):
        path.with_name(path.name + ".gz").write_bytes(content)
        with pytest.raises(BadInputError, match=r"damaged|cut off"):
            MNIST(str(tmp_path), "plain").questions()


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_more_values_than_the_header_says_are_refused(tmp_path: Path, name: str) -> None:
    MNIST.write_fake(tmp_path)
    with (tmp_path / name).open("ab") as file:
        file.write(b"\1")
    with pytest.raises(BadInputError, match=f"{name}: the file is cut off or too long"):
        MNIST(str(tmp_path), "plain").questions()


def test_a_small_compressed_file_that_holds_more_than_the_memory_is_refused(tmp_path: Path) -> None:
    MNIST.write_fake(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.unlink()
    header = struct.pack(">4I", 2051, 2**20, 2**10, 2**10)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(header + b"\0" * 2**20))
    with pytest.raises(BadInputError, match="the header says 1099511627776 values"):
        MNIST(str(tmp_path), "plain").questions()


class Payload:
    """Writes a file when it is unpickled by the ordinary reader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (Path.write_text, (self.target, "executed"))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_payload_in_a_pickle_is_never_run(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "payload"
    path = tmp_path / "test_batch"
    for content in ({"data": Payload(target)}, Payload(target), [Payload(target)]):
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        with pytest.raises(BadInputError, match="not allowed"):
            read_batch(path)
        assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists()


OTHER_PICKLES = {
    "list": [1, 2],
    "set": {"a": {1}},
    "nested": {"a": [[1]]},
    "number key": {1: 2},
    "objects": {"data": numpy.array([{}, None], dtype=object)},
    "strings": {"data": numpy.array(["a", "bc"])},
    "structured": {"data": numpy.zeros(2, dtype=[("a", "u1")])},
}


@pytest.mark.parametrize("name", OTHER_PICKLES)
def test_a_pickle_of_anything_but_flat_values_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(OTHER_PICKLES[name], protocol=2))
    with pytest.raises(BadInputError, match="cannot be read as a CIFAR batch"):
        read_batch(path)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cnumpy\nndarray\n}(U\x08__doc__U\x01xu\x86b.",
        b"\x80\x02ccopyreg\n_reconstructor\n.",
        b"\x80\x02c_codecs\nencode\nU\x01aU\x05rot13\x86R.",
        b"\x80\x02cnumpy\ndtype\nU\x01OK\x00K\x01\x87R.",
        b"\x80\x02(lp0\ng0\na.",
        b"\x80\x02Pid\n.",
        b"\x80\x02X\xff\xff\xff\x7f",
    ],
)
def test_hand_made_pickle_programs_are_refused(tmp_path: Path, program: bytes) -> None:
    path = tmp_path / "batch"
    path.write_bytes(program)
    with pytest.raises(BadInputError, match="cannot be read as a CIFAR batch"):
        read_batch(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_batches_written_by_python_3_are_read(tmp_path: Path, protocol: int) -> None:
    data = numpy.arange(24, dtype=numpy.uint8).reshape(2, 12)
    content = {b"data": data, "floats": numpy.array([[1.5, 2.5]], order="F"), "labels": [0, 1], "name": "x"}
    (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol=protocol))
    batch = read_batch(tmp_path / "batch")
    assert (batch["data"] == data).all()
    assert batch["floats"].tolist() == [[1.5, 2.5]]
    assert batch["labels"] == [0, 1]
