"""The package as somebody else gets it: a wheel built offline, in an environment where no checkout can be imported."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
IN_THE_CHECKOUT = ("lightning_m2pt", "experiments", "data_modules", "callbacks", "tests", "benchmarks")
FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def build_wheel(folder: Path) -> Path:
    """Builds the wheel from a copy of the sources, which a build would litter, and returns it."""
    copy = folder / "sources"
    for name in IN_THE_CHECKOUT:
        shutil.copytree(ROOT / name, copy / name)
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    words = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words, str(copy)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install_wheel(wheel: Path, folder: Path) -> Path:
    """Installs the wheel into an environment of its own and returns the folder of its programs.

    Other packages come from this environment through a ``.pth`` file, which adds its folder to the path and runs none
    of the ``.pth`` files there: an editable install of a checkout stays out.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    words = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", *words, str(wheel)], check=True)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def called(programs: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Calls one of the environment's programs in a folder, with nothing of this one's path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    program = [str(programs / words[0]), *words[1:]]
    environment = {**inherited, "OMP_NUM_THREADS": "1"}
    return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)
