"""ZeRO by DeepSpeed as one of Lightning's strategies: the same steps, checkpoints and adapters as on one device.

Rajbhandari et al., *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*, SC 2020 (arXiv 1910.02054).
Gradients and optimizer state are shared out over the ranks. What is saved is whole again, in the form that one device
writes, so a run goes on under another strategy and with another number of processes; nothing is pickled.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.types import Steppable
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.precision import DeepSpeedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from lightning.pytorch.strategies.deepspeed import _DEEPSPEED_AVAILABLE
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.filling.from_files import FilledFromFiles
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.parallel.costs import REDUCED_NUMBERS
from lightning_m2pt.parallel.units import may_copy_weights, run_in_lockstep
from lightning_m2pt.parallel.zero_shares import share_out_units, whole_while_they_run
from lightning_m2pt.parallel.zero_state import (
    keep_whole,
    load_optimizer_state,
    prepare_state,
    take_over_tensors,
    whole_optimizer_state,
)
from lightning_m2pt.system.console import say


class ZeroPrecision(DeepSpeedPrecision):
    """Leaves every tensor in its own type, and counts micro-batches as Lightning does."""

    @override
    def convert_module(self, module: nn.Module) -> nn.Module:
        """Returns the module as it is; Lightning's would make a base in bfloat16 one in float32."""
        return module

    @override
    def convert_input(self, data: Any) -> Any:
        return data

    @override
    def tensor_init_context(self) -> AbstractContextManager[None]:
        return nullcontext()

    @override
    def backward(  # type: ignore[override]  # Lightning's own differs from its base
        self, tensor: Tensor, model: LightningModule, optimizer: Steppable | None, *args: Any, **kwargs: Any
    ) -> None:
        """Runs the backward pass of a micro-batch, whose loss Lightning has divided by their number already."""
        engine: Any = model.trainer.model
        engine.backward(tensor, scale_wrt_gas=False)
        if not engine.is_gradient_accumulation_boundary():
            engine.step()  # counts the micro-batch, and updates nothing


