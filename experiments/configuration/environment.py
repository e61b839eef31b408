"""What must not be in the environment."""

import inspect
from collections.abc import Mapping

from lightning.pytorch import Trainer

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.visible_text import counted

TRAINER_PREFIX = "PL_TRAINER_"


def refuse_trainer_variables(environment: Mapping[str, str]) -> None:
    """Refuses variables that Lightning's Trainer takes for every setting it is not given.

    Raises:
        BadInputError: Naming them; answers would change without a word in any file.
    """
    known = {f"{TRAINER_PREFIX}{name.upper()}" for name in inspect.signature(Trainer).parameters}
    found = sorted(name for name in known & set(environment) if environment[name])
    if found:
        raise BadInputError(
            f"Lightning would take {counted(found)} for settings",
            where="environment",
            expected="settings in a file or on the command line, where a run's name covers them",
            hint=f"unset {' '.join(found)}",
        )
