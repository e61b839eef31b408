"""Training step and evaluation on one GPU at the shape of CLIP ViT-L/14 and Vicuna-7B, in at most ten minutes.

    python -m benchmarks.gpu                               # all parts, then the tables of docs/speed.md
    python -m benchmarks.gpu --parts floor ddp             # some; what is stored of the others stays
    python -m benchmarks.gpu --shape tiny --device cpu --output trial.json      # tries the script out, anywhere

Nothing is downloaded: weights are random and drawn on the device, 13.5 GB in bfloat16. A GPU of 80 GB or more is meant;
what does not fit is said to be out of memory. Every part is a process of its own with its own time, after which it is
ended, and what it measured until then is stored at once: a run that is cut off keeps what it has. The floor is the
operations that `benchmarks/training/flop_formula.py` counts, at the rate of one large bf16 matrix product measured on
the same device.
"""

import lightning_m2pt.torchvision_guard  # noqa: F401  (before the first import of Lightning)

# isort: split
import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.answering.shared_prefix import evaluation_speed
from benchmarks.report.machine import machine
from benchmarks.report.speed import write_report
from benchmarks.training.gpu_setting import Setting, setting_of
from benchmarks.training.inputs import random_backbone
from benchmarks.training.timing import wall_seconds
from benchmarks.training.trainer_steps import Form, Keep, measure_form
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode, M2PTError
from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say

RESULTS = Path("benchmarks/results/gpu.json")
MATMUL_REPEATS = 10
DONE, OUT_OF_TIME = "done", "its time was over"


@dataclass(frozen=True)
class Part:
    """A part of the measurement.

    Attributes:
        seconds: Its time, start of the process included.
        measure: Measures, and hands each row on as soon as it has it.
    """

    seconds: int
    measure: Callable[[Setting, Keep], None]


def measure_floor(setting: Setting, keep: Keep) -> None:
    """Measures the operations per second of one square bf16 matrix product."""
    shape = setting.side, setting.side
    left, right = (torch.randn(shape, device=setting.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = wall_seconds(lambda: left @ right, setting.device, MATMUL_REPEATS)
    keep({"side": setting.side, "flops_per_second": 2 * setting.side**3 / seconds})


def measure_evaluation(setting: Setting, keep: Keep) -> None:
    """Measures questions per second."""
    backbone = random_backbone(setting.size, setting.device, "bfloat16")
    keep(evaluation_speed(setting.size, backbone, setting.device, setting.repeats, setting.asked))


def measure_peers(setting: Setting, keep: Keep) -> None:
    """Measures the published step, ours and peft's."""
    from benchmarks.training.gpu_peers import measure_peers as measure  # peft is needed here alone

    measure(setting, keep)


def of_form(form: Form, largest_only: bool = False) -> Callable[[Setting, Keep], None]:
    """Returns how a form of the step is measured."""
    return lambda setting, keep: measure_form(
        form, setting, keep, setting.batches[-1:] if largest_only else setting.batches
    )


PARTS: dict[str, Part] = {
    "floor": Part(45, measure_floor),
    "single": Part(75, of_form(Form("single device"))),
    "ddp": Part(75, of_form(Form("ddp", lambda: "ddp"))),
    "fsdp2": Part(75, of_form(Form("fsdp2", FullyShardedStrategy))),
    "nf4": Part(80, of_form(Form("nf4", quantization="nf4"), largest_only=True)),
    "compiled": Part(110, of_form(Form("compiled", is_compiled=True), largest_only=True)),
    "peers": Part(90, measure_peers),
    "evaluation": Part(50, measure_evaluation),
}
"""In the order of what is wanted most, were the machine taken away; together less than ten minutes."""


def run_part(name: str, setting: Setting, output: Path) -> None:
    """Measures one part in this process; the file holds all rows so far at any time."""
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        write_atomically(output, json.dumps({"made_with": machine(), "rows": rows}).encode())
        say(f"{name}: {row}")

    PARTS[name].measure(setting, keep)


def in_own_process(command: Sequence[str], seconds: float) -> str:
    """Runs a command, for that long at most; returns how it ended, in words."""
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return OUT_OF_TIME
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = errors.strip().splitlines()
    return DONE if not process.returncode else f"failed: {lines[-1] if lines else process.returncode}"


def measure_parts(names: Sequence[str], shape: str, device: str, output: Path) -> None:
    """Measures parts one after the other, and puts each into the stored results as soon as it has ended."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.json"
            words = ["--shape", shape, "--device", device, "--output", str(rows), "--here", name]
            ended = in_own_process([sys.executable, "-m", "benchmarks.gpu", *words], PARTS[name].seconds)
            found = json.loads(rows.read_text()) if rows.exists() else {"rows": []}
        say(f"{name}: {ended}")
        store_part(output, name, {"ended": ended, **found}, asdict(setting_of(shape, device)))  # type: ignore[arg-type]


def store_part(output: Path, name: str, content: dict[str, Any], setting: dict[str, Any]) -> None:
    """Puts one part into the stored results; parts that were measured with another setting or device leave them."""
    stored = json.loads(output.read_text()) if output.exists() else {}
    setting = json.loads(json.dumps(setting))
    parts = stored.get("parts", {}) if stored.get("setting") == setting else {}
    device = device_of(content)
    kept = {each: part for each, part in parts.items() if not device or device_of(part) in ("", device)}
    kept[name] = content
    output.parent.mkdir(parents=True, exist_ok=True)
    ordered = {each: kept[each] for each in PARTS if each in kept}
    write_atomically(output, (json.dumps({"setting": setting, "parts": ordered}, indent=1) + "\n").encode())


def device_of(part: dict[str, Any]) -> str:
    """Returns the name of the device that a part was measured on; empty if it came to nothing."""
    return str(part.get("made_with", {}).get("device", ""))


def require_gpu() -> None:
    """Refuses a machine without a GPU.

    Raises:
        EnvironmentFailure: If torch finds none.
    """
    if not torch.cuda.is_available():
        raise EnvironmentFailure(
            "torch finds no CUDA device",
            where="benchmarks.gpu",
            expected="one GPU, of 80 GB or more",
            hint="--shape tiny --device cpu --output trial.json tries the script out",
        )


def output_of(own: argparse.Namespace) -> Path:
    """Returns where results go.

    Raises:
        BadInputError: If a trial has no place of its own: the stored results are those of a GPU at the 7B shape.
    """
    if own.output is None and (own.shape, own.device) != ("7b", "cuda"):
        raise BadInputError(
            "a trial is not stored with the measured results", where="--output", expected="a file for the trial"
        )
    return RESULTS if own.output is None else own.output


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--shape", choices=["7b", "tiny"], default="7b")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS}")
    parser.add_argument("--here", choices=list(PARTS), help=argparse.SUPPRESS)  # a part's own process
    own = parser.parse_args(arguments)
    try:
        if own.device == "cuda":
            require_gpu()
        output = output_of(own)
        if own.here:
            run_part(own.here, setting_of(own.shape, own.device), output)
            return ExitCode.DONE
        measure_parts(own.parts, own.shape, own.device, output)
        if output == RESULTS:
            write_report()
    except M2PTError as error:
        sys.stderr.write(error.message() + "\n")
        return error.exit_code
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
