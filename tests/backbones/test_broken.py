"""Broken backbone folders: refused in three lines before a tensor is read."""

import ast
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_m2pt.backbones.filling import unfilled
from lightning_m2pt.errors import BadInputError
from tests.support.stored_backbone import (
    CONFIG,
    INDEX,
    PROJECTOR,
    TOWER,
    TOWER_CONFIG,
    WEIGHTS,
    change_bytes,
    change_json,
    change_tensors,
    put,
    shard,
    store_backbone,
    stored,
)

TOKENIZER, SETTINGS = "language/tokenizer.json", "language/tokenizer_config.json"
OUR_FOLDERS = ("lightning_m2pt", "data_modules", "callbacks", "experiments", "benchmarks", "tests")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 13476839\n"
HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>" * 20
PICKLE = b"PK\x03\x04\x00\x00\x08\x08" + bytes(200)
WATCHED = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}
LURES = ("a hub model", "timm", "a hub tokenizer", "code", "tokenizer's code", "another kernel", "a file of code")
LAYER = "model.layers.2."
VISION, PICTURES = ("model_cfg", "vision_cfg"), ("preprocess_cfg",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone") / "whole"
    store_backbone(folder)
    return folder


def sharded(then: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        shard(folder)
        then(folder)

    return spoil


def without(*names: str):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(names)}


def remove(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def write(file: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def as_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "language/pytorch_model.bin")


SECOND_SHARD = "language/model-00002-of-00002.safetensors"
BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    # The language model's tensors.
    "head missing": (change_tensors(WEIGHTS, without("lm_head")), ["tensors missing lm_head.weight"]),
    "half the layers": (change_tensors(WEIGHTS, without(LAYER)), [f"missing {LAYER}", "and 6 more"]),
    "a layer too many": (
        change_tensors(
            WEIGHTS,
            lambda tensors: {
                **tensors,
                **{f"model.layers.3.{name[15:]}": one.clone() for name, one in tensors.items() if LAYER in name},
            },
        ),
        ["left over model.layers.3.", "and 6 more"],
    ),
    "misnamed": (
        change_tensors(WEIGHTS, lambda tensors: {name.removeprefix("model."): one for name, one in tensors.items()}),
        ["missing model.", "left over"],
    ),
    "a surplus tensor": (change_tensors(WEIGHTS, put("adapter.weight", lambda _: torch.ones(2))), ["adapter.weight"]),
    "another shape": (
        change_tensors(WEIGHTS, put("model.norm.weight", lambda _: torch.ones(31))),
        ["model.norm.weight [31], not [32]"],
    ),
    "eight bits": (
        change_tensors(WEIGHTS, lambda tensors: {name: one.to(torch.int8) for name, one in tensors.items()}),
        ["another type", "I8", "more", "F32"],
    ),
    # Files.
    "no language weights": (remove(WEIGHTS), ["model.safetensors"]),
    "cut": (change_bytes(WEIGHTS, lambda content: content[:-100]), [WEIGHTS, "cut or damaged"]),
    "cut in the header": (change_bytes(WEIGHTS, lambda content: content[:200]), [WEIGHTS]),
    "empty": (change_bytes(WEIGHTS, lambda _: b""), [WEIGHTS, "0 bytes"]),
    "bytes too many": (change_bytes(WEIGHTS, lambda content: content + b"x"), [WEIGHTS, "cut or damaged"]),
    "LFS pointer": (change_bytes(WEIGHTS, lambda _: LFS), [WEIGHTS, "Git LFS"]),
    "web page": (change_bytes(WEIGHTS, lambda _: HTML), [WEIGHTS, "web page"]),
    "pickle under the name": (change_bytes(WEIGHTS, lambda _: PICKLE), [WEIGHTS, "a pickle"]),
    "pickle": (as_pickle, ["pytorch_model.bin", "pickles", "never opened"]),
    "a directory": (lambda folder: (remove(WEIGHTS)(folder), (folder / WEIGHTS).mkdir()), ["model.safetensors"]),
    "tower cut": (change_bytes(TOWER, lambda content: content[:-7]), [TOWER, "cut or damaged"]),
    "tower LFS pointer": (change_bytes(TOWER, lambda _: LFS), [TOWER, "Git LFS"]),
    "tower without a tensor": (change_tensors(TOWER, without("visual.ln_pre.")), ["visual.ln_pre.weight"]),
    "tower of another size": (
        change_tensors(TOWER, put("visual.positional_embedding", lambda _: torch.ones(5, 32))),
        ["[5, 32], not [17, 32]"],
    ),
    "another model's tower": (
        change_tensors(TOWER, lambda tensors: {name[7:]: one for name, one in tensors.items()}),
        ["missing visual."],
    ),
    "tower of integers": (
        change_tensors(TOWER, put("visual.conv1.weight", lambda all_: all_["visual.conv1.weight"].to(torch.int8))),
        ["I8"],
    ),
    "projector web page": (change_bytes(PROJECTOR, lambda _: HTML), [PROJECTOR, "web page"]),
    "projector of another width": (
        change_tensors(PROJECTOR, put("weight", lambda _: torch.ones(32, 16))),
        ["weight [32, 16], not [32, 32]"],
    ),
    "projector of LLaVA": (
        change_tensors(PROJECTOR, lambda all_: {f"model.mm_projector.{name}": one for name, one in all_.items()}),
        ["missing weight, bias", "left over model.mm_projector."],
    ),
    "projector of integers": (
        change_tensors(PROJECTOR, put("bias", lambda _: torch.ones(32, dtype=torch.int64))),
        ["bias I64"],
    ),
    # Shards.
    "a shard missing": (sharded(remove(SECOND_SHARD)), ["missing model-00002-of-00002.safetensors"]),
    "a shard cut": (sharded(change_bytes(SECOND_SHARD, lambda content: content[:-4])), [SECOND_SHARD, "cut"]),
    "a stale shard": (
        sharded(
            lambda folder: shutil.copy(folder / SECOND_SHARD, folder / "language/model-00003-of-00003.safetensors")
        ),
        ["model-00003-of-00003.safetensors", "does not name"],
    ),
    "an index beside a single file": (
        sharded(lambda folder: save_file({"a": torch.ones(1)}, folder / WEIGHTS)),
        ["model.safetensors beside the index"],
    ),
    "no index": (sharded(remove(INDEX)), ["model-00001-of-00002.safetensors", "index.json"]),
    "an index without a tensor": (
        sharded(lambda folder: write(INDEX, (folder / INDEX).read_text().replace("lm_head", "other"))(folder)),
        ["lm_head.weight"],
    ),
    "an index of something else": (sharded(write(INDEX, '{"weights": {}}')), ["index.json", "weight_map"]),
    "an index that leaves the folder": (
        sharded(write(INDEX, '{"weight_map": {"a": "../projector.safetensors"}}')),
        ["index.json", "weight_map"],
    ),
    "an index that is no JSON": (sharded(write(INDEX, "{")), ["index.json", "not JSON"]),
    # The language model's configuration, beyond what test_proven_forms holds.
    "more layers than the file": (change_json(CONFIG, "num_hidden_layers", value=4), ["missing model.layers.3."]),
    "a wider model": (change_json(CONFIG, "intermediate_size", value=64), ["another shape", "mlp", "more"]),
    "a larger vocabulary": (change_json(CONFIG, "vocab_size", value=51), ["[50, 32], not [51, 32]"]),
    "10^9 layers": (change_json(CONFIG, "num_hidden_layers", value=10**9), ["num_hidden_layers", "1,000"]),
    "quantised": (change_json(CONFIG, "quantization_config", value={"bits": 4}), ["quantization_config", "quantised"]),
    "another kernel": (change_json(CONFIG, "attn_implementation", value="owner/kernel"), ["attn_implementation"]),
    "code": (change_json(CONFIG, "auto_map", value={"AutoConfig": "x.X"}), ["config.json: auto_map", "never done"]),
    "a wrong type that transformers finds": (
        change_json(CONFIG, "initializer_range", value="x"),
        ["initializer_range"],
    ),
    "padding beyond the vocabulary": (change_json(CONFIG, "pad_token_id", value=50), ["transformers cannot build"]),
    "a wrong dtype": (change_json(CONFIG, "dtype", value="float7"), ["transformers cannot build", "float7"]),
    "no configuration": (remove(CONFIG), ["config.json cannot be read"]),
    "a deep configuration": (write(CONFIG, '{"a":' * 100_000), ["config.json is not JSON"]),
    "a configuration in another encoding": (write(CONFIG, b'{"a": "\xff\xfe"}'), ["config.json is not JSON"]),
    "a list": (write(CONFIG, "[]"), ["config.json holds no JSON object"]),
    # The tower's configuration.
    "10^9 blocks": (change_json(TOWER_CONFIG, *VISION, "layers", value=10**9), ["vision_cfg.layers", "1,000"]),
    "one block": (change_json(TOWER_CONFIG, *VISION, "layers", value=1), ["vision_cfg.layers", "from 2"]),
    "a residual network": (change_json(TOWER_CONFIG, *VISION, "layers", value=[3, 4, 6, 3]), ["vision_cfg.layers"]),
    "text for a width": (change_json(TOWER_CONFIG, *VISION, "width", value="32"), ["vision_cfg.width", "'32'"]),
    "true for a width": (change_json(TOWER_CONFIG, *VISION, "width", value=True), ["vision_cfg.width", "True"]),
    "heads that do not divide": (change_json(TOWER_CONFIG, *VISION, "head_width", value=7), ["width", "head_width"]),
    "a patch larger than the picture": (change_json(TOWER_CONFIG, *VISION, "patch_size", value=17), ["patch_size"]),
    "no MLP": (change_json(TOWER_CONFIG, *VISION, "mlp_ratio", value=0.001), ["mlp_ratio"]),
    "an infinite MLP": (
        change_json(TOWER_CONFIG, *VISION, "mlp_ratio", value=float("inf")),
        ["Infinity is no JSON number"],
    ),
    "timm": (
        change_json(TOWER_CONFIG, *VISION, "timm_model_name", value="vit_base"),
        ["timm_model_name", "never done"],
    ),
    "pooling": (change_json(TOWER_CONFIG, *VISION, "attentional_pool", value=True), ["attentional_pool"]),
    "other blocks": (change_json(TOWER_CONFIG, *VISION, "qk_norm", value=True), ["vision_cfg.qk_norm", "not proven"]),
    "an unknown key": (change_json(TOWER_CONFIG, *VISION, "layer", value=1), ["vision_cfg: unknown layer"]),
    "a hub model": (
        change_json(TOWER_CONFIG, "model_cfg", "text_cfg", "hf_model_name", value="roberta-base"),
        ["hf_model_name"],
    ),
    "a hub tokenizer": (
        change_json(TOWER_CONFIG, "model_cfg", "text_cfg", "hf_tokenizer_name", value="x/y"),
        ["hf_tokenizer_name"],
    ),
    "no tower": (change_json(TOWER_CONFIG, "model_cfg", value={"embed_dim": 16}), ["vision_cfg: this key is missing"]),
    "no model": (write(TOWER_CONFIG, "{}"), ["model_cfg: this key is missing"]),
    "another activation's name": (change_json(TOWER_CONFIG, "model_cfg", "quick_gelu", value="yes"), ["quick_gelu"]),
    "padded pictures": (
        change_json(TOWER_CONFIG, *PICTURES, "resize_mode", value="longest"),
        ["resize_mode", "padded"],
    ),
    "pictures of another size": (change_json(TOWER_CONFIG, *PICTURES, "size", value=[32, 32]), ["preprocess_cfg.size"]),
    "no deviation": (change_json(TOWER_CONFIG, *PICTURES, "std", value=[0, 1, 1]), ["preprocess_cfg.std"]),
    "two means": (change_json(TOWER_CONFIG, *PICTURES, "mean", value=[0.5, 0.5]), ["preprocess_cfg.mean"]),
    "another interpolation": (change_json(TOWER_CONFIG, *PICTURES, "interpolation", value="area"), ["interpolation"]),
    # The tokenizer.
    "no tokenizer": (remove(SETTINGS), ["tokenizer_config.json"]),
    "no fast tokenizer": (remove(TOKENIZER), [TOKENIZER, "sentencepiece", "vicuna7b/README.md"]),
    "tokenizer LFS pointer": (write(TOKENIZER, LFS), ["tokenizer.json is not JSON"]),
    "tokenizer's code": (
        change_json(SETTINGS, "auto_map", value={"AutoTokenizer": ["x.X", None]}),
        ["tokenizer_config.json: auto_map"],
    ),
    "an adapter of another tool": (write("language/adapter_config.json", "{}"), ["adapter_config.json", "not read"]),
    "a file of code": (write("language/modeling_x.py", "raise SystemExit(9)"), ["modeling_x.py", "never done"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_before_a_tensor_is_read(whole, tmp_path, monkeypatch, name):
    folder = tmp_path / "broken"
    shutil.copytree(whole, folder)
    spoil, named = BROKEN[name]
    spoil(folder)
    monkeypatch.setattr(unfilled, "read_portions", lambda *_: pytest.fail("tensors were read"))
    with pytest.raises(BadInputError) as refusal:
        stored(folder).check_files()
    lines = str(refusal.value).splitlines()
    assert len(lines) <= 3
    assert all(len(line) < 700 for line in lines)
    for text in named:
        assert text in str(refusal.value)


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        (TOKENIZER, ("post_processor", "special_tokens"), {}),
        (TOKENIZER, ("model", "vocab"), {}),
        (TOKENIZER, ("model",), None),
        (SETTINGS, ("model_max_length",), "x"),
        (SETTINGS, ("eos_token",), None),
        (SETTINGS, ("eos_token",), 5),
        (SETTINGS, ("tokenizer_class",), 5),
    ],
    ids=str,
)
def test_a_tokenizer_that_contradicts_itself_is_refused(whole, tmp_path, file, keys, value):
    """Among them panics of the tokenizers library, which are no exceptions of Python's."""
    folder = tmp_path / "broken"
    shutil.copytree(whole, folder)
    change_json(file, *keys, value=value)(folder)
    with pytest.raises(BadInputError) as refusal:
        stored(folder).processor()
    assert len(str(refusal.value).splitlines()) <= 3


def test_no_call_of_ours_trusts_remote_code():
    """Every loading of an Auto class says so itself, tests and benchmarks included."""
    loading = {"from_pretrained", "from_config"}
    for path in [one for folder in OUR_FOLDERS for one in Path(folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in loading:
                owner = ast.unparse(node.func.value)
                said = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
                spread = any(word.arg is None and ast.unparse(word.value) == "own_files" for word in node.keywords)
                assert (
                    owner in ("nn.Embedding", "CLIPImageProcessor", "PeftModel")
                    or spread
                    or said.get("trust_remote_code") == "False"
                ), (path, owner)


def test_nothing_is_fetched_and_no_process_starts(whole, tmp_path):
    """Counted by Python's audit hooks, which see what no patched function does."""
    events: list[str] = []
    watching = [True]

    def hook(event: str, _: tuple) -> None:
        if watching[0] and event in WATCHED:
            events.append(event)

    sys.addaudithook(hook)  # it can never be taken away again, so it is told to look no more
    for name in LURES:
        folder = tmp_path / name.replace(" ", "_")
        shutil.copytree(whole, folder)
        BROKEN[name][0](folder)
        for attempt in ("check_files", "load"):
            with pytest.raises(BadInputError):
                getattr(stored(folder), attempt)()
    loaded = stored(whole)
    loaded.load()
    loaded.processor()
    watching[0] = False
    assert events == []
