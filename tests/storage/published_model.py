"""M2PT as its paper and published code describe it, on plain modules of transformers; and its checkpoint.

Shares no code with the project. Numbers in brackets are those of the description that a line follows.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from tests.storage.foreign_files import PICTURES

VISION_LAYERS, TEXT_LAYERS, VISUAL_LENGTH, TEXTUAL_LENGTH = 4, 3, 5, 4
VISION_WIDTH, TEXT_WIDTH = 32, 48
TOWER_NAME = "model.vision_tower.vision_tower.vision_model."
SHARDS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
LLAMA = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 56,
    "num_hidden_layers": TEXT_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}


class PublishedModel(nn.Module):
    """Tower, projector, language model and prompts, all of random numbers."""

    def __init__(self, visual_length: int = VISUAL_LENGTH, textual_length: int = TEXTUAL_LENGTH) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.visual_length, self.textual_length = visual_length, textual_length
        vision = CLIPVisionConfig(
            hidden_size=VISION_WIDTH,
            intermediate_size=40,
            num_hidden_layers=VISION_LAYERS,
            num_attention_heads=4,
            image_size=16,
            patch_size=4,
        )
        self.tower = CLIPVisionModel(vision)
        self.language = LlamaForCausalLM(LlamaConfig(**LLAMA))
        self.projector = nn.Linear(VISION_WIDTH, TEXT_WIDTH)
        self.visual = nn.ParameterList(torch.randn(1, visual_length, VISION_WIDTH) for _ in range(VISION_LAYERS))
        self.textual = nn.ParameterList(torch.randn(1, textual_length, TEXT_WIDTH) for _ in range(TEXT_LAYERS))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        self.eval()

    def features(self, pixels: Tensor) -> Tensor:
        """The input of the last layer, its first rows overwritten, without row 0 [V1 to V5, F1, F2]."""
        states = self.tower.pre_layrnorm(self.tower.embeddings(pixels))
        if self.visual_length:
            states = torch.cat([self.visual[0].expand(len(pixels), -1, -1), states], dim=1)
        for number, layer in enumerate(self.tower.encoder.layers):
            if self.visual_length:
                rows = self.visual[number].expand(len(pixels), -1, -1)
                states = torch.cat([rows, states[:, self.visual_length :]], dim=1)
            if number == VISION_LAYERS - 1:
                return states[:, 1:]
            states = layer(states, None)
        raise AssertionError

    def logits(self, input_ids: Tensor, pixels: Tensor) -> Tensor:
        """(B, P_t + T - 1 + P_v + 16, V): prompts stand before the begin token [A1, A2, L1 to L5, A6]."""
        text = self.language.model.embed_tokens(input_ids.clamp(min=0))
        image = self.projector(self.features(pixels))
        room = torch.zeros(len(text), self.textual_length, TEXT_WIDTH, dtype=text.dtype)
        rows = torch.cat([room, text[:, :1], image, text[:, 2:]], dim=1)

        def overwriting(prompt: Tensor):
            def overwrite(_module, arguments, keywords):
                states = arguments[0]
                return (torch.cat([prompt.expand(len(states), -1, -1), states[:, prompt.shape[1] :]], dim=1),), keywords

            return overwrite

        layers = zip(self.language.model.layers, self.textual, strict=True)
        handles = [
            layer.register_forward_pre_hook(overwriting(prompt), with_kwargs=True)
            for layer, prompt in layers
            if self.textual_length
        ]
        try:
            return self.language(inputs_embeds=rows, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()

    def loss(self, input_ids: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
        """Labels of prompts and of the picture's rows are ignored; shifted by one [A5]."""
        logits = self.logits(input_ids, pixels)
        before = torch.full((len(labels), self.textual_length), -100)
        picture = torch.full((len(labels), logits.shape[1] - self.textual_length - labels.shape[1] + 1), -100)
        every = torch.cat([before, labels[:, :1], picture, labels[:, 2:]], dim=1)
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), every[:, 1:].flatten())

    def greedy(self, input_ids: Tensor, pixels: Tensor, tokens: int) -> list[int]:
        """One sample's answer, everything fed again for every token."""
        answer: list[int] = []
        for _ in range(tokens):
            token = int(self.logits(input_ids, pixels)[0, -1].argmax())
            answer.append(token)
            input_ids = torch.cat([input_ids, torch.tensor([[token]])], dim=1)
        return answer

    def trained(self) -> dict[str, nn.Parameter]:
        """What is trained, by the published names [T3, C2]."""
        visual = {f"{TOWER_NAME}encoder.prompts.{number}": one for number, one in enumerate(self.visual)}
        textual = {f"model.prompts.{number}": one for number, one in enumerate(self.textual)}
        projector = {f"model.mm_projector.{name}": one for name, one in self.projector.named_parameters()}
        lengths = {True: {**visual, **textual}, False: {}}
        kept = {name: one for name, one in lengths[True].items() if one.shape[1]}
        return {**kept, **projector, "lm_head.weight": self.language.lm_head.weight}

    def state(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The checkpoint's tensors in the order of registration, with the tables of older libraries among them."""
        language = {name: one for name, one in self.language.state_dict().items() if name.startswith("model.")}
        trained = {name: one.detach() for name, one in self.trained().items()}
        tower = {f"{TOWER_NAME}{name}": one for name, one in self.tower.state_dict().items()}
        prompts = {name: one for name, one in trained.items() if name.startswith("model.prompts.")}
        tables = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}
        every = {**language, **tables, **prompts, **tower, **trained}
        converted = {name: one.to(dtype) for name, one in every.items()}
        return {**converted, f"{TOWER_NAME}embeddings.position_ids": torch.arange(17)[None]}


def write_checkpoint(folder: Path, state: dict[str, Tensor]) -> None:
    """Writes two shards with their index, the configuration and the tower's in a folder ``tower``."""
    folder.mkdir(parents=True)
    first = [name for name in state if name.startswith(("model.embed_tokens", "model.layers."))]
    shards = {SHARDS[0]: first, SHARDS[1]: [name for name in state if name not in first]}
    for shard, names in shards.items():
        torch.save({name: state[name] for name in names}, folder / shard)
    places = {name: shard for shard, names in shards.items() for name in names}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = {
        **LLAMA,
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_finetune",
        "mm_vision_tower": "some/tower",
        "mm_hidden_size": VISION_WIDTH,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "tune_mm_mlp_adapter": False,
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "square",
        "use_mm_proj": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tower = {"hidden_size": VISION_WIDTH, "intermediate_size": 40, "num_hidden_layers": VISION_LAYERS}
    tower |= {"num_attention_heads": 4, "image_size": 16, "patch_size": 4, "hidden_act": "quick_gelu"}
    (folder / "tower").mkdir()
    (folder / "tower" / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", **tower}))
    (folder / "tower" / "preprocessor_config.json").write_text(json.dumps(PICTURES))
