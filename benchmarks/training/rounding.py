"""Where bfloat16's error in a language model's answers comes from when prompts stand in front of every layer.

    python -m benchmarks.training.rounding --language_model models/smollm2_dinov2/language

Rows of a question and its answer run through a Llama whose operations are written out below, in float32. Each kind of
operation can be made to round what it gives to bfloat16, alone or with all others; weights can be rounded without
rounding anything that is computed. The same is asked of the project's own pass and of transformers', both in bfloat16.
How much the decoder enlarges *any* disturbance is measured without bfloat16: noise of the size of its rounding is added
to the first layer's rows.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, silu

from benchmarks.report.machine import machine
from benchmarks.training.quantised import cosine
from lightning_m2pt.backbones.language_model import check_language_folder, load_language_model
from lightning_m2pt.backbones.tokenizer_files import load_tokenizer
from lightning_m2pt.prompts.decoder_pass import append_rows, prompt_rows
from lightning_m2pt.prompts.past_rows import no_rows, use_past_rows
from lightning_m2pt.system.console import say

OPERATIONS = ("residual sums", "norms", "projections", "rotations", "attention", "MLP", "head")
ROUNDING = 2.0**-9
"""The largest relative error of one rounding to bfloat16."""
LENGTH, DRAWS = 10, 2
TEXT = Path("docs/methods.md")
WORDS = "A picture of a small world with few things in it, on a plain ground."
TOKENS = 96


def rounded(values: Tensor) -> Tensor:
    """Returns what bfloat16 keeps of float32 numbers."""
    return values.to(torch.bfloat16).to(torch.float32)


@dataclass(frozen=True)
class Prompts:
    """Rows that each layer finds in its input.

    Attributes:
        rows: (1, LENGTH, D) for every layer; none for the frozen model.
        first: The place of the first of them; what stood there and behind is moved back.
    """

    rows: Sequence[Tensor] = ()
    first: int = 0

    def with_room(self, rows: Tensor) -> Tensor:
        """Returns rows (1, S, D) with room for prompts."""
        if not self.rows:
            return rows
        return torch.cat([rows[:, : self.first], torch.zeros_like(self.rows[0]), rows[:, self.first :]], dim=1)

    def put(self, layer: int, states: Tensor) -> Tensor:
        """Returns the rows that a layer reads."""
        if not self.rows:
            return states
        behind = states[:, self.first + LENGTH :]
        return torch.cat([states[:, : self.first], self.rows[layer], behind], dim=1)

    def without(self, states: Tensor) -> Tensor:
        """Returns rows or logits (1, S, ...) without the prompts'."""
        return torch.cat([states[:, : self.first], states[:, self.first + LENGTH :]], dim=1) if self.rows else states