class ZeroStrategy(DeepSpeedStrategy):
    """Shares out gradients and optimizer state over the GPUs (stage 2), or the frozen base, too (stage 3).

    Under stage 3 every module's weights are gathered while it runs. What is trained is gathered after every step and
    stays whole on every device.

    The settings that DeepSpeed is given are fixed: its other ones change numbers (types, optimizers, schedules of its
    own) or are tried by nobody here.

    Args:
        stage: Of ZeRO.

    Raises:
        MisconfigurationException: If the package is not installed, as Lightning's strategies say it.
        BadInputError: If the stage is another one.
    """

    def __init__(self, stage: Literal[2, 3] = 2) -> None:
        if not _DEEPSPEED_AVAILABLE:
            raise MisconfigurationException("ZeroStrategy needs deepspeed, which is not installed here")
        if stage not in (2, 3):
            raise BadInputError(f"stage is {stage}", where="trainer.strategy.stage", expected="2 or 3")
        super().__init__(config=fixed_settings(stage))
        self._parameters: list[list[nn.Parameter]] = []
        self._linear = torch.nn.functional.linear

    @override
    def connect(self, model: LightningModule) -> None:
        """Takes a module that is to be tuned.

        Raises:
            BadInputError: If it is not: Lightning takes all hooks of a module away before DeepSpeed answers with it,
                and with them the prompts.
        """
        if model.trainer.state.fn != TrainerFn.FITTING:
            raise BadInputError(
                "under DeepSpeed a model is tuned, and neither validated nor asked",
                where="trainer.strategy",
                expected="ddp, or a single device; adapters are the same",
            )
        super().connect(model)

    def load_in_shares(self, backbone: Backbone, method: Method) -> None:
        """Loads a frozen base: under stage 3 each process reads its share of what is shared out alone.

        What builds no modules without memory, or copies weights of the base, has all of them in the host's memory
        first; then they are shared out in ``setup``.

        Args:
            backbone: Not loaded.
            method: What will be built on it.
        """
        if not self.zero_stage_3:
            backbone.load()
        elif isinstance(backbone, FilledFromFiles) and not may_copy_weights(method):
            backbone.load_in_shares(lambda: self._share_out_units(backbone, []))
        else:
            say(f"{method.name} on {backbone.readable_name()}: every process loads the whole base, then shares")
            with torch.device("cpu"):
                backbone.load()

    @override
    def setup(self, trainer: Trainer) -> None:
        if self.zero_stage_3:
            self._share_out_weights()
        super().setup(trainer)

    def _share_out_units(self, backbone: Backbone, whole: list[nn.Parameter]) -> None:
        from deepspeed import zero

        self._init_config_if_needed()
        cutter = zero.Init(config_dict_or_path=self.config, dtype=torch.float32)
        share_out_units(backbone.sharding_units(), whole, cutter)

    def _share_out_weights(self) -> None:
        """Shares out what is left whole, one tensor after the other, and compares passes while the rest still is."""
        from deepspeed import zero

        module: Any = self.lightning_module
        units = module.backbone.sharding_units()
        run_in_lockstep(module.backbone)
        self._share_out_units(module.backbone, list(trained_parameters(module).values()))
        module.to(self.root_device)
        # Now, before DeepSpeed's hooks: they gather what one module reads of another one within an engine's pass alone.
        with whole_while_they_run(units):
            module.compare_with_library("training")
        zero.Init(module=module, config_dict_or_path=self.config, dtype=torch.float32)

    @override
    def teardown(self) -> None:
        super().teardown()
        # Stage 3 has put one of its own there, which keeps no gathered weight, and rounds otherwise.
        torch.nn.functional.linear = self._linear

    @property
    @override
    def precision_plugin(self) -> Precision:
        return super().precision_plugin

    @precision_plugin.setter
    @override
    def precision_plugin(self, precision_plugin: Precision | None) -> None:
        # A Trainer makes Lightning's for every strategy of DeepSpeed.
        if isinstance(precision_plugin, DeepSpeedPrecision):
            precision: Any = precision_plugin.precision  # typed as that of all plug-ins
            precision_plugin = ZeroPrecision(precision)
        self._precision_plugin = precision_plugin

    @property
    @override
    def handles_gradient_accumulation(self) -> bool:
        """Lightning counts the micro-batches of a step, so that callbacks are called once a step."""
        return False

    @override
    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Blocks nothing: gradients are shared out after every micro-batch."""
        yield

    def check(self, precision: str, clipped_by: str | None) -> None:
        """Looks at what goes with the strategy, before weights are loaded.

        Args:
            precision: The Trainer's.
            clipped_by: The Trainer's ``gradient_clip_algorithm``.

        Raises:
            BadInputError: If there is no GPU, or gradients or types would be others than on one device.
        """
        self.refuse_without_gpu()
        if self.DEEPSPEED_ENV_VAR in os.environ:
            raise BadInputError(
                f"{self.DEEPSPEED_ENV_VAR} names a file of settings, and DeepSpeed's settings are fixed here",
                where="environment",
                expected="no such variable",
            )
        if precision != "32-true":
            raise BadInputError(
                f"under DeepSpeed {precision} would convert the trained tensors and the base",
                where="trainer.precision",
                expected="32-true: the base keeps model.backbone.dtype, what is trained is float32",
                hint="ddp takes bf16-mixed and 16-mixed",
            )
        if clipped_by == "value":
            raise BadInputError(
                "DeepSpeed limits the norm of all gradients, and not their values",
                where="trainer.gradient_clip_algorithm",
                expected="norm, or --trainer.strategy ddp",
            )

    def refuse_without_gpu(self) -> None:
        """Raises BadInputError unless the Trainer's devices are GPUs that CUDA or ROCm drives."""
        if self.root_device.type != "cuda":
            raise BadInputError(
                f"DeepSpeed is for GPUs, and the device is {self.root_device.type}",
                where="trainer.strategy",
                expected="--trainer.accelerator gpu, or --trainer.strategy ddp",
                hint="experiments/strategies/ddp.yaml",
            )

    @override
    def setup_distributed(self) -> None:
        # DeepSpeed 0.19 calls torch's collectives by names that torch 2.13 announces the end of, at every step.
        warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
        super().setup_distributed()

    @override
    def _init_optimizers(self) -> tuple[Optimizer, LRSchedulerConfig | None]:
        optimizer, schedule = super()._init_optimizers()
        # Here and not later: the engine puts its own partitions in their place.
        self._parameters = [list(group["params"]) for group in optimizer.param_groups]
        return optimizer, schedule

    @override
    def _initialize_deepspeed_train(self, model: nn.Module) -> None:
        super()._initialize_deepspeed_train(model)
        prepare_state(self.optimizers[0])
        if self.zero_stage_3:
            keep_whole(self.optimizers[0], self._parameters)

    @override
    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Lets weights be loaded as they are; they are shared out when the engine is made."""
        yield

    def trained_gradients(self, module: nn.Module) -> dict[str, Tensor]:
        """Returns the gradients of the trained tensors by name, whole and averaged over the ranks.

        To be called by all ranks, between the last backward pass of a step and its update. A tensor that nothing has
        reached has a gradient of zeros here.

        Args:
            module: Whose ``named_parameters`` give the names.
        """
        from deepspeed.utils import safe_get_full_grad

        return {name: safe_get_full_grad(parameter) for name, parameter in trained_parameters(module).items()}

    def trained_tensors(self, module: nn.Module) -> dict[str, Tensor]:
        """Returns the trained tensors by name, without a graph; to be called by all ranks.

        Args:
            module: Whose ``named_parameters`` give the names.
        """
        return {name: parameter.detach() for name, parameter in trained_parameters(module).items()}

    @override
    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        """Returns the trained tensors alone: nothing else of a module is saved."""
        assert self.lightning_module is not None
        return self.trained_tensors(self.lightning_module)

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Returns the state of all trained tensors as on one device; to be called by all ranks."""
        return whole_optimizer_state(self.optimizers[0], self._parameters)

    @override
    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        filepath: str | Path,
        storage_options: Any | None = None,
    ) -> None:
        """Saves on the first rank by the Trainer's plug-in; DeepSpeed's own folders hold pickles."""
        super(DDPStrategy, self).save_checkpoint(checkpoint, filepath, storage_options)

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        return super(DDPStrategy, self).load_checkpoint(checkpoint_path, weights_only)

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        super(DDPStrategy, self).load_model_state_dict(checkpoint, strict)
        if self.optimizers:
            take_over_tensors(self.optimizers[0], self._parameters)

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        load_optimizer_state(self.optimizers[0], self._parameters, checkpoint["optimizer_states"][0])


def fixed_settings(stage: int) -> dict[str, Any]:
    """Returns DeepSpeed's settings; Lightning adds micro-batches of a step and the limit on the gradient's norm."""
    return {
        "zero_optimization": {
            "stage": stage,
            "contiguous_gradients": True,
            "overlap_comm": False,  # there is little to overlap, and every reader of a gradient would have to wait
            "reduce_bucket_size": REDUCED_NUMBERS,
            "allgather_bucket_size": REDUCED_NUMBERS,
            # Small tensors are shared out, too; what is trained stays whole whatever its size.
            **({"stage3_param_persistence_threshold": 0} if stage == 3 else {}),
        },
        "zero_allow_untested_optimizer": False,
        "train_micro_batch_size_per_gpu": 1,  # for its own messages alone; a step's size is the data module's
        "steps_per_print": None,
    }
