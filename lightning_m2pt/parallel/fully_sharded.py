"""FSDP2 for a frozen base: its layers are shared out among ranks, and what is trained stays whole on every one."""

import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.parallel.average import average_gradients, same_as_first_rank
from lightning_m2pt.parallel.units import may_copy_weights, share_out
from lightning_m2pt.system.console import say


class FullyShardedStrategy(ModelParallelStrategy):
    """Shares the frozen base out among all devices (torch's ``fully_shard``), and not what is trained.

    Each device keeps its part of every layer and gathers a layer from all others while it runs. The trained tensors are
    plain parameters on every device, as on a single one: their gradients are averaged in one exchange a step, and
    optimizer, clipping, checkpoints and adapter are those of a single device. The base keeps its type.

    Args:
        reshard_after_forward: Whether a layer is given up between forward and backward pass and gathered again. Without
            that it is gathered once, and the whole base is on every device in between.
        process_group_backend: torch's; null takes the device's.
        timeout: How long a device waits for the others.
    """

    def __init__(
        self,
        reshard_after_forward: bool = True,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.reshard_after_forward = reshard_after_forward
        self._is_end_of_step = True

    @override
    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_in_shares(self, backbone: Backbone, method: Method) -> None:
        """Loads a frozen base: of what is shared out each process reads its share alone.

        A method of somebody's own may begin with copies of frozen weights and not ask for all their rows
        (``filling.shares.whole``): then they are shared out in ``setup``.

        Args:
            backbone: Not loaded.
            method: What will be built on it.
        """
        if may_copy_weights(method):
            say(f"{method.name} may copy weights of the base: every device loads all of them, then shares")
            backbone.load()
        else:
            backbone.load_in_shares(lambda: self._share_out(backbone, []))

    def _share_out(self, backbone: Backbone, whole: list[nn.Parameter]) -> None:
        mesh = self.device_mesh["data_parallel"]
        share_out(backbone, whole, mesh, reshard_after_forward=self.reshard_after_forward)

    @override
    def setup(self, trainer: Trainer) -> None:
        module: Any = self.lightning_module
        self._share_out(module.backbone, trained(module))
        super().setup(trainer)
        # Of an in-place operation on the backbone's hidden states; nothing here does one.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        module.backbone.before_passes()
        same_as_first_rank(trained(module))
        say(
            f"shared out   {len(module.backbone.sharding_units())} layers among {self.world_size} devices; prompts "
            "stand in the sequence (token path) and every row is computed"
        )

    @override
    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        self._is_end_of_step = False
        try:
            yield
        finally:
            self._is_end_of_step = True

    @override
    def post_backward(self, closure_loss: Tensor) -> None:
        super().post_backward(closure_loss)
        if self._is_end_of_step and self.lightning_module is not None:
            average_gradients(trained(self.lightning_module))

    @property
    @override
    def restore_checkpoint_after_setup(self) -> bool:
        return False

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Returns the trained tensors, which is what a checkpoint keeps; nothing is gathered."""
        assert self.lightning_module is not None
        return {name: parameter.detach() for name, parameter in trained_parameters(self.lightning_module).items()}

    # What follows is a single device's: Lightning's way under ModelParallelStrategy cuts tensors up and pickles.

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        Strategy.load_model_state_dict(self, checkpoint, strict)

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Tensor]:
        return Strategy.optimizer_state(self, optimizer)

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        Strategy.load_optimizer_state_dict(self, checkpoint)

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    @override
    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Returns the trained tensors in the module's order."""
    return list(trained_parameters(module).values())
