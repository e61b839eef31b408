from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from typing_extensions import override

from lightning_m2pt.errors import BadInputError, DivergedError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.parallel.whole_tensors import whole_gradients
from lightning_m2pt.visible_text import counted

SHOWN = 5


class GradientCheck(Callback):
    """Stops before an update that would do harm, and at the first one if anything declared as trained is not.

    Every step: a non-finite loss or gradient is a ``DivergedError`` that names step and samples, on all ranks together.
    First step: every row (dimension -2) of every trained tensor must have a gradient that is not all zero, but for
    the rows the method declares dead; of tensors that may start without one, only that the backward pass reaches them.
    """

    def __init__(self) -> None:
        self._complete = False
        self._batch_ids: list[str] = []
        self._step_ids: list[str] = []
        self._suspects: list[str] = []

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch_ids = list(batch.sample_ids)
        self._step_ids += self._batch_ids

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        # Not stopped here: on another rank the loss may be finite, and it would wait for this one's gradients.
        if not torch.isfinite(loss):
            self._suspects += self._batch_ids

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        if trainer.scaler is not None:
            return  # float16: the scaler skips such steps itself
        gradients = whole_gradients(trainer, pl_module)
        norm = nn.utils.get_total_norm(gradients.values())
        pl_module.log("train/gradient_norm", norm)
        bad = bool(self._suspects) or not bool(torch.isfinite(norm))
        if trainer.strategy.reduce_boolean_decision(bad, all=False):
            raise diverged(trainer.global_step + 1, float(norm), self._suspects or self._step_ids)
        self._step_ids = []
        if not self._complete:
            self._complete = True
            method = pl_module.method
            offenders = without_gradient(
                shapes_as_built(method),
                by_names_in_method(gradients, pl_module),
                method.dead_rows(),
                method.may_start_without_gradient(),
            )
            if offenders:
                raise no_gradient(offenders)


def diverged(step: int, norm: float, sample_ids: list[str]) -> DivergedError:
    """Returns the error that names step and samples."""
    return DivergedError(
        f"loss or gradient is not finite (gradient norm {norm}) with samples {counted(sample_ids, SHOWN)}",
        where=f"step {step}",
        expected="finite numbers; the update was not made",
        hint="lower the learning rate, or look at these samples",
    )


def shapes_as_built(method: Method) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each trained tensor, of which a parameter may hold a part."""
    return method.built_shapes or {name: tuple(each.shape) for name, each in method.named_tensors().items()}


def by_names_in_method(gradients: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:
    """Returns gradients by the names that a method gives its tensors."""
    in_module = {id(parameter): name for name, parameter in trained_parameters(module).items()}
    names = {name: in_module[id(parameter)] for name, parameter in module.method.named_tensors().items()}
    return {name: gradients[given] for name, given in names.items() if given in gradients}


def without_gradient(
    shapes: Mapping[str, tuple[int, ...]],
    gradients: Mapping[str, Tensor],
    dead_rows: dict[str, list[int]],
    may_start_without: AbstractSet[str] = frozenset(),
) -> list[str]:
    """Returns the trained tensors, or their rows, that have no gradient and are not excused.

    Args:
        shapes: Of the trained tensors, by name.
        gradients: By the same names; what has none is left out.
        dead_rows: Rows that can never have a gradient, by tensor name.
        may_start_without: Names of tensors whose gradient may be zero as long as there is one.
    """
    offenders = []
    for name, shape in shapes.items():
        gradient = gradients.get(name)
        if name in may_start_without:
            if gradient is None:
                offenders.append(name)
            continue
        dead = set(dead_rows.get(name, []))
        if len(shape) < 2:
            if not dead and (gradient is None or not gradient.any()):
                offenders.append(name)
            continue
        rows = shape[-2]
        alive = torch.zeros(rows, dtype=torch.bool)
        if gradient is not None:
            # (..., rows, D) to (rows,): a row counts as alive if any of its numbers moves.
            alive = gradient.ne(0).any(dim=-1).reshape(-1, rows).any(dim=0).cpu()
        lacking = [row for row in torch.nonzero(~alive).flatten().tolist() if row not in dead]
        if len(lacking) == rows:
            offenders.append(name)
        else:
            offenders += [f"{name} row {row}" for row in lacking]
    return offenders


def no_gradient(offenders: list[str]) -> BadInputError:
    """Returns the error that names what is declared as trained but gets no gradient."""
    return BadInputError(
        f"no gradient reaches {counted(offenders, SHOWN)}",
        where="model.method",
        expected="a gradient for everything that is trained",
        hint="declare what can never get one in dead_rows(), what may start at zero in may_start_without_gradient(), "
        "or leave it out of parts()",
    )
