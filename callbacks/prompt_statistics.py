from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from typing_extensions import override


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
        for part, tensors in pl_module.method.parts().items():
            parameters = [parameter for _, parameter in tensors]
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            pl_module.log(f"train/row_norm/{part}", mean_row_norm(parameters))
            if gradients:
                pl_module.log(f"train/gradient_row_norm/{part}", mean_row_norm(gradients))


def mean_row_norm(tensors: list[nn.Parameter] | list[Tensor]) -> float:
    """Returns the mean Euclidean length of all rows (last dimension) of all tensors."""
    norms = [tensor.detach().float().norm(dim=-1) for tensor in tensors]
    return float(sum(norm.sum() for norm in norms)) / sum(norm.numel() for norm in norms)
