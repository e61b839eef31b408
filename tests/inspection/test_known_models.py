"""The page about models says what the code knows: every family, what it may have and what is refused."""

import importlib
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lightning_m2pt.backbones.proven_forms import PROVEN_FORMS
from lightning_m2pt.inspection.known_models import KnownModel, language_models, towers, whole_models
from lightning_m2pt.inspection.model_facts import Load, whole_model_facts
from tests.support.published_configs import PUBLISHED

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")


def rows_between(name: str) -> list[str]:
    """The rows of the table between two marks of the page, its head left out."""
    table = PAGE.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
    return table.strip().splitlines()[2:]


def row_of(model: KnownModel) -> str:
    name = " or ".join(f"`{kind}`" for kind in model.name.split(" or ")) if model.kind else model.name
    return f"| {name} | {model.parts} | {model.refused} |"


@pytest.mark.parametrize(
    ("name", "known"), [("whole models", whole_models), ("language models", language_models), ("towers", towers)]
)
def test_the_page_has_every_model(name: str, known: Callable[[], list[KnownModel]]) -> None:
    assert rows_between(name) == [row_of(model) for model in known()]


def published_row(name: str, folder: Path) -> str:
    """The row of a published model, from its configuration alone."""
    (folder / "config.json").write_text(json.dumps(PUBLISHED[name]))
    found = whole_model_facts(folder, Load(1, 512, 64, (640, 480)))
    memory = found["memory"]
    sizes = (
        memory["bfloat16"]["training_recomputed"],
        memory["nf4"]["training_recomputed"],
        memory["bfloat16"]["answering"],
    )
    tuned = f"{found['m2pt']['trained']:,} ({found['m2pt']['percent']:.2f}%)"
    cells = [f"`{name}`", f"{found['parameters']['total']:,}", tuned, *(f"{size / 1e9:.1f} GB" for size in sizes)]
    return f"| {' | '.join(cells)} |"


def test_the_page_has_what_published_models_take(tmp_path: Path) -> None:
    assert rows_between("published models") == [published_row(name, tmp_path) for name in PUBLISHED]


def test_words_follow_from_what_is_proven() -> None:
    known = {model.kind: model for model in language_models()}
    assert set(known) == set(PROVEN_FORMS)
    assert known["llama"].parts == known["llama"].refused == ""
    assert known["smollm3"].parts == "a window in some layers, layers without rotation"
    assert known["granite"].parts == "multipliers"
    assert known["gemma3_text"].refused.startswith("rotations dynamic, yarn")


def test_the_pages_configurations_name_what_there_is() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        backbone = yaml.safe_load(block)["model"]["backbone"]
        module, _, name = backbone["class_path"].rpartition(".")
        accepted = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        assert set(backbone["init_args"]) <= set(accepted)
