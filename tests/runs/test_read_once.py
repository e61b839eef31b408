"""Processes that start together do not each read what one of them can read for all."""

import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.accelerators import CUDAAccelerator

from data_modules import base
from data_modules.index.sample_table import SampleTable
from data_modules.vision_flan import VisionFlan
from data_modules.vsr import VSR
from experiments.configuration.cli import parse_experiment
from experiments.runs.evaluation import check_benchmarks
from experiments.runs.prepare import let_one_process_read
from experiments.runs.tuning import check_tuning
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.system import file_hashes
from tests.support.ranks import on_ranks
from tests.support.small_experiment import small_words

RANKS = 2


def words_of(folder: Path) -> list[str]:
    VSR.write_fake(folder / "vsr")
    sets = f'[{{"class_path": "data_modules.vsr.VSR", "init_args": {{"root": "{folder}/vsr", "template": "plain"}}}}]'
    devices = ["--trainer.devices", str(RANKS), "--trainer.strategy", "ddp", "--data.batch_size", str(2 * RANKS)]
    return [*small_words(folder, steps=1), *devices, "--benchmarks", sets]


@pytest.mark.parametrize(
    ("devices", "gpus", "environment", "kept"),
    [
        ("1", 8, {}, False),
        ("2", 0, {}, True),
        ("auto", 8, {}, True),
        ("auto", 1, {}, False),
        ("auto", 0, {"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, True),
    ],
)
def test_small_sets_are_kept_where_several_processes_would_read_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    devices: str,
    gpus: int,
    environment: dict[str, str],
    kept: bool,
) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", lambda: gpus)
    for name, value in {"XDG_CACHE_HOME": str(tmp_path), **environment}.items():
        monkeypatch.setenv(name, value)
    words = [*small_words(tmp_path), "--trainer.devices", devices, "--trainer.accelerator", "auto"]
    experiment = parse_experiment(words)
    let_one_process_read(experiment)
    assert experiment.data.index_folder == (str(tmp_path / "m2pt" / "sets") if kept else None)


def test_one_of_the_ranks_hashes_reads_looks_and_encodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by what each process opens below the data and the weights, and by what it is called for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "KEPT_FROM_BYTES", 10_000)  # the embedded weights count as large
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -60.0)
    monkeypatch.setattr(file_hashes, "_known", {})  # what this process has read before
    words = words_of(tmp_path)

    def started() -> dict[str, int]:
        counts: Counter[str] = Counter()

        def on_event(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and isinstance(arguments[0], str | os.PathLike):
                path = Path(arguments[0])
                kind = "weights" if path.suffix == ".safetensors" and "embedded" in path.parts else path.suffix
                if kind == "weights" or (path.is_relative_to(tmp_path) and path.suffix in (".jpg", ".png", ".jpeg")):
                    counts[kind] += 1

        def slowly(owner: Any, name: str, seconds: float) -> None:
            """Lets something last so long that all ranks come to it meanwhile, and counts it."""
            original = getattr(owner, name)

            def counted(*arguments: Any, **named: Any) -> Any:
                counts[name] += owner is not Processor or isinstance(arguments[1], SampleTable)  # not VSR's questions
                time.sleep(seconds)
                return original(*arguments, **named)

            setattr(owner, name, counted)  # this process ends soon

        sys.addaudithook(on_event)
        slowly(VisionFlan, "read", 0.5)
        slowly(Processor, "encode_each", 0.5)
        slowly(file_hashes, "read_and_hash", 0.3)
        slowly(base, "check_image", 0.05)
        experiment = parse_experiment(words)
        check_tuning(experiment)
        check_benchmarks(experiment)
        experiment.model.backbone.fingerprint()
        return dict(counts)

    first, again = (on_ranks(RANKS, started) for _ in range(2))
    together = sum(map(Counter, first), Counter())
    pictures = len({path for path in tmp_path.rglob("*") if path.suffix in (".jpg", ".png", ".jpeg")})
    assert together["read"] == together["encode_each"] == 1
    assert together[".jpg"] + together[".png"] + together[".jpeg"] == pictures
    assert together["weights"] == len(list(Path("lightning_m2pt/embedded/testbed").rglob("*.safetensors")))
    assert {name for counts in again for name, times in counts.items() if times} <= {"read_and_hash"}  # small files
