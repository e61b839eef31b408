"""The LightningModule: a frozen backbone, a method, and the steps of training and answering."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torchmetrics import MeanMetric

from lightning_m2pt.answering.asked_set import AskedSet
from lightning_m2pt.answering.decoding import Answer, Answering
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.picture_batch import PictureBatch
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.trained_parameters import assert_same_set, freeze_all_but_declared, trained_parameters
from lightning_m2pt.parallel.loading import leave_frozen_alone, load
from lightning_m2pt.parallel.shared_out import shares_out_weights
from lightning_m2pt.parallel.units import refuse_unless_shardable, refuse_untried_under_zero
from lightning_m2pt.parallel.zero import ZeroStrategy
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.storage.checkpoint_content import check_content
from lightning_m2pt.tuning.gradient_norm import GradientNorm
from lightning_m2pt.tuning.loop_counters import (
    is_before_validation,
    recount_micro_batches,
    refuse_other_place,
    repeat_what_follows_the_step,
)
from lightning_m2pt.tuning.losses import nothing_of, supervised_rows, task_losses
from lightning_m2pt.tuning.optimizer import AdamW, Schedule
from lightning_m2pt.tuning.optimizer_by_parts import only_what_is_clipped
from lightning_m2pt.tuning.own_trainer import (
    check_trainer,
    refuse_double_on_apple,
    refuse_other_bases,
    refuse_part_of_a_step,
    write_no_pickles,
)
from lightning_m2pt.tuning.positions import refuse_without_room
from lightning_m2pt.tuning.prompt_first import check_length, check_parts, refuse_under_zero, waiting_parts
from lightning_m2pt.tuning.regularisers.base import (
    Regulariser,
    check_regularisers,
    refuse_regularisers_where_cut_up,
)
from lightning_m2pt.tuning.regularisers.step_terms import StepTerms, measured
from lightning_m2pt.tuning.self_test import Use, refuse_unless_like_library


class TuningModule(LightningModule):
    """Tunes a method on a frozen backbone.

    The loss of an optimizer step is the sum over its supervised tokens divided by their number over all its
    micro-batches and ranks so that splitting a step differently trains the same tensors.

    Args:
        backbone: The frozen model; its constructor has read configuration only.
        method: What is trained.
        optimizer: Learning rates and constants of AdamW.
        schedule: Warm-up and decay, and whether prompts move alone at first.
        loss_average: ``step`` as above; ``micro_batch`` takes each micro-batch's own mean, as the published script
            does (numbers then depend on how a step is split).
        shortcuts: Rows that are computed once or not at all because the loss cannot tell the difference.
        gradient_norm: Moves some parts by steps of a fixed length along the gradient; null leaves all to AdamW.
        regularisers: Terms of the loss beside the cross-entropy, about the pictures of a step.

    Attributes:
        chosen: The step, and what chose it, of an adapter that was loaded and is not of a run's last step.
    """

    strict_loading = False  # checkpoints hold the trained tensors only; on_load_checkpoint compares the names

    def __init__(
        self,
        backbone: Backbone,
        method: Method,
        optimizer: AdamW = AdamW(),  # noqa: B008  (a frozen-by-use settings object; the signature is the schema)
        schedule: Schedule = Schedule(),  # noqa: B008
        loss_average: Literal["step", "micro_batch"] = "step",
        shortcuts: Shortcuts = Shortcuts(),  # noqa: B008
        gradient_norm: GradientNorm | None = None,
        regularisers: Sequence[Regulariser] = (),
    ) -> None:
        super().__init__()
        # The method comes first: a tensor that stands in both goes by its name in the method, attached or not.
        self.method = method
        self.backbone = backbone
        self.optimizer_settings = optimizer
        self.schedule_settings = schedule
        self.loss_average = loss_average
        self.shortcuts = shortcuts
        self.gradient_norm = gradient_norm
        self.regularisers = nn.ModuleList(regularisers)
        self.validation_loss = MeanMetric()
        self.validation_accuracy = MeanMetric()
        self.answering: Answering | None = None
        self.chosen: dict[str, Any] | None = None
        self.asked: AskedSet | None = None
        self._step_loss = 0.0
        self._step_terms = StepTerms(regularisers)
        self._goes_on: Literal["", "at the step", "behind its validation"] = ""
        self._compared: tuple[Attachment | None, set[Use]] = None, set()

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: object, *_: object, **__: object) -> NoReturn:
        """Refuses what Lightning would do: unpickle a file, and make a module of what lies in it.

        Raises:
            BadInputError: Always.
        """
        raise BadInputError(
            "a module is not made from a checkpoint, which Lightning would unpickle",
            where=str(checkpoint_path),
            expected="TuningModule(backbone, method), and ckpt_path of the Trainer's fit, validate, predict or test",
        )

    def check(self) -> None:
        """Compares method, optimizer and backbone without loading weights.

        Raises:
            BadInputError: If they do not fit together.
        """
        self.method.check(self.backbone.shape)
        refuse_without_room(self.backbone.shape, self.method)
        if self.gradient_norm is not None:
            self.gradient_norm.check(self.method)
        self.optimizer_settings.check(self.method.part_names(), self.method.possible_parts(), self.gradient_norm)
        check_parts(self.schedule_settings.prompt_first_steps, self.method, self.gradient_norm)
        check_regularisers(self._step_terms.regularisers, self.method, self.backbone.shape)

    def setup(self, stage: str) -> None:
        """Looks at the Trainer, whoever made it, and at what fits together, before weights are loaded.

        Raises:
            BadInputError: If something would train or measure otherwise than it says.
        """
        if stage == "fit":
            self.check()
            check_trainer(self.trainer)
            if self.schedule_settings.prompt_first_steps:
                check_length(self.schedule_settings.prompt_first_steps, self.trainer.estimated_stepping_batches)
            if isinstance(self.trainer.strategy, ZeroStrategy):
                refuse_untried_under_zero(self.backbone, self.method)
                refuse_regularisers_where_cut_up(self._step_terms.regularisers)
                if self.gradient_norm is not None:
                    self.gradient_norm.refuse_under_zero()
                refuse_under_zero(self.schedule_settings.prompt_first_steps)
            for regulariser in self._step_terms.regularisers:
                regulariser.check_files()
        if shares_out_weights(self.trainer.strategy):
            refuse_unless_shardable(self.backbone, self.method)
            refuse_regularisers_where_cut_up(self._step_terms.regularisers)
            self.shortcuts = EVERY_ROW
        device = self.trainer.strategy.root_device
        refuse_double_on_apple(device, self.backbone.dtype_name)
        refuse_other_bases(self.backbone)
        for mean in (self.validation_loss, self.validation_accuracy):
            mean.set_dtype(torch.float32 if device.type == "mps" else torch.float64)
        write_no_pickles(self.trainer)

    def configure_model(self) -> None:
        """Loads the frozen weights, makes the method's tensors and attaches them; does nothing where that is done.

        Prompts are drawn from a generator of their own, seeded with the run's seed, so that they do not depend on
        what else was random before. A backbone that was loaded for another method is not loaded again.

        Raises:
            BadInputError: If the other method is still attached, or a text that prompts start from cannot be read.
        """
        if not (self.backbone.is_loaded and is_built(self.method)):
            refuse_other_method(self.backbone, self.method)
            self.method.check_words(self.backbone)
            if not self.backbone.is_loaded:
                # Without a Trainer, too: whoever answers with a model calls this alone.
                load(self.backbone, self.method, self.trainer.strategy if self._trainer is not None else None)
            self.method.build(self.backbone, torch.Generator().manual_seed(torch.initial_seed()))
            self.method.built_shapes = {name: tuple(each.shape) for name, each in self.method.named_tensors().items()}
            freeze_all_but_declared(self, self.method)
            self.method.attach(self.backbone)
        leave_frozen_alone(self)

    def compare_with_library(self, use: Use) -> None:
        """Compares our forward passes with the libraries' own, on the device where they run; once for what is attached.

        Raises:
            BadInputError: If one differs: it would train or answer wrongly.
        """
        attachment, uses = self._compared
        if attachment is not self.backbone.attachment:
            uses = set()
        if use not in uses:
            refuse_unless_like_library(self.backbone, use, self.shortcuts)
        self._compared = self.backbone.attachment, {*uses, use}

    def on_fit_start(self) -> None:
        """Puts the model into training mode, which Lightning does not, and loading leaves the backbone without.

        A decoder layer recomputes its activations in training mode alone.
        """
        self.compare_with_library("training")
        for regulariser in self._step_terms.regularisers:
            regulariser.build(self.backbone)
        self.train()

    def on_train_start(self) -> None:
        """Looks whether epochs end with a step, and a resumed run is where its samples are."""
        self._step_loss = 0.0  # what an interrupted step has left there
        self._step_terms.restart()
        refuse_part_of_a_step(self.trainer)
        if self._goes_on == "at the step":
            repeat_what_follows_the_step(self.trainer)
        elif self._goes_on:
            refuse_other_place(self.trainer)
        self._goes_on = ""

    def on_validation_start(self) -> None:
        """A loss is measured with the passes of training, from nothing: a validation may have been interrupted."""
        self.validation_loss.reset()
        self.validation_accuracy.reset()
        self.compare_with_library("training")

    def on_predict_start(self) -> None:
        """Nothing is answered by passes that were not compared."""
        self.compare_with_library("answering")

    def on_test_start(self) -> None:
        """Nothing is answered by passes that were not compared."""
        self.compare_with_library("answering")

    def configure_optimizers(self) -> Any:
        """Builds the optimizer over exactly the declared tensors."""
        parts = self.method.parts()
        if not parts:
            raise BadInputError(
                f"method {self.method.name} trains nothing",
                where="model.method",
                expected="a method with trained parts",
                hint="use `m2pt evaluate` for the frozen model",
            )
        waiting = waiting_parts(self.schedule_settings.prompt_first_steps, self.method, self.gradient_norm)
        optimizer = self.optimizer_settings.build(parts, self.gradient_norm, waiting)
        optimised = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        assert_same_set("optimizer", optimised, trained_parameters(self).values())
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise BadInputError(
                "nothing says when the run ends, and the learning rate falls towards its end",
                where="trainer.max_steps",
                expected="max_steps or max_epochs of the Trainer",
            )
        shares = self.gradient_norm.shares(self.trainer, int(steps)) if self.gradient_norm is not None else {}
        schedule = self.schedule_settings.build(optimizer, int(steps), shares)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clips the gradients that AdamW takes: another rule's step has its length already."""
        with only_what_is_clipped(optimizer):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the trained tensors only."""
        trained = trained_parameters(self)
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in trained}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of other tensors, and counts its micro-batches as this run splits a step."""
        check_content(checkpoint, trained_parameters(self))
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._goes_on = "at the step" if is_before_validation(checkpoint) else "behind its validation"
            recount_micro_batches(checkpoint, self.trainer.accumulate_grad_batches)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Computes one micro-batch's share of the optimizer step's loss; ``train/loss`` is the cross-entropy alone.

        Lightning divides the returned loss by the number of micro-batches, and DDP averages gradients over ranks:
        both are multiplied in here, so that what remains is the sum over the whole step.
        """
        if not batch.step_supervised_tokens:
            raise BadInputError(
                "the batches do not say how many tokens their optimizer step is about",
                where="train_dataloaders",
                expected="trainer.fit(model, data) with a data module that can be tuned on",
            )
        found = measured(self.backbone, batch, self.shortcuts, self._step_terms.regularisers)
        loss_sum = found.rows.losses.sum()
        if not len(batch.pixel_values):
            loss_sum = loss_sum + nothing_of(trained_parameters(self).values())
        accumulate, world_size = self.trainer.accumulate_grad_batches, self.trainer.world_size
        if self.loss_average == "step":
            share = loss_sum / batch.step_supervised_tokens
            loss, pictures = share * (accumulate * world_size), batch.step_pictures
        else:
            loss = loss_sum / max(len(found.rows.losses), 1)
            share = loss / (accumulate * world_size)
            pictures = sum(batch.picture_counts) * accumulate * world_size
        terms = self._step_terms.add(share, found.sums, pictures)
        loss = loss if terms is None else loss + terms * (accumulate * world_size)
        self._step_loss += float(share.detach())
        if (batch_idx + 1) % accumulate == 0:
            self.log("train/loss", self._step_loss, sync_dist=True, reduce_fx="sum", prog_bar=True)
            self._step_loss = 0.0
            for name, value in self._step_terms.ended(self.trainer.strategy, self.validation_loss.dtype).items():
                self.log(name, value)
        return {"loss": loss, "task_losses": task_losses(batch, found.rows), "samples": len(batch)}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Updates loss per supervised token and the share of samples whose every answer token is right.

        Sums are of double precision, so that it does not matter which process adds what.
        """
        rows = supervised_rows(self.backbone, batch, self.shortcuts)
        tokens, precision = len(rows.losses), self.validation_loss.dtype
        self.validation_loss.update(rows.losses.to(precision).sum() / max(tokens, 1), weight=tokens * batch.counts)
        wrong = torch.zeros(len(batch), device=self.device).index_add(0, rows.sample, (~rows.right).float())
        self.validation_accuracy.update((wrong == 0).to(precision), weight=float(batch.counts))
        self.log("val/loss", self.validation_loss, prog_bar=True)
        self.log("val/answer_accuracy", self.validation_accuracy, prog_bar=True)

    def predict_step(self, batch: Batch | PictureBatch, batch_idx: int) -> list[tuple[str, Answer]]:
        """Answers a batch of questions; returns (question id, answer) for each.

        Raises:
            RuntimeError: If neither ``answering`` was set nor the Trainer given an evaluation set.
        """
        answering = self.answering or (self.asked.answering if self.asked is not None else None)
        if answering is None:
            raise RuntimeError("TuningModule.answering must be set, or the Trainer be given an evaluation set")
        return list(zip(batch.sample_ids, answering.answer(self.backbone, batch), strict=True))

    def test_step(self, batch: Batch | PictureBatch, batch_idx: int) -> None:
        """Answers a batch of an evaluation set's questions; the set is scored when all are answered.

        Raises:
            RuntimeError: If the Trainer was given no evaluation set.
        """
        if self.asked is None:
            raise RuntimeError("Trainer.test scores an evaluation set: give it one as datamodule")
        names, answers = zip(*self.predict_step(batch, batch_idx), strict=True)
        self.asked.score.to(self.device).update(names, [answer.text for answer in answers])

    def on_test_epoch_end(self) -> None:
        """Logs ``score/NAME``, in percent of the score's maximum."""
        if self.asked is not None:
            self.log(f"score/{self.asked.score.header['benchmark']}", self.asked.score.compute())


def regularisers_of(module: TuningModule) -> Sequence[Regulariser]:
    """Returns the terms of the loss beside the cross-entropy, in order."""
    return [each for each in module.regularisers if isinstance(each, Regulariser)]


def is_built(method: Method) -> bool:
    """Tells whether a method has its tensors."""
    return method.built_shapes is not None or next(method.parameters(), None) is not None


def refuse_other_method(backbone: Backbone, method: Method) -> None:
    """Refuses a second method: what the first has put into the library's modules would stay there, unseen.

    Raises:
        BadInputError: If one is attached that is not this one.
    """
    if backbone.attached_method is not None and backbone.attached_method() is not method:
        raise BadInputError(
            "another method is attached to this backbone",
            where="model.method",
            expected="one at a time",
            hint="first.method.detach(first.backbone) takes the first module's away",
        )


def build_on_meta(module: TuningModule) -> None:
    """Builds backbone and method without memory, for counting at any size.

    Raises:
        ValueError: If the declared tensors are not part of the module.
    """
    module.backbone.build_on_meta()
    module.method.build(module.backbone, torch.Generator())
    freeze_all_but_declared(module, module.method)
