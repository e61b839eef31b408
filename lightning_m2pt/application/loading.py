"""``lightning_m2pt.load``; torch and the models' libraries are imported when it is called."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from lightning_m2pt.application.model import Model
    from lightning_m2pt.backbones.base import Backbone


def load(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    fetch: bool = False,
    base: "str | os.PathLike[str] | Backbone | None" = None,
    device: "str | torch.device | None" = None,
    dtype: str | None = None,
    quantization: str | None = None,
) -> "Model":
    """Returns a tuned model that answers: ``load("outputs/m2pt/RUN").ask("picture.jpg", "What is it?")``.

    No YAML file is read, and no network is used unless ``fetch`` says so. Before the first answer the passes that
    answer are compared with the libraries' own, once.

    Args:
        source: A run's folder, an adapter's folder, or ``user/name`` of the hub, which was fetched before. A folder of
            this name that is there comes first; ``hub:user/name`` is the hub's in any case.
        revision: Branch, tag or commit of the hub's repository; None takes ``main``. A commit never changes;
            ``Model.revision`` says which one was taken.
        fetch: Whether to ask the hub for the revision's adapter as it is now, and fetch its configuration, tensors and
            card into the hub's cache. A commit that is there is not asked for. The base is not fetched: ``m2pt models
            fetch`` does that.
        base: Where the frozen base is, if the adapter does not say it, or elsewhere: the name of an embedded one, the
            folder of a whole model, ``hub:owner/name``, or a backbone that was made in Python. It has to be the base
            that the adapter was tuned on.
        device: Where it runs; None takes the GPU if there is one.
        dtype: Type of the frozen weights: ``float32``, ``bfloat16`` or ``float64``; None takes the one that the adapter
            was tuned on.
        quantization: ``nf4`` or ``int8``, which has to be what the adapter was tuned on; None takes that.

    Raises:
        BadInputError: If something is missing, damaged, or does not fit; as far as possible before weights load.
        EnvironmentFailure: If the hub shall be asked and cannot be reached.
    """
    from lightning_m2pt.application.model import DEFAULT_NAME, Model
    from lightning_m2pt.application.sources import opened

    shared, tuned = opened(source, revision, base, device, dtype, quantization, fetch)
    return Model(shared, {DEFAULT_NAME: tuned}, DEFAULT_NAME)
