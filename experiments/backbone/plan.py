"""Which stages there are, what decides each one's result, and how each is run."""

from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from experiments.backbone.joint_stage import JointStage
from experiments.backbone.language_stage import LanguageStage
from experiments.backbone.settings import RECIPE_VERSION, RecipeSettings
from experiments.backbone.stage_files import StageFiles, StageRecord, fingerprint_of
from experiments.backbone.tokenizer import build_tokenizer, vocabulary_words
from experiments.backbone.training_loop import ProgressReport, run_stage, use_one_thread
from experiments.backbone.vision_stage import VisionStage
from experiments.testbed.questions import QUESTION_TYPES
from experiments.testbed.world_version import WORLD_VERSION

INDEPENDENT_STAGES = ("vision", "language")
JOINT = "joint"


def questions_fingerprint() -> str:
    """Returns a hash of every question type's weight and phrasings."""
    return fingerprint_of(
        [
            [kind.name, kind.use.value, kind.weight, [[form.text, *form.truth_words] for form in kind.phrasings]]
            for kind in QUESTION_TYPES
        ]
    )


def stage_files(stage: str, settings: RecipeSettings, work: Path) -> StageFiles:
    """Returns a stage's files, with the fingerprint of all that decides its result."""
    parts: list[object] = [RECIPE_VERSION, WORLD_VERSION, stage, settings.seed, asdict(settings.architecture)]
    if stage == "vision":
        parts.append(asdict(settings.vision))
    elif stage == "language":
        parts += [asdict(settings.language), vocabulary_words(), questions_fingerprint()]
    else:
        inputs = [stage_files(name, settings, work).fingerprint for name in INDEPENDENT_STAGES]
        parts += [asdict(settings.joint), vocabulary_words(), questions_fingerprint(), inputs]
    return StageFiles(work, stage, fingerprint_of(*parts))


def run_named_stage(stage: str, settings: RecipeSettings, work: Path, report: ProgressReport) -> StageRecord:
    """Runs one stage, or returns its record where it is finished already."""
    files = stage_files(stage, settings, work)
    finished = files.finished()
    if finished is not None:
        return finished
    use_one_thread()
    if stage == "vision":
        return run_stage(VisionStage(settings), files, settings, report)
    tokenizer = build_tokenizer(settings.architecture.maximum_positions)
    if stage == "language":
        return run_stage(LanguageStage(settings, tokenizer), files, settings, report)
    tensors: dict[str, Tensor] = {}
    for name in INDEPENDENT_STAGES:
        tensors |= stage_files(name, settings, work).weights()
    return run_stage(JointStage(settings, tokenizer, tensors), files, settings, report)
