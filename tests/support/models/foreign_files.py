"""Small models in the forms of the real pair's wheels: llama.cpp's GGUF, and the ONNX graph of torch's exporter."""

from pathlib import Path

import numpy
import torch
from transformers import Dinov2Config, Dinov2Model, LlamaConfig, LlamaForCausalLM

from lightning_m2pt.backbones.towers.dinov2 import RENAMED

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


def small_llama(*, tied: bool = True) -> LlamaForCausalLM:
    """Returns a small language model, whose output layer is its embedding or one of its own."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
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
    import gguf

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
    if not config.tie_word_embeddings:
        add("output.weight", state["lm_head.weight"])
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
    """Returns a small tower of random numbers."""
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
