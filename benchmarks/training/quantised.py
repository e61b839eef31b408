"""How far a language model in four and eight bits is from its files' numbers, and what a step of each takes.

    python -m benchmarks.training.quantised --language_model DIR

Each form is read by itself, so that one is in memory at a time. What is compared is the loss of a text's next tokens:
its logits, and its gradient for the rows that the decoder is given. The float32 model is what all are compared with; a
packed one also with the plain model of its dequantised weights, in the same type. Times are process time of one thread.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.report.machine import machine
from lightning_m2pt.backbones.language_model import check_language_folder, load_language_model
from lightning_m2pt.backbones.quantised import QuantisedLinear, Quantization, refuse_missing_package
from lightning_m2pt.backbones.tokenizer_files import load_tokenizer
from lightning_m2pt.system.console import say

SAMPLES, TOKENS = 4, 96
TEXT = Path("docs/methods.md")


@dataclass(frozen=True)
class Form:
    """How a language model is read."""

    name: str
    dtype: torch.dtype
    quantization: Quantization | None = None


FORMS = (
    Form("float32", torch.float32),
    Form("bfloat16", torch.bfloat16),
    Form("int8, computing in bfloat16", torch.bfloat16, "int8"),
    Form("nf4, computing in bfloat16", torch.bfloat16, "nf4"),
    Form("int8, computing in float32", torch.float32, "int8"),
    Form("nf4, computing in float32", torch.float32, "nf4"),
)


def step(model: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the logits (B, T, V) and the gradient of the rows (B, T, D)."""
    rows = model.get_input_embeddings()(tokens).detach().requires_grad_()
    logits = model(inputs_embeds=rows, use_cache=False).logits.float()
    nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    assert rows.grad is not None
    return logits.detach(), rows.grad


def process_seconds(model: Any, tokens: Tensor, repeats: int) -> float:
    """Returns the median process time of a step; it has run once before."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        step(model, tokens)
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def dequantise(model: nn.Module, dtype: torch.dtype) -> None:
    """Puts plain layers with the weights they multiply by in the place of packed ones."""
    for name, layer in [(n, each) for n, each in model.named_modules() if isinstance(each, QuantisedLinear)]:
        with torch.device("meta"):
            plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, dtype=dtype)
        plain.weight = nn.Parameter(layer.dequantised(dtype), requires_grad=False)
        plain.bias = layer.bias
        model.set_submodule(name, plain)


def cosine(one: Tensor, other: Tensor) -> float:
    """Returns the cosine of two tensors as long vectors."""
    return float(nn.functional.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0))


def relative(found: Tensor, expected: Tensor) -> float:
    """Returns the size of the difference as a share of the size of what is expected."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def measured(folder: Path, form: Form, tokens: Tensor, reference: Any, repeats: int) -> Any:
    """Returns one form's figures, and its logits and gradient."""
    model = load_language_model(folder, form.dtype, form.quantization)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    logits, gradient = step(model, tokens)
    expected, wanted = reference or (logits, gradient)
    known = expected.log_softmax(dim=-1)
    figures = {
        "form": form.name,
        "weights_bytes": sum(each.numel() * each.itemsize for each in model.parameters()),
        "seconds_per_step": process_seconds(model, tokens, repeats),
        "logits_relative_difference": relative(logits, expected),
        "divergence": float((known.exp() * (known - logits.log_softmax(dim=-1))).sum(dim=-1).mean()),
        "same_best_token": float((logits.argmax(dim=-1) == expected.argmax(dim=-1)).float().mean()),
        "gradient_cosine": cosine(gradient, wanted),
    }
    if form.quantization is not None:
        dequantise(model, form.dtype)
        own_logits, own_gradient = step(model, tokens)
        figures["gradient_cosine_to_dequantised"] = cosine(gradient, own_gradient)
        figures["equals_dequantised"] = torch.equal(logits, own_logits) and torch.equal(gradient, own_gradient)
    return figures, (logits, gradient)


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the figures as people read them."""
    lines = [
        "| | weights, MB | s a step | logits | divergence, nats | same best token | gradient | to its dequantised |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own = f"{row['gradient_cosine_to_dequantised']:.6f}" if "equals_dequantised" in row else ""
        lines.append(
            f"| {row['form']} | {row['weights_bytes'] / 1e6:.0f} | {row['seconds_per_step']:.2f} "
            f"| {row['logits_relative_difference']:.3f} | {row['divergence']:.4f} | {row['same_best_token']:.3f} "
            f"| {row['gradient_cosine']:.4f} | {own}{' (equal)' if row.get('equals_dequantised') else ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures every form, prints the table and stores the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language_model", type=Path, required=True, help="folder of a proven form with its tokenizer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/quantised.json"))
    own = parser.parse_args()
    torch.set_num_threads(1)
    check_language_folder(own.language_model)
    refuse_missing_package("nf4")
    ids = load_tokenizer(own.language_model)(TEXT.read_text(encoding="utf-8"))["input_ids"]
    tokens = torch.tensor(ids[: SAMPLES * TOKENS]).view(SAMPLES, TOKENS)
    rows, reference = [], None
    for form in FORMS:
        figures, numbers = measured(own.language_model, form, tokens, reference, own.repeats)
        reference = reference or numbers
        rows.append(figures)
    say(table(rows))
    content = {"language_model": own.language_model.name, "forms": rows, "made_with": machine()}
    own.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
