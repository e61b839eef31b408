"""transformers' LLaVA, its Trainer and PEFT on the real pair: the model of our backbone in the library's own classes.

Nothing of this project computes in it. Both sides start from the same low-rank matrices, or the same prefix.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    TrainerCallback,
    TrainingArguments,
)
from transformers import Trainer as LibraryTrainer

from benchmarks.training.peft_steps import LINEAR_LAYERS
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.prefix_tuning import PrefixTuning

LEARNING_RATE = 1e-4
Inputs = dict[str, Tensor]


def llava_of_pair(tower: Path, language: Path, projector: nn.Linear, dtype: torch.dtype) -> Any:
    """Returns a frozen LLaVA of the pair's files; its picture token is the vocabulary's last.

    LLaVA's connector has two layers, ours one: the second is taken out.
    """
    vision = AutoModel.from_pretrained(tower, dtype=dtype, trust_remote_code=False)
    decoder = AutoModelForCausalLM.from_pretrained(language, dtype=dtype, trust_remote_code=False)
    decoder.config.use_cache = False
    config = LlavaConfig(
        vision_config=vision.config,
        text_config=decoder.config,
        image_token_id=decoder.config.vocab_size - 1,
        projector_hidden_act="linear",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower, model.model.language_model = vision, decoder.model
    connector = model.model.multi_modal_projector
    connector.linear_1, connector.linear_2 = nn.Linear(projector.in_features, projector.out_features), nn.Identity()
    connector.linear_1.load_state_dict(projector.state_dict())
    connector.linear_1.to(dtype)
    model.lm_head, model.generation_config = decoder.lm_head, decoder.generation_config
    return model.requires_grad_(False).eval()


def inputs_of(batch: Batch, patches: int, picture_token: int, *, on_the_left: bool = False) -> Inputs:
    """Returns a batch as LLaVA reads it: one marked position for every patch; padding where a tokenizer puts it."""
    rows: dict[str, list[Tensor]] = {"input_ids": [], "labels": [], "attention_mask": []}
    for ids, labels, spans in zip(batch.input_ids, batch.labels, batch.spans, strict=True):
        (place,) = (ids == IMAGE_TOKEN_ID).nonzero().flatten().tolist()
        real = (spans != Span.PADDING).long()
        for name, row, mark in (
            ("input_ids", ids, picture_token),
            ("labels", labels, IGNORED_LABEL),
            ("attention_mask", real, 1),
        ):
            whole = torch.cat([row[:place], row.new_full((patches,), mark), row[place + 1 :]])
            rows[name].append(whole.roll(int((real == 0).sum())) if on_the_left else whole)
    return {"pixel_values": batch.pixel_values} | {name: torch.stack(each) for name, each in rows.items()}


def tuned_by_peft(model: Any, method: Method) -> PeftModel:
    """Returns the model with PEFT's form of a method, its numbers those that the method has now."""
    if isinstance(method, Lora):
        config = LoraConfig(
            r=method.rank, lora_alpha=method.alpha, target_modules=LINEAR_LAYERS, task_type=TaskType.CAUSAL_LM
        )
        tuned = get_peft_model(model, config)
        copy_matrices(tuned, method)
        return tuned
    assert isinstance(method, PrefixTuning)
    assert method.prefix is not None
    text = model.config.text_config
    config = PrefixTuningConfig(
        num_virtual_tokens=method.prefix.length,
        task_type=TaskType.CAUSAL_LM,
        num_layers=text.num_hidden_layers,
        token_dim=text.num_key_value_heads * text.head_dim,
        num_attention_heads=text.num_key_value_heads,
    )
    tuned = get_peft_model(model, config)
    numbers = method.prefix.keys_and_values().detach()  # (L, 2, P, H_kv * D_head)
    table = tuned.prompt_encoder["default"].embedding.weight
    table.data.copy_(numbers.permute(2, 0, 1, 3).flatten(1))
    return tuned


def copy_matrices(tuned: PeftModel, method: Lora) -> None:
    """Gives PEFT's low-rank matrices our numbers, layer by layer.

    Raises:
        RuntimeError: If there are others.
    """
    of_layer = {name.rpartition("layers.")[2]: each for name, each in method.named_tensors().items()}
    theirs = {
        name.rpartition("layers.")[2].replace(".default.weight", ".weight"): each
        for name, each in tuned.named_parameters()
        if each.requires_grad
    }
    ours = {name.replace(".default.weight", ".weight"): each for name, each in of_layer.items()}
    if set(ours) != set(theirs):
        raise RuntimeError(f"not the same matrices: {sorted(set(ours) ^ set(theirs))[:4]}")
    for name, each in theirs.items():
        each.data.copy_(ours[name])


class StepTimes(TrainerCallback):  # type: ignore[misc]  # the library says nothing of its type
    """Process and wall seconds of each step of transformers' Trainer, loading and optimizer in them."""

    def __init__(self) -> None:
        self.seconds: list[tuple[float, float]] = []
        self._last: tuple[float, float] | None = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Starts the clocks."""
        self._last = clocks()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Reads the clocks."""
        now = clocks()
        assert self._last is not None
        self.seconds.append((now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now


def clocks() -> tuple[float, float]:
    """Returns process and wall time, seconds."""
    return time.process_time(), time.perf_counter()


def steps_of_library(tuned: PeftModel, batches: Sequence[Inputs], folder: Path) -> list[tuple[float, float]]:
    """Trains one step on each batch under transformers' Trainer; returns process and wall seconds of each."""
    times = StepTimes()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        max_steps=len(batches),
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    trainer = LibraryTrainer(
        model=tuned,
        args=arguments,
        train_dataset=list(batches),  # type: ignore[arg-type]
        data_collator=lambda items: items[0],
        callbacks=[times],
    )
    trainer.train()
    return times.seconds
