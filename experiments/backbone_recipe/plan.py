"""Which stages there are, what decides each one's result, and how each is run."""

from dataclasses import asdict
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from experiments.backbone_recipe.dense_stage import DenseStage
from experiments.backbone_recipe.joint_stage import JointStage
from experiments.backbone_recipe.language_stage import LanguageStage
from experiments.backbone_recipe.settings import RECIPE_VERSION, RecipeSettings
from experiments.backbone_recipe.stage_files import StageFiles, StageRecord, fingerprint_of
from experiments.backbone_recipe.tokenizer import build_tokenizer, vocabulary_words
from experiments.backbone_recipe.training_loop import ProgressReport, TrainingStage, run_stage, use_one_thread
from experiments.backbone_recipe.vision_stage import VisionStage
from experiments.testbed.questions import QUESTION_TYPES
from experiments.testbed.world_version import WORLD_VERSION

VISION = "vision"
SCATTERED = "language"
RASTER = "raster_language"
DENSE = "dense"
JOINT = "joint"
INPUTS: dict[str, tuple[str, ...]] = {
    VISION: (),
    SCATTERED: (),
    RASTER: (SCATTERED,),
    DENSE: (VISION, RASTER),
    JOINT: (RASTER, DENSE),
}
"""The stages in order, and which finished stages each goes on from."""
ARCHITECTURE_PARTS = {
    VISION: ("vision", "image", "patch"),
    SCATTERED: ("language", "rope", "maximum", "embedding", "output"),
}
"""How the names of the sizes begin that decide a stage; the others depend on all."""
INDEPENDENT_CHAINS = ((VISION,), (SCATTERED, RASTER))
"""What can run side by side at first."""
LAST_CHAIN = (DENSE, JOINT)
"""What follows; its last stage leaves the finished backbone."""


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
    # What a stage does not know must not repeat it: the scattered slots have no patches, the tower no words.
    architecture = settings.architecture.part(*ARCHITECTURE_PARTS.get(stage, ("",)))
    parts: list[object] = [RECIPE_VERSION, WORLD_VERSION, stage, settings.seed, architecture]
    parts.append(asdict(getattr(settings, stage)))
    if stage != VISION:
        parts += [vocabulary_words(), questions_fingerprint()]
    parts += [stage_files(name, settings, work).fingerprint for name in INPUTS[stage]]
    return StageFiles(work, stage, fingerprint_of(*parts))


def run_named_stage(stage: str, settings: RecipeSettings, work: Path, report: ProgressReport) -> StageRecord:
    """Runs one stage, or returns its record where it is finished already."""
    files = stage_files(stage, settings, work)
    finished = files.finished()
    if finished is not None:
        return finished
    use_one_thread()
    earlier: dict[str, Tensor] = {}
    for name in INPUTS[stage]:
        earlier |= stage_files(name, settings, work).weights()
    tokenizer = build_tokenizer(settings.architecture.maximum_positions)
    return run_stage(_build_stage(stage, settings, tokenizer, earlier), files, settings, report)


def run_chain(
    stages: tuple[str, ...], settings: RecipeSettings, work: Path, report: ProgressReport
) -> list[StageRecord]:
    """Runs stages one after the other."""
    return [run_named_stage(stage, settings, work, report) for stage in stages]


def _build_stage(
    stage: str, settings: RecipeSettings, tokenizer: PreTrainedTokenizerFast, earlier: dict[str, Tensor]
) -> TrainingStage:
    if stage == VISION:
        return VisionStage(settings)
    if stage == SCATTERED:
        return LanguageStage(stage, settings.language, settings, tokenizer)
    if stage == RASTER:
        return LanguageStage(stage, settings.raster_language, settings, tokenizer, earlier)
    if stage == DENSE:
        return DenseStage(settings, tokenizer, earlier)
    return JointStage(settings, tokenizer, earlier)
