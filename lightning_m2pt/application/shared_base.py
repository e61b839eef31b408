"""A frozen base on its device that several methods take turns on, one at a time, whoever asks."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.frozen import Frozen
from lightning_m2pt.runs.loading import take_adapter
from lightning_m2pt.tuning.module import TuningModule


@dataclass(frozen=True)
class Tuned:
    """A method that holds an adapter's tensors, or none of its own, and what it is asked in.

    Attributes:
        method: Built on the base; attached whenever it is its turn.
        template: The conversation form that questions are put into.
        commit: The commit of the hub's repository that the adapter is of; None for one of a folder.
    """

    method: Method
    template: Template
    commit: str | None = None


def refuse_other_default() -> None:
    """Refuses a default type in which the libraries would compute otherwise: tables, masks and new tensors are of it.

    Raises:
        BadInputError: If it is not torch's own.
    """
    default = torch.get_default_dtype()
    if default != torch.float32:
        raise BadInputError(
            f"torch's default type is {default}",
            where="torch.set_default_dtype",
            expected="torch.float32 while a model is loaded or asked",
            hint="dtype of lightning_m2pt.load says in which type the base computes",
        )


def default_device_of_torch() -> AbstractContextManager[object]:
    """Lets new tensors be made where torch makes them by itself, wherever the program wants its own.

    Only entered where it is needed: it costs every call of torch a little.
    """
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


class SharedBase:
    """A backbone and the lock of all who ask it.

    Several models may stand on one, each with a method of its own: whoever asks attaches its method first. So what is
    answered does not depend on who has asked before.

    Args:
        backbone: Not loaded yet, or loaded and with no method attached.
        device: Where it runs.

    Attributes:
        processor: Its tokenizer and picture rules; to be used by who holds the base.
    """

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self.backbone = backbone
        self.device = device
        self.processor = backbone.processor()
        self._lock = threading.RLock()
        self._untouched: Frozen | None = None
        # The backbone's own reference is weak: a model may be gone whose method still has to be taken away.
        self._attached_last: Method | None = None

    @contextmanager
    def held(self, tuned: Tuned) -> Iterator[Backbone]:
        """Keeps the base for one caller, with its method attached; others wait.

        Nothing is recorded for gradients, and the numbers are those of the base's own type whatever autocast is on.
        Not to be held while a caller of a generator has its turn: the next step takes the base again.
        """
        refuse_other_default()
        no_autocast = torch.autocast(self.device.type, enabled=False)
        with self._lock, default_device_of_torch(), torch.inference_mode(), no_autocast:
            self._attach(tuned.method)
            yield self.backbone

    @contextmanager
    def to_itself(self) -> Iterator[None]:
        """Keeps the base for one caller as it is, to tokenise and to read pictures."""
        with self._lock, default_device_of_torch():
            yield

    def load(self, method: Method, adapter: Path | None) -> None:
        """Loads the frozen weights where that is still to do, and builds and fills a method, which is attached then.

        The passes that answer are compared with the libraries' own. No global generator, and no mode of the process, is
        another one afterwards.

        Args:
            method: Not built; it was compared with the base.
            adapter: The folder of its tensors; None for a method that has none.

        Raises:
            BadInputError: If weights or tensors are not what they should be: the base is then as it was before.
        """
        refuse_other_default()
        devices = [self.device] if self.device.type == "cuda" else []
        no_autocast = torch.autocast(self.device.type, enabled=False)
        seeds = torch.random.fork_rng(devices)
        with self._lock, default_device_of_torch(), torch.inference_mode(False), no_autocast, seeds:
            self._attach(None)
            module = TuningModule(self.backbone, method)
            try:
                with torch.device(self.device):
                    self.backbone.load()
                module.configure_model()
                if adapter is not None:
                    take_adapter(adapter, module)
                module.to(self.device).eval().requires_grad_(False)
                module.compare_with_library("answering")
                self._attached_last = method
            except BaseException:
                if self.backbone.is_loaded:
                    method.detach(self.backbone)
                raise

    def untouched(self) -> Method:
        """Returns the method that changes nothing, compared with the libraries once."""
        with self._lock:
            if self._untouched is None:
                method = Frozen()
                self.load(method, None)
                self._untouched = method
            return self._untouched

    def _attach(self, method: Method | None) -> None:
        """Lets a method, or none, be the one that is attached."""
        attached = None if self.backbone.attached_method is None else self.backbone.attached_method()
        if attached is not method:
            if isinstance(attached, Method):
                attached.detach(self.backbone)
            if method is not None:
                self._attach_to_bare(method)
        self._attached_last = method

    def _attach_to_bare(self, method: Method) -> None:
        """Attaches a method where none is."""
        try:
            method.attach(self.backbone)
        except BaseException:
            method.detach(self.backbone)  # half a method must not answer under the next one's name
            raise
