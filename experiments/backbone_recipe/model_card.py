"""The embedded backbone's model card, from its settings, records and gates."""

from collections.abc import Mapping, Sequence

from experiments.backbone_recipe.gates import GateReport
from experiments.backbone_recipe.settings import RecipeSettings
from experiments.backbone_recipe.stage_files import StageRecord
from experiments.testbed.asking import QuestionType
from experiments.testbed.pretraining_images import INSTRUCTION_DOMAIN_PROBABILITY
from experiments.testbed.questions import HELD_OUT_TYPES, TEXT_ONLY_TYPES, TUNED_TYPES
from experiments.testbed.rendering import TRAINING_SCANS

SUPERVISION = {
    "vision": (
        "labels of every cell (name, colour, size) of {pictures:,} pretraining pictures; no text",
        "an open_clip vision transformer, blocks 1 to {used_layers}",
    ),
    "language": (
        "questions and answers about scenes given as words in twelve scattered slots; no image",
        "the language model",
    ),
    "raster_language": (
        "the same with {patches} slots, one for each patch in reading order; no image",
        "the language model",
    ),
    "dense": (
        "region words: the dense loss draws each patch's projected row to the sum of the word embeddings of its cell "
        "(embeddings of the language stage, fixed); same pictures",
        "vision transformer and projector, which begins with its least-squares solution",
    ),
    "joint": (
        "captions of the same pictures; questions and answers about {patches} word slots without image",
        "the language model without its word embeddings",
    ),
}
"""What each stage learns from, and what it trains."""

INTRODUCTION = """\
# Embedded testbed backbone

A small vision-language model of the make-up the paper uses: an open_clip vision transformer, a linear projector and a
Llama-form language model, pretrained from nothing by `m2pt backbone` on pictures of a synthetic world. It exists so
that the whole protocol (frozen model, instruction tuning, zero-shot evaluation) runs on a laptop in minutes. It knows
ten shapes, ten digits, seven colours and nine positions, and nothing else. `docs/testbed.md` says what it is used for
and how the domain of tuning and evaluation was chosen.
"""

DETAILS = """\
## Parts

| part | form | files |
| --- | --- | --- |
| vision | open_clip vision transformer: image {image_size}, patch {patch_size}, width {vision_width}, \
{vision_layers} blocks | `vision/` |
| projector | `torch.nn.Linear({vision_width}, {language_width})` | `projector/` |
| language | `LlamaForCausalLM`: width {language_width}, {language_layers} layers, word-level tokenizer | `language/` |

- Features are the input of the last block (layer -2), patches only, not normalised. So blocks 1 to {used_layers} are
  trained and used; **the last block, `ln_post`, `proj` and the text tower of the configuration's form are not**: the
  first three hold their initial values, the last has no weights.
- The sequence in pretraining is `<s>`, {patches} rows of the image or of slots, then the `plain` conversation template.
  `vicuna_v1`, in which tuning and evaluation talk, was never seen.
- Digits are the real scans of scikit-learn's `load_digits` (UCI Optical Recognition of Handwritten Digits, CC BY 4.0),
  {training_scans:,} of them; the others appear in evaluation and gates only.
- {instruction_share:.0%} of the pretraining pictures are in the "instruction" domain. The shifted domain, where tuning
  and evaluation happen, was never seen.
"""

QUESTIONS_IN_PRETRAINING = """\
## What was asked in pretraining

- With an image: the caption only (`describe`). No other question.
- In text only, and later tuned with images in stage 2: {tuned}.
- In text only, and held out from stage 2 (evaluation asks them, in other words): {held_out}.
- In text only, further forms of the held-out types: {text_only}.
"""


def model_card(
    settings: RecipeSettings, stages: Sequence[StageRecord], gates: GateReport, hashes: Mapping[str, str]
) -> str:
    """Returns the card as Markdown.

    Args:
        settings: The recipe's settings.
        stages: What each training stage did.
        gates: What the finished model reached.
        hashes: SHA-256 of the shipped files by their path in the folder.
    """
    architecture = settings.architecture
    details = DETAILS.format(
        image_size=architecture.image_size,
        patch_size=architecture.patch_size,
        vision_width=architecture.vision_width,
        vision_layers=architecture.vision_layers,
        used_layers=architecture.vision_layers - 1,
        language_width=architecture.language_width,
        language_layers=architecture.language_layers,
        patches=architecture.patches,
        training_scans=TRAINING_SCANS,
        instruction_share=INSTRUCTION_DOMAIN_PROBABILITY,
    )
    questions = QUESTIONS_IN_PRETRAINING.format(
        tuned=_names(TUNED_TYPES), held_out=_names(HELD_OUT_TYPES), text_only=_names(TEXT_ONLY_TYPES)
    )
    sections = [INTRODUCTION, details, _stage_section(settings, stages), questions, _gate_section(gates)]
    return "\n".join([*sections, _file_section(hashes)])


def _names(types: Sequence[QuestionType]) -> str:
    return ", ".join(f"`{kind.name}`" for kind in types)


def _stage_section(settings: RecipeSettings, stages: Sequence[StageRecord]) -> str:
    lines = [
        "## Training stages and their supervision",
        "",
        "| stage | steps | supervision | trains | last losses | CPU s | wall s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for stage in stages:
        supervision, trains = SUPERVISION[stage.stage]
        words = {
            "pictures": settings.joint.pictures,
            "used_layers": settings.architecture.vision_layers - 1,
            "patches": settings.architecture.patches,
        }
        losses = ", ".join(f"{name} {value:.4g}" for name, value in stage.losses[-1].items() if name != "step")
        lines.append(
            f"| {stage.stage} | {stage.step} | {supervision.format(**words)} | {trains.format(**words)} | {losses} "
            f"| {stage.cpu_seconds:.0f} | {stage.wall_seconds:.0f} |"
        )
    lines += [
        "",
        "Wall time is from a machine that others used as well. Losses at every recorded step are in `training.json`.",
        "",
    ]
    return "\n".join(lines)


def _gate_section(gates: GateReport) -> str:
    lines = [
        "## Gates",
        "",
        "Measured on held-out pictures of the pretraining domain with digit scans that no training stage has seen,",
        "aligned model only, greedy decoding, the whole answer strict.",
        "",
        "| gate | must reach | figure | questions | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {gate.name} | {gate.threshold:.2f} | {gate.figure:.3f} | {gate.questions} | {gate.verdict} |"
        for gate in gates.gates
    ]
    missed = ", ".join(gate.name.partition(",")[0] for gate in gates.gates if gate.verdict == "open")
    if missed:
        lines += [
            "",
            f"**This backbone misses gates: {missed}.** `docs/testbed.md` lists the attempts; a result on it is one "
            "on a\nmodel that does not fully have the skills the testbed asks for.",
        ]
    lines += ["", "| question type | text | images |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {figure:.3f} | {gates.image_accuracy[name]:.3f} |" for name, figure in gates.text_accuracy.items()
    ]
    return "\n".join([*lines, ""])


def _file_section(hashes: Mapping[str, str]) -> str:
    lines = ["## Files", "", "| file | SHA-256 |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| `{name}` | `{value}` |" for name, value in hashes.items()), ""])
