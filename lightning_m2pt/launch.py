"""Compares what a launcher started with what the configuration asks for.

A Trainer ignores what ``fabric run`` is told, and believes SLURM and torchrun only where its own numbers agree.
Otherwise every process trains alone, takes itself for the first, and all write over each other without an error.
"""

from collections.abc import Mapping

from lightning_m2pt.errors import BadInputError

INTERACTIVE_JOBS = ("bash", "interactive")
"""Names of SLURM jobs in which somebody works at a prompt; Lightning ignores SLURM there, too."""

FABRIC_SETTINGS = ("accelerator", "strategy", "precision")

Counts = list[tuple[str, str, int]]
"""Environment variable, the Trainer setting it is compared with, and the number it has to be."""


def check_launch(
    devices: int, num_nodes: int, environment: Mapping[str, str], settings: Mapping[str, str] | None = None
) -> None:
    """Refuses to start when a launcher contradicts the configuration.

    Args:
        devices: Devices per node, as the Trainer is configured.
        num_nodes: Nodes, likewise.
        environment: Environment variables.
        settings: ``accelerator``, ``strategy`` and ``precision`` as configured, for what ``fabric run`` says about
            them; the ones left out are not compared.

    Raises:
        BadInputError: If torchrun, ``fabric run`` or SLURM started another number of processes, or ``fabric run`` was
            told another setting.
    """
    processes = devices * num_nodes
    if environment.get("LT_CLI_USED"):
        counts: Counts = [("LT_DEVICES", "devices", devices), ("LT_NUM_NODES", "num_nodes", num_nodes)]
        _compare("fabric run", counts, environment)
        _compare_settings(settings or {}, environment)
    if "TORCHELASTIC_RUN_ID" in environment:
        counts = [("LOCAL_WORLD_SIZE", "devices", devices), ("WORLD_SIZE", "devices x num_nodes", processes)]
        _compare("torchrun", counts, environment)
    elif "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in INTERACTIVE_JOBS:
        counts = [
            ("SLURM_NTASKS_PER_NODE", "devices", devices),
            ("SLURM_NNODES", "num_nodes", num_nodes),
            ("SLURM_NTASKS", "devices x num_nodes", processes),
        ]
        _compare("SLURM", counts, environment)


def _compare(launcher: str, counts: Counts, environment: Mapping[str, str]) -> None:
    for variable, setting, configured in counts:
        started = _number(environment.get(variable, ""))
        if started is not None and started != configured:
            raise BadInputError(
                f"{launcher} started {started} ({variable}), the configuration says {configured}",
                where=f"trainer: {setting}",
                expected="the same number; otherwise each process would train alone as the first one",
                hint="set trainer.devices and trainer.num_nodes to what the launcher starts",
            )


def _compare_settings(settings: Mapping[str, str], environment: Mapping[str, str]) -> None:
    for name in FABRIC_SETTINGS:
        told = environment.get(f"LT_{name.upper()}")
        if told is not None and name in settings and told != settings[name]:
            raise BadInputError(
                f"fabric run was told {told}, the configuration says {settings[name]}",
                where=f"trainer.{name}",
                expected="the same, because the configuration's is used",
                hint=f"leave it out of fabric run, or give --trainer.{name} {told}",
            )


def _number(text: str) -> int | None:
    """Returns a count of processes; None if the text leaves it open (``auto``, ``-1``), as fabric's may."""
    if "," in text:
        return len([device for device in text.split(",") if device])
    return int(text) if text.isdecimal() else None
