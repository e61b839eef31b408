"""The page about models says what the code knows: every family, what it may have and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_m2pt.backbones.proven_forms import PROVEN_FORMS
from lightning_m2pt.inspection.known_models import KnownModel, language_models

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")


def rows_between(name: str) -> list[str]:
    """The rows of the table between two marks of the page, its head left out."""
    table = PAGE.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
    return table.strip().splitlines()[2:]


def row_of(model: KnownModel) -> str:
    return f"| `{model.name}` | {model.parts} | {model.refused} |"


@pytest.mark.parametrize(("name", "known"), [("language models", language_models)])
def test_the_page_has_every_model(name: str, known: Callable[[], list[KnownModel]]) -> None:
    assert rows_between(name) == [row_of(model) for model in known()]


def test_words_follow_from_what_is_proven() -> None:
    known = {model.kind: model for model in language_models()}
    assert set(known) == set(PROVEN_FORMS)
    assert known["llama"].parts == known["llama"].refused == ""
    assert known["smollm3"].parts == "a window in some layers, layers without rotation"
    assert known["granite"].parts == "multipliers"
    assert known["gemma3_text"].refused.startswith("rotations dynamic, yarn")
