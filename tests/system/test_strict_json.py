"""JSON that nobody vouches for is read whole or refused with its line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_modules.reading.files import json_records
from data_modules.text_vqa import TextVQA
from data_modules.vsr import VSR
from lightning_m2pt.answering.partial_predictions import whole_lines
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.mistakes import made_of_each
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.storage.adapter_folder import read_adapter_config
from lightning_m2pt.storage.checkpoint import damage
from lightning_m2pt.storage.run_record import read_run_record
from lightning_m2pt.storage.state_codec import decode_state
from lightning_m2pt.system.strict_json import DEEPEST, parse_json

REFUSED = {
    '{"a": 1, "b": {"c": 1, "c": 2}}': "the key 'c' is there twice",
    '{"a": NaN}': "NaN is no JSON number",
    '{"a": -Infinity}': "-Infinity is no JSON number",
    '{"a": 1e999}': "the number 1e999 is too large",
    '{"a": ' + "9" * 5_000 + "}": "a number of thousands of digits",
    '{"a": ' + "[" * 100_000: "nested too deeply",
    '{"a": ' + '{"b":' * (DEEPEST + 1) + "1" + "}" * (DEEPEST + 2): "nested too deeply",
    '{"a": ': "not valid JSON",
    "": "not valid JSON",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_library_takes_and_we_do_not(text: str) -> None:
    for content in (text, text.encode()):
        with pytest.raises(BadInputError, match=REFUSED[text]) as caught:
            parse_json(content, "file.json", first_line=3)
        assert caught.value.message().startswith("error: file.json:3: ")
        assert len(caught.value.message().split("\n")) <= 3


def test_lines_bytes_and_depth() -> None:
    with pytest.raises(BadInputError, match=r"^error: f:4: this is not valid JSON"):
        parse_json('{\n"a" 1}', "f", first_line=3)
    with pytest.raises(BadInputError, match=r"^error: f: this is not UTF-8"):
        parse_json(b"\xff", "f", first_line=0)
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_json(deep, "f")) == deep
    with pytest.raises(BadInputError, match="nested"):
        parse_json(f"[{deep}]", "f")
    assert parse_json('{"a": [1.5, -3, true, null, "\\ud83d\\ude00"]}', "f") == {"a": [1.5, -3, True, None, "😀"]}


Read = Callable[[Path], object]
READERS: dict[str, tuple[str, Read]] = {
    "adapter": ("adapter_config.json", read_adapter_config),
    "run": ("run.json", read_run_record),
    "backbone": ("config.json", lambda folder: read_json(folder / "config.json", "model.backbone.language_config")),
    "predictions": ("vsr.jsonl", lambda folder: read_predictions(folder / "vsr.jsonl")),
    "partial": ("vsr.jsonl.partial-0", lambda folder: whole_lines(folder / "vsr.jsonl.partial-0")),
    "records": ("test.jsonl", lambda folder: made_of_each(json_records(folder / "test.jsonl"), lambda record: record)),
    "vsr": ("test.jsonl", lambda folder: VSR(str(folder), "plain").questions()),
    "text_vqa": ("TextVQA_0.5.1_val.json", lambda folder: TextVQA(str(folder), "plain").questions()),
    "state": ("state.json", lambda folder: decode_state({}, (folder / "state.json").read_bytes())),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_it(tmp_path: Path, name: str) -> None:
    file, read = READERS[name]
    for text in filter(None, REFUSED):
        (tmp_path / file).write_text(f"{text}\n")
        with pytest.raises(BadInputError) as caught:
            read(tmp_path)
        assert len(caught.value.message().split("\n")) <= 3
    (tmp_path / file).write_bytes(b"\xff\xfe\n")
    with pytest.raises(BadInputError):
        read(tmp_path)


def test_a_damaged_manifest_is_damage(tmp_path: Path) -> None:
    for text in REFUSED:
        (tmp_path / "manifest.json").write_text(text)
        assert damage(tmp_path) == "manifest.json is not readable"
