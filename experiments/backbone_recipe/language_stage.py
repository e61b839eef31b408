"""Stage 2: the language model learns to answer questions about scenes given as slots, without any image."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from experiments.backbone_recipe.architecture import build_language_model, text_logits
from experiments.backbone_recipe.conversations import ConversationTokenizer, TextBatch, pad_texts
from experiments.backbone_recipe.gradient_threads import GradientThreads
from experiments.backbone_recipe.settings import LanguageStageSettings, RecipeSettings, TextSettings
from experiments.backbone_recipe.slots import disturbed_slot_rows, slot_ids
from experiments.backbone_recipe.training_loop import load_part
from experiments.testbed.language_text import Document, document

LANGUAGE = "language"
"""The part that the stage saves."""


def answer_loss(logits: Tensor, texts: TextBatch, question_weight: float) -> Tensor:
    """Returns the mean loss of the next token, with a small weight on question tokens.

    Args:
        logits: (B, T, V).
        texts: (B, T) tokens.
        question_weight: Weight of a question token; an answer token has 1 and padding none.
    """
    weights = torch.where(texts.is_answer, 1.0, question_weight) * texts.is_text
    weights = weights[:, 1:].flatten()
    targets = texts.token_ids[:, 1:].flatten()
    losses = functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def numbered_documents(
    seed: int, part: str, numbers: Iterable[int], settings: TextSettings, patches_per_cell_side: int | None
) -> list[Document]:
    """Returns documents of a set by their numbers; with raster slots where ``patches_per_cell_side`` is given."""
    own_weights = dict(settings.own_weights)
    return [
        document(
            seed,
            part,
            number,
            patches_per_cell_side=patches_per_cell_side,
            questions=settings.questions,
            own_weights=own_weights,
        )
        for number in numbers
    ]


def text_document_loss(
    language: LlamaForCausalLM,
    conversations: ConversationTokenizer,
    documents: Sequence[Document],
    settings: TextSettings,
    generator: torch.Generator,
) -> Tensor:
    """Returns the loss of documents, their slots disturbed."""
    tokenizer = conversations.tokenizer
    texts = pad_texts(
        [conversations.tokenize_within(item.questions, settings.maximum_tokens) for item in documents],
        tokenizer.pad_token_id,
    )
    ids = slot_ids([item.slots for item in documents], tokenizer)
    embedding = language.get_input_embeddings()
    rows = disturbed_slot_rows(embedding, ids, tokenizer.pad_token_id, settings, generator)
    return answer_loss(text_logits(language, rows, texts.token_ids), texts, settings.question_weight)


class LanguageStage:
    """Training on documents with slots of one form; every step has new ones.

    Args:
        name: The stage's name, which also names its documents.
        settings: The stage's own settings.
        recipe: The whole recipe's.
        tokenizer: The backbone's tokenizer.
        earlier: Tensors of the stage it goes on from; initial values decided by the seed where there are none.
    """

    def __init__(
        self,
        name: str,
        settings: LanguageStageSettings,
        recipe: RecipeSettings,
        tokenizer: PreTrainedTokenizerFast,
        earlier: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.seed = recipe.seed
        self.steps = settings.steps
        self.patches_per_cell_side = recipe.architecture.patches_per_cell_side if settings.raster else None
        self.optimizer_settings = settings.optimizer
        self.own_rates: Mapping[str, float] = {}
        self.conversations = ConversationTokenizer(tokenizer)
        self.threads = GradientThreads()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.language = build_language_model(recipe.architecture, tokenizer)
        if earlier is not None:
            load_part(self.language, earlier, LANGUAGE)

    def modules(self) -> dict[str, nn.Module]:
        """Returns the language model."""
        return {LANGUAGE: self.language}

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Returns all of the language model."""
        return {f"{LANGUAGE}.{name}": parameter for name, parameter in self.language.named_parameters()}

    def gradients(self, step: int) -> dict[str, float]:
        """Computes one step's gradients, half of the documents in each thread."""
        half = self.settings.batch // 2
        first = step * self.settings.batch
        losses = self.threads.gradients(
            [lambda: self._loss(first, half), lambda: self._loss(first + half, half)], self.language.parameters()
        )
        return {"text": sum(losses)}

    def _loss(self, first: int, count: int) -> Tensor:
        """Returns the share of the step's loss that documents ``first`` to ``first + count`` have."""
        documents = numbered_documents(
            self.seed, self.name, range(first, first + count), self.settings.text, self.patches_per_cell_side
        )
        generator = torch.Generator().manual_seed(first)
        loss = text_document_loss(self.language, self.conversations, documents, self.settings.text, generator)
        return loss * count / self.settings.batch
