"""Runs ``m2pt doctor``; its flags and what it is for are in ``parsers``."""

import os
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version
from rich.table import Table

from lightning_m2pt.commands.parsers.doctor import argument_parser
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.system.collector import without_collector
from lightning_m2pt.system.console import OUT

FLOORS = {
    "torch": ("2.10", "older versions let weights-only loading be bypassed or corrupt memory"),
    "transformers": ("5.5", "older versions run code named in a config.json"),
    "lightning": ("2.6.6", "2.6.2 and 2.6.3 carried malware"),
    "jsonargparse": ("4.53", "error messages were tested with it"),
    "safetensors": ("0.8", "older versions can overwrite the file they read"),
}
FREE_GIGABYTES = 2


@without_collector()
def main(arguments: Sequence[str]) -> int:
    """Runs the verb; exit code 3 if something fails."""
    argument_parser().parse_args(list(arguments))
    lines = [*package_lines(), torchvision_line(), device_line(), disk_line(Path.cwd())]
    shown = Table(show_header=False, box=None)
    for verdict, subject, detail in lines:
        colour = {"ok": "green", "note": "yellow", "fail": "red"}[verdict]
        shown.add_row(f"[{colour}]{verdict}[/]", subject, detail)
    OUT.print(shown)
    return ExitCode.ENVIRONMENT if any(verdict == "fail" for verdict, _, _ in lines) else ExitCode.DONE


def package_lines() -> list[tuple[str, str, str]]:
    """Compares installed versions with the floors that matter."""
    lines = []
    for package, (floor, reason) in FLOORS.items():
        try:
            installed = version(package)
        except PackageNotFoundError:
            lines.append(("fail", package, "not installed: `make install`"))
            continue
        fits = Version(installed) >= Version(floor)
        lines.append(("ok" if fits else "fail", package, installed if fits else f"{installed} < {floor}: {reason}"))
    return lines


def torchvision_line() -> tuple[str, str, str]:
    """Imports torchvision, which fails beside a CPU-only torch unless the guard stands in."""
    import torch

    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        return "fail", "torchvision", f"does not import ({error}): install the version that constraints.txt names"
    if torch.version.cuda is None:
        return (
            "note",
            "torchvision",
            f"{torchvision.__version__} beside CPU-only torch {torch.__version__}: its wheel needs CUDA; "
            "lightning_m2pt/torchvision_guard.py declares the two operators it registers, none is used here",
        )
    return "ok", "torchvision", torchvision.__version__


def device_line() -> tuple[str, str, str]:
    """Says what there is to compute with."""
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return "ok", "GPU", f"{names}; bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"
    return "note", "GPU", f"none: the testbed runs on the {os.cpu_count()} CPU cores, 7B models need a GPU"


def disk_line(folder: Path) -> tuple[str, str, str]:
    """Says how much room there is for runs."""
    free = shutil.disk_usage(folder).free / 1e9
    return "ok" if free > FREE_GIGABYTES else "fail", "disk", f"{free:.1f} GB free in {folder}"
