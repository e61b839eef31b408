"""Stage 4: the language model learns from images and from text at once.

Images come with captions only. Questions come with slots only. The vision tower, the projector and the word embeddings
stay as the dense stage left them, so that a picture's rows and its words' slots remain the same to the language model:
what it learns from text is then reached from images as well.
"""

from collections.abc import Mapping

import numpy
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from experiments.backbone_recipe.architecture import (
    EMBEDDING_NAME,
    RecipeModel,
    build_language_model,
    build_vision_tower,
    normalise_pixels,
    text_logits,
)
from experiments.backbone_recipe.conversations import ConversationTokenizer, pad_texts
from experiments.backbone_recipe.gradient_threads import GradientThreads
from experiments.backbone_recipe.language_stage import LANGUAGE, answer_loss, numbered_documents, text_document_loss
from experiments.backbone_recipe.settings import RecipeSettings
from experiments.backbone_recipe.training_loop import load_part
from experiments.testbed.asking import AskedQuestion
from experiments.testbed.pretraining_images import pretraining_pictures
from experiments.testbed.questions import DESCRIBE_TYPE
from experiments.testbed.scenes import Scene, random_generator


def caption_of(scene: Scene, seed: int, step: int, index: int) -> AskedQuestion:
    """Returns a request for the caption of a picture, in one of the describe type's phrasings."""
    asked = DESCRIBE_TYPE.ask(scene, random_generator(seed, "caption", step, index))
    if asked is None:
        raise AssertionError("every scene can be described")
    return asked


def build_backbone(settings: RecipeSettings, tokenizer: PreTrainedTokenizerFast) -> RecipeModel:
    """Builds the three parts with initial values decided by the seed."""
    architecture = settings.architecture
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return RecipeModel(
            vision=build_vision_tower(architecture),
            projector=nn.Linear(architecture.vision_width, architecture.language_width),
            language=build_language_model(architecture, tokenizer),
            tokenizer=tokenizer,
        )


class JointStage:
    """Captions of images and questions about slots, for all of the language model but its word embeddings."""

    name = "joint"

    def __init__(
        self, settings: RecipeSettings, tokenizer: PreTrainedTokenizerFast, earlier: Mapping[str, Tensor]
    ) -> None:
        self.settings = settings.joint
        self.architecture = settings.architecture
        self.seed = settings.seed
        self.steps = settings.joint.steps
        self.optimizer_settings = settings.joint.optimizer
        self.own_rates: Mapping[str, float] = {}
        self.backbone = build_backbone(settings, tokenizer)
        for part, module in self.modules().items():
            load_part(module, earlier, part)
        self.text_conversations = [ConversationTokenizer(tokenizer) for _ in range(settings.joint.text_parts)]
        self.caption_conversations = ConversationTokenizer(tokenizer)
        self.threads = GradientThreads()
        pictures = pretraining_pictures(settings.seed, settings.joint.pictures)
        self.images = pictures.images
        self.scenes = pictures.scenes

    def modules(self) -> dict[str, nn.Module]:
        """Returns the three parts."""
        return {
            "vision": self.backbone.vision,
            "projector": self.backbone.projector,
            LANGUAGE: self.backbone.language,
        }

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the language model without its word embeddings."""
        named = {f"{LANGUAGE}.{name}": parameter for name, parameter in self.backbone.language.named_parameters()}
        return {name: parameter for name, parameter in named.items() if name != EMBEDDING_NAME}

    def gradients(self, step: int) -> dict[str, float]:
        """Computes one step's gradients: captions and parts of the documents side by side."""
        parts = range(self.settings.text_parts)
        caption, *texts = self.threads.gradients(
            [lambda: self._caption_loss(step), *(lambda part=part: self._text_loss(step, part) for part in parts)],
            self.trained_parameters().values(),
        )
        return {"caption": caption, "text": sum(texts)}

    def _text_loss(self, step: int, part: int) -> Tensor:
        """Returns the share that one part of the step's documents has in their loss."""
        count = self.settings.documents // self.settings.text_parts
        first = step * self.settings.documents + part * count
        documents = numbered_documents(
            self.seed,
            self.name,
            range(first, first + count),
            self.settings.text,
            self.architecture.patches_per_cell_side,
        )
        loss = text_document_loss(
            self.backbone.language,
            self.text_conversations[part],
            documents,
            self.settings.text,
            torch.Generator().manual_seed(first),
        )
        return loss / self.settings.text_parts

    def _caption_loss(self, step: int) -> Tensor:
        chosen = numpy.random.default_rng((self.seed, step)).integers(len(self.images), size=self.settings.images)
        with torch.no_grad():
            rows = self.backbone.visual_rows(normalise_pixels(self.images[chosen], self.architecture))
        captions = [caption_of(self.scenes[picture], self.seed, step, index) for index, picture in enumerate(chosen)]
        texts = pad_texts(
            [self.caption_conversations.tokenize([caption]) for caption in captions],
            self.backbone.tokenizer.pad_token_id,
        )
        return answer_loss(text_logits(self.backbone.language, rows, texts.token_ids), texts, 0.0)
