"""A tuned adapter that nobody has tuned, and pictures."""

from pathlib import Path

import pytest

import lightning_m2pt
from lightning_m2pt.application.model import Model
from lightning_m2pt.methods.m2pt import M2PT
from tests.support.answers.saved_adapters import save_invented, write_pictures


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal")
    save_invented(folder / "adapter", M2PT(visual_length=3, textual_length=2), [])
    write_pictures(folder / "pictures")
    return folder / "adapter"


@pytest.fixture(scope="session")
def pictures(adapter: Path) -> list[Path]:
    return sorted((adapter.parent / "pictures").iterdir())


@pytest.fixture(scope="session")
def model(adapter: Path) -> Model:
    return lightning_m2pt.load(adapter, base="testbed", device="cpu")


@pytest.fixture(autouse=True)
def one_load(monkeypatch: pytest.MonkeyPatch, model: Model, adapter: Path) -> None:
    """Loading is tested where it is written: here commands that name this adapter get one model of it."""
    own = lightning_m2pt.load

    def loaded(source: str, **named: object) -> Model:
        if source == str(adapter) and named["base"] == "testbed":
            return model
        return own(source, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("lightning_m2pt.commands.terminal.model.load", loaded)
