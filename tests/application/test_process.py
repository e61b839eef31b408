"""What loading and asking do to their process: nothing; and threads, modes and a folder that may only be read."""

import os
import random
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import lightning_m2pt
from lightning_m2pt.application import model as model_module
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.tuning.rng import rng_state
from tests.support.answers.saved_adapters import TOKENS, asked_of, save_invented, write_pictures

ROOT = Path(__file__).parents[2]
WAIT = 120
ASKING = """
import lightning_m2pt
from lightning_m2pt import load
import sys
assert "torch" not in sys.modules and "numpy" not in sys.modules, "importing the package imported torch"
print(load.__name__, load.__module__)
try:
    lightning_m2pt.lode
except AttributeError as error:
    print(error)
"""


class Saved:
    """Two adapters, questions, and what each answers alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = asked_of(write_pictures(folder / "pictures", 2))
        self.m2pt = save_invented(folder / "m2pt", M2PT(visual_length=2, textual_length=2), self.asked)
        self.lora = save_invented(folder / "lora", Lora(rank=2), self.asked, seed=1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("saved"))


def test_importing_takes_neither_torch_nor_time() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ASKING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "load lightning_m2pt.application.loading",
        "module 'lightning_m2pt' has no attribute 'lode'",
    ]


def state_of_process() -> dict[str, Any]:
    """Everything that a library could change behind a program's back."""
    loggers = {name: logger for name, logger in __import__("logging").root.manager.loggerDict.items()}
    return {
        "generators": rng_state(),
        "python": random.getstate(),
        "numpy": numpy.random.get_state()[1].tolist(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "filters": list(warnings.filters),
        "folder": os.getcwd(),
        "variables": dict(os.environ),
        "levels": {name: getattr(logger, "level", None) for name, logger in loggers.items()},
        "handlers": {name: list(getattr(logger, "handlers", ())) for name, logger in loggers.items()},
        "hooks": (sys.excepthook, threading.excepthook),
    }


def test_nothing_of_the_process_is_another_one_afterwards(
    saved: Saved, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lightning_m2pt.load(saved.folder / "m2pt", base="testbed", device="cpu")  # what libraries do when first imported
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    before = state_of_process()
    model = lightning_m2pt.load(saved.folder / "lora", base="testbed", device="cpu")
    model.add("other", saved.folder / "m2pt")
    model.frozen().ask(*saved.asked[0])
    assert model.ask_all(saved.asked, max_new_tokens=TOKENS) == saved.lora
    model.score(*saved.asked[0], ["yes", "no"])
    after = state_of_process()
    assert {name for name in before if before[name] != after[name]} == set()
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""  # a program's output is its own


def test_a_method_that_draws_from_the_global_generator_moves_it_for_nobody(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = M2PT.build

    def drawing(method: M2PT, *others: Any) -> None:
        torch.rand(3)
        build(method, *others)

    monkeypatch.setattr(M2PT, "build", drawing)
    before = torch.get_rng_state()
    lightning_m2pt.load(saved.folder / "m2pt", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_take_turns(saved: Saved) -> None:
    model = lightning_m2pt.load(saved.folder / "m2pt", base="testbed", device="cpu")
    other = model.frozen()
    untouched = other.ask_all(saved.asked, max_new_tokens=TOKENS)
    assert untouched != saved.m2pt
    views = [model, other] * 3

    def answers(number: int) -> list[list[str]]:
        view = views[number]
        many = view.ask_all(saved.asked, max_new_tokens=TOKENS, batch_size=2)
        return [many, [view.ask(*one, max_new_tokens=TOKENS) for one in saved.asked]]

    with ThreadPoolExecutor(len(views)) as threads:
        found = list(threads.map(answers, range(len(views)), timeout=WAIT))
    assert found == [[saved.m2pt, saved.m2pt], [untouched, untouched]] * 3


def test_adapters_may_be_added_and_used_while_others_ask(saved: Saved) -> None:
    """Whoever began with one adapter ends with it."""
    model = lightning_m2pt.load(saved.folder / "m2pt", base="testbed", device="cpu")
    known = {tuple(saved.m2pt), tuple(saved.lora)}
    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(model.ask_all, saved.asked, max_new_tokens=TOKENS, batch_size=1) for _ in range(3)]
        model.add("lora", saved.folder / "lora")
        for name in ("lora", "default", "lora"):
            model.use(name)
            asking.append(threads.submit(model.ask_all, saved.asked, max_new_tokens=TOKENS, batch_size=1))
        found = [tuple(each.result(timeout=WAIT)) for each in asking]
    assert set(found) == known


def test_others_ask_while_an_adapter_is_fetched(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lightning_m2pt.load(saved.folder / "m2pt", base="testbed", device="cpu")
    fetching, answered = threading.Event(), threading.Event()
    named_source = model_module.named_source

    def slow(*given: Any) -> Any:
        fetching.set()
        assert answered.wait(WAIT), "the base is held while the hub is waited for"
        return named_source(*given)

    monkeypatch.setattr(model_module, "named_source", slow)
    with ThreadPoolExecutor(2) as threads:
        adding = threads.submit(model.add, "lora", saved.folder / "lora")
        assert fetching.wait(WAIT)
        asking = threads.submit(model.ask, *saved.asked[0], max_new_tokens=TOKENS)
        try:
            assert asking.result(timeout=WAIT / 4) == saved.m2pt[0]
        finally:
            answered.set()
        adding.result(timeout=WAIT)
    assert model.names == ("default", "lora")


def test_what_is_under_way_ends_with_the_adapter_that_it_began_with(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lightning_m2pt.load(saved.folder / "m2pt", device="cpu")
    model.add("lora", saved.folder / "lora")
    backbone = model._base.backbone
    append_rows = backbone.append_rows

    def used_meanwhile(*given: Any, **named: Any) -> Any:
        model.use("lora")
        return append_rows(*given, **named)

    monkeypatch.setattr(backbone, "append_rows", used_meanwhile)
    assert model.ask_all(saved.asked, max_new_tokens=TOKENS, batch_size=1) == saved.m2pt
    assert model.ask_all(saved.asked, max_new_tokens=TOKENS, batch_size=1) == saved.lora


def test_any_mode_of_the_caller_gives_the_same(saved: Saved) -> None:
    with torch.inference_mode():
        inside = lightning_m2pt.load(saved.folder / "lora", base="testbed", device="cpu")
        assert inside.ask_all(saved.asked, max_new_tokens=TOKENS) == saved.lora
    assert not any(each.is_inference() for each in inside._base.backbone.parameters())  # others may tune on this base
    assert not any(each.requires_grad for each in inside._tuned["default"].method.parameters())
    assert inside.ask_all(saved.asked, max_new_tokens=TOKENS) == saved.lora
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        inside.add("m2pt", saved.folder / "m2pt")
        scores = inside.score(*saved.asked[0], ["yes", "no"])
    assert scores == inside.score(*saved.asked[0], ["yes", "no"])
    inside.use("m2pt")
    assert inside.ask_all(saved.asked, max_new_tokens=TOKENS) == saved.m2pt
    with torch.inference_mode():
        assert inside.frozen().ask(*saved.asked[0])


def test_another_default_type_is_refused(saved: Saved) -> None:
    model = lightning_m2pt.load(saved.folder / "m2pt", base="testbed", device="cpu")
    torch.set_default_dtype(torch.float64)
    try:
        for called in (
            lambda: lightning_m2pt.load(saved.folder / "m2pt", base="testbed", device="cpu"),
            lambda: model.ask(*saved.asked[0]),
            model.frozen,
            lambda: model.add("other", saved.folder / "lora"),
        ):
            with pytest.raises(BadInputError, match="torch's default type is"):
                called()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert model.names == ("default",)
    assert model.ask_all(saved.asked, max_new_tokens=TOKENS) == saved.m2pt


def test_a_default_device_of_the_programs_own_changes_no_answer(saved: Saved) -> None:
    with torch.device("meta"):
        model = lightning_m2pt.load(saved.folder / "m2pt", base="testbed", device="cpu")
        assert model.ask_all(saved.asked[:2], max_new_tokens=TOKENS) == saved.m2pt[:2]
        assert model.ask(*saved.asked[0], max_new_tokens=TOKENS) == saved.m2pt[0]
        picture, text = saved.asked[0]
        said, frozen = model.chat(picture).say(text, max_new_tokens=TOKENS), model.frozen()
        model.add("again", saved.folder / "m2pt")
        assert frozen.names == ("frozen",)
        assert torch.empty(0).device.type == "meta"
    assert said == saved.m2pt[0]


def test_a_folder_that_may_only_be_read_stays_as_it_is(saved: Saved, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for path in (saved.folder / "m2pt").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555 if path is folder else 0o444)
    try:
        model = lightning_m2pt.load(folder, base="testbed", device="cpu")
        assert model.ask_all(saved.asked, max_new_tokens=TOKENS) == saved.m2pt
    finally:
        folder.chmod(0o755)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before


def test_two_models_in_one_process_know_nothing_of_each_other(saved: Saved) -> None:
    first, second = (
        lightning_m2pt.load(saved.folder / name, base="testbed", device="cpu") for name in ("m2pt", "lora")
    )
    for _ in range(2):
        assert first.ask_all(saved.asked, max_new_tokens=TOKENS) == saved.m2pt
        assert second.ask_all(saved.asked, max_new_tokens=TOKENS) == saved.lora
