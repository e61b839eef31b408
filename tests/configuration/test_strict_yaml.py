"""A configuration file of any make is read, or refused with its line, quickly and without swelling."""

import os

import pytest

from lightning_m2pt.configuration.strict_yaml import MOST_BYTES, plain, read_mapping, value_of
from lightning_m2pt.errors import BadInputError


def test_byte_order_marks_and_line_ends_change_nothing(tmp_path):
    file = tmp_path / "a.yaml"
    for content in (b"\xef\xbb\xbfa: 1\r\nb: [x, y]\r\n", b"a: 1\nb: [x, y]\n", b'{"a": 1, "b": ["x", "y"]}'):
        file.write_bytes(content)
        assert plain(read_mapping(file)) == {"a": 1, "b": ["x", "y"]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("1e-3", 1e-3),
            ("1.5E+2", 150.0),
            ("-.5", -0.5),
            ("3", 3),
            ("-0", 0),
            ("true", True),
            ("~", None),
            ("", None),
        ),
        *(
            (text, text)
            for text in (".nan", ".inf", "1e999", "1_0", "1:30", "0x1f", "0o7", "010", "yes", "on", "2024-01-05")
        ),
        *(("9" * 5000, "9" * 5000), ("'1'", "1"), ("{1: 2}", {"1": 2}), ("[a, null]", ["a", None])),
    ],
    ids=lambda value: str(value)[:20],
)
def test_plain_words(text, value):
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("a: 1\nb: &x [1]\nc: *x\n", 3, "alias"),
        ("a: &a [*a]\n", 1, "alias"),
        ("a: 1\nb: !!python/object/apply:os.system [x]\n", 2, "tag"),
        ("a: !!float 1\n", 1, "tag"),
        ("a: !x 1\n", 1, "tag"),
        ("a: 1\nb: " + "[" * 10_000, 2, "deeper"),
        ("".join("  " * depth + "k:\n" for depth in range(200)), 41, "deeper"),
        ("a: 1\n---\nb: 1\n", 2, "document"),
        ("a: {b: 1\n", 2, ""),
        ("a:\n  b: 1\n  b: 2\n", 3, "also written on line 2"),
        ("? [a]\n: 1\n", 1, "list"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_tricks_are_refused_with_their_line(tmp_path, text, line, named):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(BadInputError, match=named) as error:
        read_mapping(file)
    assert error.value.where.startswith(f"{file}:{line}")


def test_what_is_no_small_file_is_never_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(MOST_BYTES + 1)
    (tmp_path / "nul").write_bytes(b"a: \0\n")
    (tmp_path / "latin").write_bytes(b"a: \xe9\n")
    (tmp_path / "list").write_text("- 1\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "large", "nul", "latin", "list", "empty", "loop", "missing", "."):
        with pytest.raises(BadInputError) as error:
            read_mapping(tmp_path / name)
        assert len(error.value.message().splitlines()) <= 3
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(BadInputError, match="no ordinary file"):
            read_mapping(tmp_path / device)
