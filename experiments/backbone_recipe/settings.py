"""Every number of the pretraining recipe, written once."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from experiments.testbed.rendering import CELL_SIZE, IMAGE_SIZE

RECIPE_VERSION = 2
"""Raise this when code of the recipe changes what it trains: finished stages of older versions are then redone."""


@dataclass(frozen=True)
class ArchitectureSettings:
    """Sizes of the three parts.

    Attributes:
        image_size: What pictures are resized to.
        vision_layers: Blocks in the file. Features are the input of the last block, so one fewer is trained.
    """

    image_size: int = 48
    patch_size: int = 8
    vision_width: int = 128
    vision_layers: int = 5
    vision_head_width: int = 32
    vision_mlp_ratio: float = 3.0
    vision_embedding: int = 128
    image_mean: tuple[float, float, float] = (0.35, 0.35, 0.35)
    image_deviation: tuple[float, float, float] = (0.3, 0.3, 0.3)
    language_width: int = 128
    language_layers: int = 4
    language_heads: int = 4
    language_intermediate: int = 352
    rope_theta: float = 1000.0
    maximum_positions: int = 512
    embedding_deviation: float = 0.5
    output_deviation: float = 0.5

    @property
    def patches_per_cell_side(self) -> int:
        """Patches along one side of a scene's cell.

        Raises:
            ValueError: If cells are not made of whole patches.
        """
        cell_size = CELL_SIZE * self.image_size // IMAGE_SIZE
        if cell_size % self.patch_size:
            raise ValueError(f"a cell of {cell_size} pixels is not made of patches of {self.patch_size}")
        return cell_size // self.patch_size

    def part(self, *prefixes: str) -> dict[str, Any]:
        """Returns the sizes whose names begin so: what decides a stage that knows nothing of the others."""
        return {name: value for name, value in asdict(self).items() if name.startswith(prefixes)}

    @property
    def patches(self) -> int:
        """Patches of an image."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class OptimizerSettings:
    """Muon for matrices and AdamW for the rest, with a linear warm-up and a linear decay over the last half."""

    muon_rate: float = 0.02
    adamw_rate: float = 3e-3
    warm_up_steps: int = 40
    decay_share: float = 0.5
    final_rate_share: float = 0.02


@dataclass(frozen=True)
class TextSettings:
    """How text documents are put to the language model.

    Attributes:
        questions: The largest number of questions in a document.
        maximum_tokens: Question-and-answer tokens of a document; questions that do not fit are left out.
        question_weight: Weight of a question token in the loss; answer tokens have weight 1.
        scale_jitter: Each slot's sum is scaled by 1 plus or minus at most this.
        noise: Standard deviation of the Gaussian noise on each slot.
        own_weights: Weights of question types that differ from those the types state.
        largest_word_drop: Each document drops the words of its slots with a probability between 0 and this.
    """

    questions: int = 6
    maximum_tokens: int = 80
    question_weight: float = 0.02
    scale_jitter: float = 0.3
    noise: float = 0.1
    largest_word_drop: float = 0.0
    own_weights: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class VisionStageSettings:
    """Stage 1: the vision tower, supervised per cell."""

    steps: int = 800
    batch: int = 64
    pictures: int = 24_000
    empty_cell_weight: float = 0.3
    size_weight: float = 0.5
    optimizer: OptimizerSettings = OptimizerSettings()


@dataclass(frozen=True)
class LanguageStageSettings:
    """Stage 2, twice: the language model on text questions about scattered slots, then about raster slots."""

    steps: int
    raster: bool
    batch: int = 64
    text: TextSettings = TextSettings()
    optimizer: OptimizerSettings = OptimizerSettings()


@dataclass(frozen=True)
class DenseStageSettings:
    """Stage 3: vision tower and projector on the dense loss alone.

    Attributes:
        least_squares_pictures: The projector begins with the least-squares solution on so many pictures.
    """

    steps: int = 1000
    batch: int = 64
    pictures: int = 24_000
    least_squares_pictures: int = 1000
    projector_rate: float = 1e-3
    optimizer: OptimizerSettings = OptimizerSettings()


@dataclass(frozen=True)
class JointStageSettings:
    """Stage 4: the language model on captions of images and on text questions about raster slots.

    Attributes:
        text_parts: The documents of a step are computed in so many parts, side by side with the captions.
    """

    steps: int = 1300
    images: int = 24
    documents: int = 48
    text_parts: int = 2
    pictures: int = 24_000
    text: TextSettings = TextSettings(
        noise=0.15,
        largest_word_drop=0.15,
        own_weights=(("relation_choice", 4.0), ("list_objects", 1.5), ("list_colors", 1.2)),
    )
    optimizer: OptimizerSettings = OptimizerSettings(muon_rate=0.015, adamw_rate=2e-3)


@dataclass(frozen=True)
class GateSettings:
    """Stage 5: on how much the finished model is measured, and what it must reach."""

    pictures: int = 600
    documents: int = 600
    batch: int = 100
    relation_and_presence: float = 0.9
    text_skill: float = 0.95
    whole_captions: float = 0.9


@dataclass(frozen=True)
class RecipeSettings:
    """The whole recipe.

    Attributes:
        log_every: Losses are recorded at every such step, each the mean since the last.
        checkpoint_every: An interrupted stage goes on from the last such step.
    """

    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 100
    architecture: ArchitectureSettings = ArchitectureSettings()
    vision: VisionStageSettings = VisionStageSettings()
    language: LanguageStageSettings = LanguageStageSettings(steps=1000, raster=False)
    raster_language: LanguageStageSettings = LanguageStageSettings(steps=600, raster=True)
    dense: DenseStageSettings = DenseStageSettings()
    joint: JointStageSettings = JointStageSettings()
    gates: GateSettings = GateSettings()

    def shortened(self) -> "RecipeSettings":
        """Returns the recipe with a few dozen steps a stage, about a minute: does it still do the same?"""
        return replace(
            self,
            log_every=10,
            checkpoint_every=10,
            vision=replace(self.vision, steps=40, pictures=1000),
            language=replace(self.language, steps=30),
            raster_language=replace(self.raster_language, steps=10),
            dense=replace(self.dense, steps=30, pictures=1000),
            joint=replace(self.joint, steps=20, pictures=1000),
            gates=replace(self.gates, pictures=50, documents=50, batch=50),
        )


RECIPES = {
    "testbed": RecipeSettings(),
    "testbed_patch12": RecipeSettings(
        seed=1,
        architecture=ArchitectureSettings(
            image_size=72,
            patch_size=12,
            vision_width=160,
            vision_embedding=160,
        ),
        joint=replace(JointStageSettings(), steps=2000),
    ),
}
"""The recipes of the embedded backbones by the names of their folders: the same stages at other sizes and seeds."""
