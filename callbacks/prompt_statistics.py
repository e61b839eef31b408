from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.parallel.whole_tensors import whole_gradients, whole_tensors


class PromptStatistics(Callback):
    """Logs for every part of the method how long its rows and their gradients are on average.

    Args:
        every_n_steps: How often.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        if (trainer.global_step + 1) % self.every_n_steps:
            return
        values, gradients = whole_tensors(trainer, pl_module), whole_gradients(trainer, pl_module)
        in_module = {id(parameter): name for name, parameter in trained_parameters(pl_module).items()}
        for part, tensors in pl_module.method.parts().items():
            names = [in_module[id(parameter)] for _, parameter in tensors]
            pl_module.log(f"train/row_norm/{part}", mean_row_norm([values[name] for name in names]))
            if of_part := [gradients[name] for name in names if name in gradients]:
                pl_module.log(f"train/gradient_row_norm/{part}", mean_row_norm(of_part))


def mean_row_norm(tensors: list[Tensor]) -> float:
    """Returns the mean Euclidean length of all rows (last dimension) of all tensors."""
    norms = [tensor.detach().float().norm(dim=-1) for tensor in tensors]
    return float(sum(norm.sum() for norm in norms)) / sum(norm.numel() for norm in norms)
