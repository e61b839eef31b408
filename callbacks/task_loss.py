from collections import deque
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import SET_MARK
from lightning_m2pt.tuning.step_boundary import StepBoundary

Sums = dict[str, tuple[float, int]]


class TaskLosses(Callback):
    """Logs every task's loss per supervised token, over the last steps that had samples of it.

    Of a mixture every set's loss is logged, too.
    With several devices it is the first one's samples.

    Args:
        steps: How many optimizer steps are averaged.
        every_n_steps: How often the averages are logged; with many tasks, logging costs more than averaging.

    Raises:
        BadInputError: If one of them is not positive.
    """

    def __init__(self, steps: int = 50, every_n_steps: int = 10) -> None:
        if steps < 1 or every_n_steps < 1:
            raise BadInputError(f"{min(steps, every_n_steps)} steps", where="task losses", expected="at least 1")
        self.every_n_steps = every_n_steps
        self._window: deque[Sums] = deque(maxlen=steps)
        self._step_sums: Sums = {}
        self._steps = StepBoundary()

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._steps.begin(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for loss in outputs["task_losses"]:
            loss_sum, tokens = self._step_sums.get(loss.task, (0.0, 0))
            self._step_sums[loss.task] = (loss_sum + loss.loss_sum, tokens + loss.tokens)
        if not self._steps.is_reached(trainer):
            return
        self._window.append(self._step_sums)
        self._step_sums = {}
        if self._steps.step % self.every_n_steps:
            return
        sums = sum_by_task(self._window)
        for name, (loss_sum, tokens) in {**by_metric(sums), **by_set(sums)}.items():
            if tokens:
                pl_module.log(name, loss_sum / tokens, rank_zero_only=True)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"window": [dict(sums) for sums in self._window]}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._window.extend(state_dict["window"])


def sum_by_task(window: deque[Sums]) -> Sums:
    """Adds up the steps of a window, task by task."""
    added: Sums = {}
    for sums in window:
        for task, (loss_sum, tokens) in sums.items():
            before = added.get(task, (0.0, 0))
            added[task] = (before[0] + loss_sum, before[1] + tokens)
    return added


def by_metric(sums: Sums) -> Sums:
    """Returns what tasks are logged as; a task that is called like its set is the set's."""
    named = {task: task.partition(SET_MARK) for task in sums}
    return {
        f"train/loss_of_task/{f'{of_set}/{task}' if mark else whole}": sums[whole]
        for whole, (of_set, mark, task) in named.items()
        if of_set != task
    }


def by_set(sums: Sums) -> Sums:
    """Adds up the tasks of every set of a mixture."""
    added: Sums = {}
    for task, (loss_sum, tokens) in sums.items():
        of_set, mark, _ = task.partition(SET_MARK)
        if mark:
            before = added.get(f"train/loss_of_set/{of_set}", (0.0, 0))
            added[f"train/loss_of_set/{of_set}"] = (before[0] + loss_sum, before[1] + tokens)
    return added