class WrittenOut:
    """A Llama, one sample, in float32.

    Args:
        model: transformers' model.
        round_weights: Whether its weights are rounded to bfloat16.
    """

    def __init__(self, model: Any, *, round_weights: bool = False) -> None:
        def kept(tensor: Tensor) -> Tensor:
            return rounded(tensor.detach()) if round_weights else tensor.detach()

        self.config = model.config
        self.rotary = model.model.rotary_emb
        self.layers = [{n: kept(one) for n, one in layer.named_parameters()} for layer in model.model.layers]
        self.norm, self.head = kept(model.model.norm.weight), kept(model.lm_head.weight)

    def logits(
        self, rows: Tensor, prompts: Prompts, rounds: Sequence[str] = (), noise: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Returns logits (1, S, V) without prompts' rows, and how long each row is two thirds up (S + P,).

        Args:
            rows: (1, S, D).
            prompts: What stands among them.
            rounds: The kinds of operations that round.
            noise: Length of random noise that is added to the first layer's rows, as a share of theirs.
        """
        keep = {name: rounded if name in rounds else _as_it_is for name in OPERATIONS}
        states = keep["residual sums"](prompts.with_room(rows))
        positions = torch.arange(states.shape[1])[None]
        rotation = tuple(keep["rotations"](each)[:, None] for each in self.rotary(states, positions))
        lengths = states[0, :, 0]
        for number, weights in enumerate(self.layers):
            states = keep["residual sums"](prompts.put(number, states))
            if number == 0 and noise:
                drawn = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
                states = states + noise * drawn * states.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)
            if number == 2 * len(self.layers) // 3:
                lengths = states[0].norm(dim=-1)
            states = self._layer(weights, states, rotation, keep)
        normed = self._normed(prompts.without(states), self.norm, keep)
        return keep["head"](linear(normed, self.head)), lengths

    def _layer(self, weights: Mapping[str, Tensor], states: Tensor, rotation: Any, keep: Mapping[str, Any]) -> Tensor:
        normed = self._normed(states, weights["input_layernorm.weight"], keep)
        seen = self._attention(weights, normed, rotation, keep)
        states = keep["residual sums"](states + seen)
        normed = self._normed(states, weights["post_attention_layernorm.weight"], keep)
        gate, up = (keep["MLP"](linear(normed, weights[f"mlp.{name}_proj.weight"])) for name in ("gate", "up"))
        inner = keep["MLP"](keep["MLP"](silu(gate)) * up)
        return keep["residual sums"](states + keep["MLP"](linear(inner, weights["mlp.down_proj.weight"])))

    def _attention(
        self, weights: Mapping[str, Tensor], normed: Tensor, rotation: Any, keep: Mapping[str, Any]
    ) -> Tensor:
        heads, groups, width = self.config.num_attention_heads, self.config.num_key_value_heads, self.config.head_dim
        query, key, value = (
            keep["projections"](linear(normed, weights[f"self_attn.{name}_proj.weight"]))
            .view(1, normed.shape[1], -1, width)
            .transpose(1, 2)
            for name in "qkv"
        )
        query, key = (self._rotated(each, rotation, keep["rotations"]) for each in (query, key))
        key, value = (each.repeat_interleave(heads // groups, dim=1) for each in (key, value))
        hidden = torch.full((normed.shape[1],) * 2, float("-inf")).triu(1)
        scores = keep["attention"](keep["attention"](query * width**-0.5) @ key.transpose(2, 3)) + hidden
        seen = keep["attention"](keep["attention"](scores.softmax(dim=-1)) @ value)
        seen = seen.transpose(1, 2).reshape(1, normed.shape[1], -1)
        return keep["projections"](linear(seen, weights["self_attn.o_proj.weight"]))

    def _rotated(self, states: Tensor, rotation: tuple[Tensor, Tensor], keep: Any) -> Tensor:
        first, second = states.chunk(2, dim=-1)
        return keep(keep(states * rotation[0]) + keep(torch.cat([-second, first], dim=-1) * rotation[1]))

    def _normed(self, states: Tensor, weight: Tensor, keep: Mapping[str, Any]) -> Tensor:
        scale = torch.rsqrt(states.pow(2).mean(dim=-1, keepdim=True) + self.config.rms_norm_eps)
        return keep["norms"](weight * keep["norms"](states * scale))

    def rows_of_words(self, tokens: Sequence[int]) -> list[Tensor]:
        """Returns what the decoder makes of words at each layer's input, (1, LENGTH, D) each."""
        rows, found = embedded(self.head, tokens), []
        rotation = tuple(each[:, None] for each in self.rotary(rows, torch.arange(len(tokens))[None]))
        keep = dict.fromkeys(OPERATIONS, _as_it_is)
        for weights in self.layers:
            found.append(rows)
            rows = self._layer(weights, rows, rotation, keep)
        return found


def _as_it_is(values: Tensor) -> Tensor:
    return values


def embedded(embedding: Tensor, tokens: Sequence[int]) -> Tensor:
    """Returns the rows (1, T, D) of tokens."""
    return embedding[torch.tensor(list(tokens))][None]


def relative(found: Tensor, expected: Tensor) -> float:
    """Returns the size of the difference as a share of the size of what is expected."""
    return float((found.float() - expected).norm() / expected.norm())


def of_the_project(model: Any, rows: Tensor, prompts: Prompts) -> Tensor:
    """Returns logits (1, S, V) of the project's own pass, prompts in front as keys and values, in the model's type."""
    decoder, embeddings = model.model, rows.to(model.dtype)
    given = [each.to(model.dtype) for each in prompts.rows]
    past = prompt_rows(decoder, given) if given else no_rows(rows.device)
    positions = past.length + torch.arange(rows.shape[1])[None]
    logits: Tensor = model.lm_head(append_rows(decoder, past, embeddings, positions, keeps=False)[0])
    return logits


def of_the_library(model: Any, rows: Tensor, prompts: Prompts) -> Tensor:
    """Returns logits (1, S, V) of transformers' whole model with rows overwritten by hooks, in the model's type."""

    def hook(layer: int) -> Any:
        def overwrite(_module: object, given: tuple[Tensor, ...], named: Any) -> Any:
            return (prompts.put(layer, given[0].float()).to(model.dtype), *given[1:]), named

        return overwrite

    hooks = [each.register_forward_pre_hook(hook(n), with_kwargs=True) for n, each in enumerate(model.model.layers)]
    logits: Tensor = model(inputs_embeds=prompts.with_room(rows).to(model.dtype), use_cache=False).logits
    for each in hooks:
        each.remove()
    return prompts.without(logits)


def random_prompts(layers: int, width: int, std: float, seed: int, first: int = 0) -> Prompts:
    """Returns rows of normal numbers for every layer."""
    generator = torch.Generator().manual_seed(seed)
    return Prompts([torch.randn(1, LENGTH, width, generator=generator) * std for _ in range(layers)], first)


@dataclass(frozen=True)
class Model:
    """The same language model three ways.

    Attributes:
        exact: Written out.
        round_weights: The same with rounded weights.
        wide: transformers' model in float32.
        narrow: The same in bfloat16.
    """

    exact: WrittenOut
    round_weights: WrittenOut
    wide: Any
    narrow: Any


def error_of(model: Model, tokens: Sequence[int], prompts: Prompts) -> dict[str, float]:
    """Returns the errors of the logits, as shares of their size, of gradients, and what the decoder makes of noise."""
    rows = embedded(model.exact.head, tokens)
    exact, lengths = model.exact.logits(rows, prompts)
    weights, _ = model.round_weights.logits(rows, prompts)
    noisy, _ = model.exact.logits(rows, prompts, noise=ROUNDING)
    computed, _ = model.round_weights.logits(rows, prompts, OPERATIONS)
    found = {
        "noise": relative(noisy, exact) / ROUNDING,
        "weights": relative(weights, exact),
        "written out": relative(computed, exact),
        "transformers": relative(of_the_library(model.narrow, rows, prompts), exact),
        "first row": float(lengths[0] / lengths.median()),
    }
    if prompts.first:
        return found  # prompts as keys and values stand in front of all rows
    found["project"] = relative(of_the_project(model.narrow, rows, prompts), exact)
    if prompts.rows:
        wanted, own = (prompt_gradient(each, tokens, rows, prompts) for each in (model.wide, model.narrow))
        found["gradient"] = cosine(own, wanted)
    return found


@torch.enable_grad()
def prompt_gradient(model: Any, tokens: Sequence[int], rows: Tensor, prompts: Prompts) -> Tensor:
    """Returns the gradient of every prompt row, one behind another, of the loss of a text's next tokens."""
    learned = [each.clone().requires_grad_() for each in prompts.rows]
    logits = of_the_project(model, rows, Prompts(learned))[0].float()
    cross_entropy(logits[:-1], torch.tensor(list(tokens[1:]))).backward()
    return torch.cat([each.grad.flatten() for each in learned if each.grad is not None])


def error_by_operation(model: Model, tokens: Sequence[int], prompts: Prompts) -> dict[str, dict[str, float]]:
    """Returns the error of the logits when one kind of operation alone rounds, and when all others do."""
    rows = embedded(model.exact.head, tokens)
    exact, _ = model.round_weights.logits(rows, prompts)
    errors: dict[str, dict[str, float]] = {}
    for name in OPERATIONS:
        others = [other for other in OPERATIONS if other != name]
        alone, but_one = (model.round_weights.logits(rows, prompts, which)[0] for which in ([name], others))
        errors[name] = {"alone": relative(alone, exact), "all others": relative(but_one, exact)}
    return errors


def mean(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the means of figures, of those inside figures too."""
    return {
        name: mean([each[name] for each in found])
        if isinstance(value, Mapping)
        else statistics.mean(each[name] for each in found)
        for name, value in found[0].items()
    }


def measured(folder: Path) -> dict[str, Any]:
    """Returns the figures of every kind of prompts, means over texts and draws."""
    tokenizer = load_tokenizer(folder)
    exact = load_language_model(folder, torch.float32)
    written, narrow = WrittenOut(exact), load_language_model(folder, torch.bfloat16)
    for each in (exact, narrow):
        use_past_rows(each.model)
        each.requires_grad_(False)
    model = Model(written, WrittenOut(exact, round_weights=True), exact, narrow)
    ids = tokenizer(TEXT.read_text(encoding="utf-8"))["input_ids"]
    texts = [ids[n * TOKENS : (n + 1) * TOKENS] for n in range(DRAWS)]
    layers, width = exact.config.num_hidden_layers, exact.config.hidden_size
    words = Prompts(written.rows_of_words(tokenizer(WORDS, add_special_tokens=False)["input_ids"][:LENGTH]))
    kinds = {
        "none": [Prompts()] * DRAWS,
        "random, std 0.02": [random_prompts(layers, width, 0.02, seed) for seed in range(DRAWS)],
        "random, std 0.1": [random_prompts(layers, width, 0.1, seed) for seed in range(DRAWS)],
        "random, std 0.3": [random_prompts(layers, width, 0.3, seed) for seed in range(DRAWS)],
        "random, std 0.1, behind the first row": [random_prompts(layers, width, 0.1, seed, 1) for seed in range(DRAWS)],
        "of words": [words] * DRAWS,
    }
    errors = {
        name: mean([error_of(model, *pair) for pair in zip(texts, prompts, strict=True)])
        for name, prompts in kinds.items()
    }
    by_operation = {
        name: mean([error_by_operation(model, *pair) for pair in zip(texts, kinds[name], strict=True)])
        for name in ("none", "random, std 0.1")
    }
    return {"errors": errors, "by_operation": by_operation}


@torch.no_grad()
def main() -> None:
    """Measures, prints and stores the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language_model", type=Path, required=True, help="folder of a Llama with its tokenizer")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/rounding.json"))
    own = parser.parse_args()
    torch.set_num_threads(1)
    check_language_folder(own.language_model)
    content = measured(own.language_model) | {"language_model": own.language_model.name, "made_with": machine()}
    say(json.dumps(content, indent=2))
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
