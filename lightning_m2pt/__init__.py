from typing import TYPE_CHECKING

import lightning_m2pt.torchvision_guard  # noqa: F401  (must run before the first Lightning import of any process)

if TYPE_CHECKING:
    from lightning_m2pt.application.loading import load as load
    from lightning_m2pt.application.model import Model as Model


def __getattr__(name: str) -> object:
    """Returns ``load`` or ``Model``, imported when somebody asks for them: importing the package takes no time."""
    if name == "load":
        from lightning_m2pt.application.loading import load

        return load
    if name == "Model":
        from lightning_m2pt.application.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
