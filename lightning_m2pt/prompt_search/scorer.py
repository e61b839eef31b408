"""What prompts lose on a fixed set of samples, and how many rows that has taken."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.prompt_search.gradient import loss_and_gradient, vocabulary_rows
from lightning_m2pt.prompt_search.prompt_texts import Prompt
from lightning_m2pt.prompt_search.scored_samples import ScoredSample, batch_of
from lightning_m2pt.prompt_search.shared_rows import shared_losses
from lightning_m2pt.tuning.losses import supervised_rows

SAMPLES_AT_ONCE = 16
ROWS_OF_A_BACKWARD_PASS = 2
"""A backward pass counts as so many forward ones."""


class PromptScorer:
    """Scores prompts on a fixed set of samples: every prompt on the same ones.

    Args:
        backbone: The model; its weights are needed when something is scored, not before.
        processor: Of the model.
        samples: The samples.
        length: Tokens of a prompt; where prompts are of several lengths, of the longest.

    Attributes:
        rows: Rows that have gone through the language model; padding and what a method adds are left out, and a
            backward pass counts as two forward ones. This is what a budget is about.
        shares: Whether rows in front of the prompt run once for many prompts.
        why_not: Why they do not; empty if they do.
    """

    def __init__(self, backbone: Backbone, processor: Processor, samples: Sequence[ScoredSample], length: int) -> None:
        self.backbone = backbone
        self.processor = processor
        self.samples = samples
        self.length = length
        self.rows = 0
        self.why_not = ""
        if not all(sample.has_pictures_in_head for sample in samples):
            self.why_not = "a picture stands behind the prompt, and everything behind it is computed again"
        elif not all(sample.head for sample in samples):
            self.why_not = "nothing stands in front of the prompt"
        elif backbone.shape.runs_reference:
            self.why_not = f"the library's own forward runs {backbone.shape.runs_reference}, and shares no rows"
        self.shares = not self.why_not

    @property
    def tokens(self) -> int:
        """Supervised tokens of all samples."""
        return sum(sample.tokens for sample in self.samples)

    @property
    def rows_of_samples(self) -> int:
        """Rows of all samples with a prompt."""
        return sum(sample.rows(self.length) for sample in self.samples)

    @property
    def rows_in_front(self) -> int:
        """Rows that run once for all prompts that are scored together."""
        return sum(sample.head + sample.rows_for_marks for sample in self.samples) if self.shares else 0

    @property
    def rows_of_prompt(self) -> int:
        """Rows that each prompt of this length adds."""
        return self.rows_added(self.length)

    def rows_added(self, length: int) -> int:
        """Returns how many rows a prompt of so many tokens adds."""
        if self.shares:
            return sum(sample.rows_behind(length) for sample in self.samples)
        return sum(sample.rows(length) for sample in self.samples)

    @property
    def rows_of_gradient(self) -> int:
        """Rows that a gradient costs."""
        return (1 + ROWS_OF_A_BACKWARD_PASS) * self.rows_of_samples

    def prompts_for(self, rows: int) -> int:
        """Returns how many prompts can be scored together for so many rows."""
        return max(0, (rows - self.rows_in_front) // self.rows_of_prompt)

    def paid_for(self, prompts: Sequence[Prompt], rows: int) -> list[Prompt]:
        """Returns as many of the first prompts as can be scored together for so many rows."""
        ends = accumulate((self.rows_added(len(prompt)) for prompt in prompts), initial=self.rows_in_front)
        number = sum(end <= rows for end in ends) - 1
        return list(prompts[: max(0, number)])

    def losses(self, prompts: Sequence[Prompt]) -> Tensor:
        """Returns (C, N) float64: what each of C prompts loses on each sample, summed over its supervised tokens."""
        parts = []
        for begin in range(0, len(self.samples), SAMPLES_AT_ONCE):
            some = self.samples[begin : begin + SAMPLES_AT_ONCE]
            if self.shares:
                parts.append(shared_losses(self.backbone, self.processor, some, prompts))
            else:
                parts.append(torch.stack([self.whole_losses(some, prompt) for prompt in prompts]))
        self.rows += self.rows_in_front + sum(self.rows_added(len(prompt)) for prompt in prompts)
        return torch.cat(parts, dim=1)

    def mean_losses(self, prompts: Sequence[Prompt]) -> list[float]:
        """Returns the loss of each prompt per supervised token, as training and ``m2pt validate`` have it."""
        return (self.losses(prompts).sum(dim=1) / self.tokens).tolist()

    def whole_losses(self, samples: Sequence[ScoredSample], prompt: Prompt) -> Tensor:
        """Returns (N,) float64: a prompt's losses by the pass that trains, all rows of all samples; counts nothing."""
        with torch.inference_mode():
            batch = batch_of([sample.filled(prompt) for sample in samples], self.processor, self.backbone)
            rows = supervised_rows(self.backbone, batch)
            sums = torch.zeros(len(samples), dtype=torch.float64)
            return sums.index_add_(0, rows.sample.cpu(), rows.losses.double().cpu())

    def reference_loss(self, prompt: Prompt) -> float:
        """Returns a prompt's loss per supervised token by the pass that trains; counts nothing."""
        parts = range(0, len(self.samples), SAMPLES_AT_ONCE)
        sums = [self.whole_losses(self.samples[begin : begin + SAMPLES_AT_ONCE], prompt) for begin in parts]
        return float(torch.cat(sums).sum() / self.tokens)

    def gradient(self, prompt: Prompt) -> Tensor:
        """Returns (length, D) float32: of the mean loss of all samples with respect to the prompt's rows."""
        return self.loss_and_gradient(prompt)[1]

    def loss_and_gradient(self, prompt: Prompt, rows: Tensor | None = None) -> tuple[float, Tensor]:
        """Returns the loss per supervised token, and (length, D) float32: its gradient with respect to the rows.

        Args:
            prompt: The prompt.
            rows: (length, D) that stand in the place of the prompt's own, which then only hold the place.
        """
        loss, total = 0.0, torch.zeros(())
        for begin in range(0, len(self.samples), SAMPLES_AT_ONCE):
            some = self.samples[begin : begin + SAMPLES_AT_ONCE]
            batch = batch_of([sample.filled(prompt) for sample in some], self.processor, self.backbone)
            starts = [sample.opened.starts(len(prompt)) for sample in some]
            of_batch, part = loss_and_gradient(self.backbone, batch, starts, len(prompt), rows)
            loss, total = loss + of_batch, total.to(part.device) + part
        self.rows += self.rows_of_gradient
        return loss / self.tokens, total / self.tokens

    def rows_of(self, ids: Sequence[int]) -> Tensor:
        """Returns (len(ids), D) float32: what tokens embed to."""
        return vocabulary_rows(self.backbone, ids)
