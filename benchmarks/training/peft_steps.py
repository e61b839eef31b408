"""transformers + peft on the same model: LoRA and prefix tuning on LLaVA.

The bare step is measured, without transformers' Trainer, whose logging and callbacks belong to no method: that is in
these peers' favour. Nothing is trained in the vision tower, so no graph is kept there.
"""

import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, TaskType, get_peft_model

from benchmarks.training.inputs import IMAGE_MARK_ID
from benchmarks.training.llava_weights import llava_of
from benchmarks.training.peer import Peer
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span

LINEAR_LAYERS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
"""Every linear layer of the decoder, as LLaVA's and MixLoRA's LoRA have it."""
Inputs = dict[str, torch.Tensor]


def llava_inputs(batch: Batch, patches: int) -> Inputs:
    """Returns the batch as LLaVA reads it: one marked position for every patch."""
    columns: dict[str, list[torch.Tensor]] = {"input_ids": [], "labels": [], "attention_mask": []}
    for ids, labels, spans in zip(batch.input_ids, batch.labels, batch.spans, strict=True):
        (place,) = (ids == IMAGE_TOKEN_ID).nonzero().flatten().tolist()
        rows = {
            "input_ids": (ids, IMAGE_MARK_ID),
            "labels": (labels, IGNORED_LABEL),
            "attention_mask": ((spans != Span.PADDING).long(), 1),
        }
        for name, (row, mark) in rows.items():
            columns[name].append(torch.cat([row[:place], row.new_full((patches,), mark), row[place + 1 :]]))
    return {"pixel_values": batch.pixel_values} | {name: torch.stack(rows) for name, rows in columns.items()}


def lora_model(backbone: OpenClipLlama, rank: int) -> PeftModel:
    """Returns LLaVA with low-rank updates of every linear layer of the decoder, which start at zero."""
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=LINEAR_LAYERS, task_type=TaskType.CAUSAL_LM)
    return get_peft_model(llava_of(backbone, "sdpa"), config)


def prefix_model(backbone: OpenClipLlama, length: int) -> PeftModel:
    """Returns LLaVA with learned keys and values in front of every decoder layer's own."""
    shape = backbone.shape
    config = PrefixTuningConfig(
        num_virtual_tokens=length,
        task_type=TaskType.CAUSAL_LM,
        num_layers=shape.text_layers,
        token_dim=shape.text_width,
        num_attention_heads=shape.text_heads,
    )
    return get_peft_model(llava_of(backbone, "sdpa"), config)


def rank_for(backbone: OpenClipLlama, numbers: int) -> int:
    """Returns the rank whose count of trained numbers is nearest to a given one."""
    decoder = backbone.language_model.model
    per_rank = sum(
        sum(layer.weight.shape)
        for name, layer in decoder.named_modules()
        if name.endswith(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))
    )
    return max(1, round(numbers / per_rank))


def peft_peer(name: str, model: PeftModel, inputs: Inputs) -> Peer:
    """Returns the model's own step: its forward pass computes the loss."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Peer(name, lambda: model(**inputs).loss, trained, [model])


def frozen_loss(model: PeftModel, inputs: Inputs) -> float:
    """Returns the loss of the model without what is trained."""
    with torch.no_grad(), model.disable_adapter():
        return float(model(**inputs).loss)
