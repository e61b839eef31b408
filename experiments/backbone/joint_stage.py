"""Stage 4: vision tower, projector and language model together.

Images come with captions only. Questions come with slots only. The dense loss goes on and ties the two, so that what
was learned from text is reached from images as well; without it captions find a way of their own.
"""

from collections.abc import Mapping

import numpy
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from experiments.backbone.architecture import (
    Backbone,
    build_language_model,
    build_vision_tower,
    normalise_pixels,
    text_logits,
    unused_parameter_names,
)
from experiments.backbone.conversations import ConversationTokenizer, pad_texts
from experiments.backbone.dense_stage import dense_loss
from experiments.backbone.gradient_threads import GradientThreads
from experiments.backbone.language_stage import answer_loss, text_document_loss
from experiments.backbone.settings import RecipeSettings
from experiments.backbone.slots import slot_ids, slot_rows
from experiments.backbone.training_loop import load_part
from experiments.testbed.language_text import document, raster_slots
from experiments.testbed.pretraining_images import pretraining_pictures
from experiments.testbed.questions import DESCRIBE_TYPE, AskedQuestion
from experiments.testbed.scenes import Scene, random_generator


def caption_of(scene: Scene, seed: int, step: int, index: int) -> AskedQuestion:
    """Returns a request for the caption of a picture, in one of the describe type's phrasings."""
    asked = DESCRIBE_TYPE.ask(scene, random_generator(seed, "caption", step, index))
    if asked is None:
        raise AssertionError("every scene can be described")
    return asked


def build_backbone(settings: RecipeSettings, tokenizer: PreTrainedTokenizerFast) -> Backbone:
    """Builds the three parts with initial values decided by the seed."""
    architecture = settings.architecture
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Backbone(
            vision=build_vision_tower(architecture),
            projector=nn.Linear(architecture.vision_width, architecture.language_width),
            language=build_language_model(architecture, tokenizer),
            tokenizer=tokenizer,
        )


class JointStage:
    """Captions and the dense loss on images, questions on slots."""

    name = "joint"

    def __init__(
        self, settings: RecipeSettings, tokenizer: PreTrainedTokenizerFast, earlier: Mapping[str, Tensor]
    ) -> None:
        self.settings = settings.joint
        self.architecture = settings.architecture
        self.seed = settings.seed
        self.steps = settings.joint.steps
        self.optimizer_settings = settings.joint.optimizer
        self.own_rates: Mapping[str, float] = {"projector.": settings.joint.projector_rate}
        self.backbone = build_backbone(settings, tokenizer)
        for part, module in self.modules().items():
            load_part(module, earlier, part)
        self.conversations = ConversationTokenizer(tokenizer)
        self.caption_conversations = ConversationTokenizer(tokenizer)
        self.threads = GradientThreads()
        pictures = pretraining_pictures(settings.seed, settings.joint.pictures)
        self.images = pictures.images
        self.scenes = pictures.scenes
        self.patch_words = slot_ids([raster_slots(scene) for scene in pictures.scenes], tokenizer)

    def modules(self) -> dict[str, nn.Module]:
        """Returns the three parts."""
        return {
            "vision": self.backbone.vision,
            "projector": self.backbone.projector,
            "language": self.backbone.language,
        }

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Returns all parameters but those behind the features."""
        unused = tuple(f"vision.{prefix}" for prefix in unused_parameter_names(self.backbone.vision))
        return {
            f"{part}.{name}": parameter
            for part, module in self.modules().items()
            for name, parameter in module.named_parameters()
            if not f"{part}.{name}".startswith(unused)
        }

    def gradients(self, step: int) -> dict[str, float]:
        """Computes one step's gradients: documents in one thread, images in the other."""
        parts: dict[str, float] = {}
        text, _ = self.threads.gradients(
            [lambda: self._text_loss(step), lambda: self._image_loss(step, parts)], self.trained_parameters().values()
        )
        return {"text": text} | parts

    def _text_loss(self, step: int) -> Tensor:
        first = step * self.settings.documents
        documents = [
            document(
                self.seed,
                self.name,
                index,
                raster=True,
                questions=self.settings.text.questions,
                own_weights=dict(self.settings.text.own_weights),
            )
            for index in range(first, first + self.settings.documents)
        ]
        generator = torch.Generator().manual_seed(first)
        return text_document_loss(self.backbone.language, self.conversations, documents, self.settings.text, generator)

    def _image_loss(self, step: int, parts: dict[str, float]) -> Tensor:
        """Returns the caption loss plus the weighted dense loss, and notes each in ``parts``."""
        chosen = numpy.random.default_rng((self.seed, step)).integers(len(self.images), size=self.settings.images)
        rows = self.backbone.visual_rows(normalise_pixels(self.images[chosen], self.architecture))
        captions = [caption_of(self.scenes[picture], self.seed, step, index) for index, picture in enumerate(chosen)]
        texts = pad_texts(
            [self.caption_conversations.tokenize([caption]) for caption in captions],
            self.backbone.tokenizer.pad_token_id,
        )
        caption_loss = answer_loss(text_logits(self.backbone.language, rows, texts.token_ids), texts, 0.0)
        patch_loss = self._dense_loss(rows, self.patch_words[torch.from_numpy(chosen)])
        parts |= {"caption": caption_loss.item(), "dense": patch_loss.item()}
        return caption_loss + self.settings.dense_weight * patch_loss

    def _dense_loss(self, rows: Tensor, words: Tensor) -> Tensor:
        with torch.no_grad():
            embedding = self.backbone.language.get_input_embeddings()
            target = slot_rows(embedding, words, self.backbone.tokenizer.pad_token_id)
        return dense_loss(rows, target)
