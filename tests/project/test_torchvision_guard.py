"""The guard works however a process starts: fresh, spawned, or as a test worker."""

import importlib
import multiprocessing
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PACKAGES = ("lightning_m2pt", "data_modules", "callbacks", "experiments")
NEEDS_LMMS_EVAL = "lightning_m2pt.runs.lmms_eval_model"
ALL_MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
)
MODULES = [module for module in ALL_MODULES if module != NEEDS_LMMS_EVAL or find_spec("lmms_eval")]
HEAVY_LIBRARIES = ("lightning.pytorch", "open_clip", "transformers.models.clip.modeling_clip", "torchmetrics")
cpu_only = pytest.mark.skipif(torch.version.cuda is not None, reason="torchvision works unaided beside CUDA's torch")


def run_fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_alone_lets_torchvision_load(package: str) -> None:
    result = run_fresh(f"import {package}, torchvision, torchvision.transforms.v2")
    assert result.returncode == 0, result.stderr


def test_the_libraries_that_need_torchvision_load_behind_the_guard() -> None:
    result = run_fresh("import lightning_m2pt, " + ", ".join(HEAVY_LIBRARIES))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("module", MODULES)
def test_each_module_loads_in_a_test_worker(module: str) -> None:
    importlib.import_module(module)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_each_module_loads_alone_in_a_fresh_process(module: str) -> None:
    result = run_fresh(f"import {module}")
    assert result.returncode == 0, result.stderr


def import_all(modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)


@pytest.mark.slow
def test_all_modules_load_in_a_spawned_process() -> None:
    process = multiprocessing.get_context("spawn").Process(target=import_all, args=(MODULES,))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_installing_the_guard_imports_nothing_heavy() -> None:
    result = run_fresh("import lightning_m2pt, sys; assert not {'torch', 'torchvision'} & set(sys.modules)")
    assert result.returncode == 0, result.stderr


@cpu_only
def test_a_declared_operator_still_says_that_it_does_not_exist() -> None:
    import torchvision

    with pytest.raises(RuntimeError):
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    with pytest.raises(NotImplementedError):
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
