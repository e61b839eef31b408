"""Bad annotations and pictures, of evaluation sets and of Vision-Flan: `m2pt check` names file and line."""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_modules.mme import MME
from data_modules.pope import POPE
from data_modules.snli_ve import SNLIVE
from data_modules.text_vqa import TextVQA
from data_modules.vision_flan import ANNOTATION_FILE, IMAGE_FOLDER, VisionFlan
from data_modules.vsr import VSR
from tests.bad_inputs.refusal import BAD_INPUT, ENVIRONMENT, Spoil, assert_refused
from tests.support.small_experiment import small_words

SETS = {"vsr": VSR, "pope": POPE, "snli_ve": SNLIVE, "mme": MME, "text_vqa": TextVQA, "vision_flan": VisionFlan}
LINES = {
    "vsr": ("test.jsonl", "image", "caption", "label"),
    "pope": ("coco_pope_random.json", "image", "text", "label"),
    "snli_ve": ("snli_ve_test.jsonl", "Flickr30K_ID", "sentence2", "gold_label"),
}
"""The file of JSON lines, and its keys of picture, text and label."""
HTML = b"<!DOCTYPE html><html><body>404</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 13476839\n"
OUTSIDE = "../outside.png"


def change_line(file: str, number: int, change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Returns what changes the record in one line."""

    def spoil(root: Path) -> None:
        lines = (root / file).read_text().splitlines()
        record = json.loads(lines[number - 1])
        change(record)
        lines[number - 1] = json.dumps(record)
        (root / file).write_text("\n".join(lines) + "\n")

    return spoil


def change_bytes(file: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda root: (root / file).write_bytes(change((root / file).read_bytes()))


def in_line(number: int, content: bytes) -> Callable[[bytes], bytes]:
    """Returns what puts other bytes in a line's place."""

    def change(data: bytes) -> bytes:
        lines = data.splitlines()
        lines[number - 1] = content
        return b"\n".join(lines) + b"\n"

    return change


def put(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda record: record.update({key: value})


def drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda record: record.pop(key)


def remove(file: str) -> Spoil:
    return lambda root: (root / file).unlink()


def folder_in_place_of(file: str) -> Spoil:
    return lambda root: ((root / file).unlink(), (root / file).mkdir())


def pipe_in_place_of(file: str) -> Spoil:
    return lambda root: ((root / file).unlink(), os.mkfifo(root / file))


def link_out(file: str) -> Spoil:
    """Returns what makes a file a link to one outside."""

    def spoil(root: Path) -> None:
        (root / file).rename(root.parent / "outside.png")
        (root / file).symlink_to(root.parent / "outside.png")

    return spoil


def line_cases(name: str) -> dict[str, tuple[str, Spoil, tuple[str, ...]]]:
    """Returns what can be wrong with a file of JSON lines, in line 3."""
    file, _, _, label = LINES[name]
    third = f"{file}:3"
    return {
        f"{name}: a broken line": (name, change_bytes(file, in_line(3, b'{"image": ')), (third,)),
        f"{name}: a line that is a list": (name, change_bytes(file, in_line(3, b"[1, 2]")), (third,)),
        f"{name}: a line that is a number": (name, change_bytes(file, in_line(3, b"3")), (third,)),
        f"{name}: a NUL byte": (name, change_bytes(file, in_line(3, b"\0\0")), (third,)),
        f"{name}: not UTF-8": (name, change_bytes(file, in_line(3, b'{"a": "\xff"}')), (third,)),
        f"{name}: a key twice": (
            name,
            change_bytes(file, lambda data: in_line(3, data.splitlines()[2][:-1] + b', "x": 1, "x": 2}')(data)),
            (third, "x"),
        ),
        f"{name}: no number": (
            name,
            change_bytes(file, lambda data: in_line(3, data.splitlines()[2][:-1] + b', "x": NaN}')(data)),
            (third,),
        ),
        f"{name}: deep": (name, change_bytes(file, in_line(3, b"[" * 100_000)), (third,)),
        f"{name}: a huge number": (name, change_bytes(file, in_line(3, b'{"a": ' + b"9" * 10_000 + b"}")), (third,)),
        f"{name}: cut off": (name, change_bytes(file, lambda data: data[:-9]), (file,)),
        f"{name}: empty": (name, change_bytes(file, lambda _: b""), (file,)),
        f"{name}: HTML": (name, change_bytes(file, lambda _: HTML), (file,)),
        f"{name}: an LFS pointer": (name, change_bytes(file, lambda _: LFS), (file,)),
        f"{name}: a folder": (name, folder_in_place_of(file), (file,)),
        f"{name}: a pipe": (name, pipe_in_place_of(file), (file,)),
        f"{name}: a record twice": (
            name,
            change_bytes(file, lambda data: data + data.splitlines()[2] + b"\n")
            if name == "pope"
            else change_line(file, 3, put(label, "maybe")),
            (file,),
        ),
    }


def field_cases(name: str) -> dict[str, tuple[str, Spoil, tuple[str, ...]]]:
    """Returns what can be wrong with the fields of a record, in line 3."""
    file, picture, text, label = LINES[name]
    third = f"{file}:3"

    def field(key: str, value: object) -> tuple[str, Spoil, tuple[str, ...]]:
        return name, change_line(file, 3, put(key, value)), (third, key)

    return {
        f"{name}: no picture's name": (name, change_line(file, 3, drop(picture)), (third, picture)),
        f"{name}: no text": (name, change_line(file, 3, drop(text)), (third, text)),
        f"{name}: no label": (name, change_line(file, 3, drop(label)), (third, label)),
        f"{name}: a picture that is null": field(picture, None),
        f"{name}: a picture that is a number": field(picture, 7),
        f"{name}: a picture without a name": field(picture, ""),
        f"{name}: a picture outside": field(picture, OUTSIDE),
        f"{name}: a picture anywhere": field(picture, "/etc/hostname"),
        f"{name}: a picture elsewhere": field(picture, "http://example.org/a.png"),
        f"{name}: a picture with a NUL": field(picture, "a\0.png"),
        f"{name}: a picture that is missing": (
            name,
            change_line(file, 3, put(picture, "nothing.png")),
            (third, "missing"),
        ),
        f"{name}: a text that is a list": field(text, ["a"]),
        f"{name}: a text that is empty": field(text, "  "),
        f"{name}: a text with half a character": field(text, "a\ud800"),
        f"{name}: a text with the picture's mark": (
            name,
            change_line(file, 3, put(text, "What is <image> this?")),
            (third, "<image>"),
        ),
        f"{name}: another label": field(label, "maybe"),
        f"{name}: a label that is null": field(label, None),
        f"{name}: a label of another type": field(label, 2),
        f"{name}: a label that is true": field(label, True),
        f"{name}: a label with control characters": field(label, "\x1b[2J\a"),
    }


def pair(file: str, content: str | bytes) -> Spoil:
    data = content.encode() if isinstance(content, str) else content
    return lambda root: (root / file).write_bytes(data)


MME_TEXT = "existence/fake_0.txt"
GOOD_LINES = "Is it a? Please answer yes or no.\tYes\nIs it b? Please answer yes or no.\tNo\n"
MME_CASES: dict[str, tuple[str, Spoil, tuple[str, ...]]] = {
    f"mme: {what}": ("mme", spoil, (MME_TEXT,))
    for what, spoil in {
        "one question": pair(MME_TEXT, GOOD_LINES.split("\n")[0] + "\n"),
        "three questions": pair(MME_TEXT, GOOD_LINES + GOOD_LINES.split("\n")[0] + "\n"),
        "no tab": pair(MME_TEXT, GOOD_LINES.replace("\t", " ")),
        "two tabs": pair(MME_TEXT, GOOD_LINES.replace("\tYes", "\tYes\tYes")),
        "another answer": pair(MME_TEXT, GOOD_LINES.replace("Yes", "Maybe")),
        "no answer": pair(MME_TEXT, GOOD_LINES.replace("Yes", "")),
        "no question": pair(MME_TEXT, "\tYes\n" + GOOD_LINES.split("\n")[1] + "\n"),
        "empty": pair(MME_TEXT, ""),
        "not UTF-8": pair(MME_TEXT, b"\xff\xfe\tYes\n\xff\tNo\n"),
        "HTML": pair(MME_TEXT, HTML),
        "a folder": folder_in_place_of(MME_TEXT),
        "a pipe": pipe_in_place_of(MME_TEXT),
        "the picture's mark": pair(MME_TEXT, GOOD_LINES.replace("Is it a?", "Is <image> a?")),
    }.items()
} | {
    "mme: a picture without text": ("mme", remove(MME_TEXT), ("existence", "fake_0")),
    "mme: a text without picture": (
        "mme",
        lambda root: next(root.glob("existence/fake_1.[jp]*g")).unlink(),
        ("fake_1",),
    ),
    "mme: an unknown subtask": ("mme", lambda root: (root / "existence").rename(root / "existance"), ("existance",)),
    "mme: nothing": ("mme", lambda root: (shutil.rmtree(root), root.mkdir()), ("mme",)),
}


def records(change: Callable[[list[dict[str, Any]]], object]) -> Spoil:
    """Returns what changes Vision-Flan's records."""

    def spoil(root: Path) -> None:
        content = json.loads((root / ANNOTATION_FILE).read_text())
        changed = change(content)
        (root / ANNOTATION_FILE).write_text(json.dumps(changed if isinstance(changed, list) else content))

    return spoil


def turn(position: int, **changes: object) -> Callable[[list[dict[str, Any]]], object]:
    """Returns what changes a turn of record 3."""
    return lambda content: content[2]["conversations"][position].update({k.rstrip("_"): v for k, v in changes.items()})


def of_third(key: str, value: object) -> Callable[[list[dict[str, Any]]], object]:
    return lambda content: content[2].update({key: value})


THIRD = f"{ANNOTATION_FILE}: record 3"
FLAN_CASES: dict[str, tuple[str, Spoil, tuple[str, ...]]] = {
    f"vision_flan: {what}": ("vision_flan", spoil, named)
    for what, (spoil, named) in {
        "the assistant begins": (records(lambda c: c[2]["conversations"].reverse()), (THIRD, "conversations")),
        "no answer": (records(lambda c: c[2]["conversations"].pop()), (THIRD, "conversations")),
        "no turn": (records(of_third("conversations", [])), (THIRD, "conversations")),
        "a conversation that is a text": (records(of_third("conversations", "a")), (THIRD, "conversations")),
        "turns that are texts": (records(of_third("conversations", ["a", "b"])), (THIRD, "conversations")),
        "an unknown speaker": (records(turn(0, from_="narrator")), (THIRD, "narrator")),
        "two marks": (records(turn(0, value="<image> <image> What?")), (THIRD, "<image>")),
        "a mark in the answer": (records(turn(1, value="<image>")), (THIRD, "<image>")),
        "an empty answer": (records(turn(1, value=" ")), (THIRD, "empty")),
        "an answer that is a number": (records(turn(1, value=7)), (THIRD, "value")),
        "a question that is null": (records(turn(0, value=None)), (THIRD, "value")),
        "an id that is a list": (records(of_third("id", [7])), (THIRD, "id")),
        "no picture": (records(lambda c: c[2].pop("image")), (THIRD, "image")),
        "two pictures": (records(of_third("image", ["a.png", "b.png"])), (THIRD, "image")),
        "a picture outside": (records(of_third("image", OUTSIDE)), (THIRD, "image")),
        "a picture anywhere": (records(of_third("image", "/etc/hostname")), (THIRD, "image")),
        "a picture in another world": (records(of_third("image", "file:///etc/hostname")), (THIRD, "image")),
        "a picture on a drive": (records(of_third("image", "C:\\a.png")), (THIRD,)),
        "a missing picture": (records(of_third("image", "nothing.png")), (THIRD, "missing", "nothing.png")),
        "a task that is a mapping": (records(of_third("task_name", {"a": 1})), (THIRD, "task_name")),
        "a record that is a text": (records(lambda c: c.__setitem__(2, "a")), (THIRD,)),
        "no record": (records(lambda _: []), (ANNOTATION_FILE,)),
        "too few records": (records(lambda c: c[:3]), ("batch_size",)),
        "an answer longer than the model": (records(turn(1, value="word " * 3000)), (THIRD, "tokens")),
        "cut off": (change_bytes(ANNOTATION_FILE, lambda data: data[:500]), (ANNOTATION_FILE,)),
        "empty": (pair(ANNOTATION_FILE, ""), (ANNOTATION_FILE,)),
        "an object": (pair(ANNOTATION_FILE, "{}"), (ANNOTATION_FILE,)),
        "HTML": (pair(ANNOTATION_FILE, HTML), (ANNOTATION_FILE,)),
        "an LFS pointer": (pair(ANNOTATION_FILE, LFS), (ANNOTATION_FILE,)),
        "deep": (pair(ANNOTATION_FILE, "[" * 100_000), (ANNOTATION_FILE,)),
        "not UTF-8": (pair(ANNOTATION_FILE, b'[{"id": "\xff"}]'), (ANNOTATION_FILE,)),
        "missing": (remove(ANNOTATION_FILE), (ANNOTATION_FILE,)),
        "no pictures at all": (lambda root: shutil.rmtree(root / IMAGE_FOLDER), (IMAGE_FOLDER,)),
    }.items()
}


def png(width: int, height: int, depth: int = 8) -> bytes:
    """Returns a PNG of any stated size with no pixels in it."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    written = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + written


PICTURE = "images/fake_1.png"
PICTURES: dict[str, Spoil] = {
    "of no bytes": pair(PICTURE, b""),
    "of one byte": pair(PICTURE, b"\x89"),
    "cut at the start": change_bytes(PICTURE, lambda data: data[:20]),
    "cut in the middle": change_bytes(PICTURE, lambda data: data[: len(data) // 2]),
    "cut at the end": change_bytes(PICTURE, lambda data: data[:-30]),
    "damaged": change_bytes(PICTURE, lambda data: data[:60] + bytes(len(data) - 120) + data[-60:]),
    "of HTML": pair(PICTURE, HTML),
    "of SVG": pair(PICTURE, b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    "of an LFS pointer": pair(PICTURE, LFS),
    "of text": pair(PICTURE, "a picture"),
    "of a pickle": pair(PICTURE, b"\x80\x04cos\nsystem\n(S'touch ran'\ntR."),
    "of a ZIP": pair(PICTURE, b"PK\x03\x04" + bytes(200)),
    "that is a bomb": pair(PICTURE, png(30_000, 30_000)),
    "that is a long bomb": pair(PICTURE, png(2**31 - 1, 1)),
    "of no width": pair(PICTURE, png(0, 10)),
    "of half a TIFF": pair(PICTURE, b"II*\0\xff\xff\xff\xff"),
    "of half a GIF": pair(PICTURE, b"GIF89a\xff\xff\xff\xff"),
    "of half a WebP": pair(PICTURE, b"RIFF\x10\0\0\0WEBPVP8 "),
    "that is a folder": folder_in_place_of(PICTURE),
    "that is a pipe": pipe_in_place_of(PICTURE),
    "that is a link outside": link_out(PICTURE),
    "that is missing": remove(PICTURE),
}
CASES = MME_CASES | FLAN_CASES
for set_of_lines in ("vsr", "pope", "snli_ve"):
    CASES |= line_cases(set_of_lines) | field_cases(set_of_lines)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for name, module in SETS.items():
        module.write_fake(folder / name)
    return folder


def spoilt(whole: Path, folder: Path, name: str, spoil: Spoil) -> Path:
    """Returns the folder of a copy with a mistake in it."""
    root = folder / name
    shutil.copytree(whole / name, root)
    (folder / "outside.png").write_bytes(next((whole / "vsr" / "images").glob("*.png")).read_bytes())
    spoil(root)
    return root


@pytest.mark.parametrize("case", CASES)
def test_a_bad_record_is_named_by_its_place(whole, tmp_path, capfd, case):
    name, spoil, named = CASES[case]
    root = spoilt(whole, tmp_path, name, spoil)
    words = ["check", "--benchmarks", name, "--data.root", tmp_path]
    if name == "vision_flan":
        words = ["check", *small_words(tmp_path), "--data.root", root]
    assert_refused(capfd, words, named, tmp_path, may_report=True)


@pytest.mark.parametrize("case", PICTURES)
def test_a_bad_picture_is_named(whole, tmp_path, capfd, case):
    spoilt(whole, tmp_path, "vsr", PICTURES[case])
    words = ["check", "--benchmarks", "vsr", "--data.root", tmp_path, "--decode"]
    assert_refused(capfd, words, ("fake_1.png",), tmp_path, may_report=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_the_machines_fault(whole, tmp_path, capfd):
    spoilt(whole, tmp_path, "vsr", lambda root: (root / "test.jsonl").chmod(0))
    words = ["check", "--benchmarks", "vsr", "--data.root", tmp_path]
    assert_refused(capfd, words, ("test.jsonl",), tmp_path / "nothing", code=ENVIRONMENT, may_report=True)


@pytest.mark.parametrize("names", ["vsrr", "vsr,", "VSR", "all,x", "vsr pope", ""])
def test_a_set_nobody_knows_is_refused(whole, capfd, names):
    assert_refused(capfd, ["check", "--benchmarks", names, "--data.root", whole], (), whole, code=BAD_INPUT)
