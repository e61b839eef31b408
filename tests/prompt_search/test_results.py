"""What a search is told by in the end."""

import io

from rich.console import Console

from lightning_m2pt.prompt_search.results import curve_table, sentences_about_loss
from lightning_m2pt.prompt_search.state import SearchState


def state(loss: float, *curve: tuple[int, float]) -> SearchState:
    return SearchState((1,), loss, (1,), loss, 20_000, scored=140, moves=1, unread=3, curve=curve)


def test_a_prompt_that_is_worse_than_none_or_than_random_words_is_said() -> None:
    states = {"random": state(0.9), "reinforce": state(0.95)}
    worse = "this prompt is no better than none: 0.9500 against 0.5600"
    better = "random found a better one than reinforce: 0.9000"
    assert sentences_about_loss("reinforce", states, 0.56) == [worse, better]
    assert sentences_about_loss("reinforce", states, 0.96) == [better]
    assert sentences_about_loss("random", states, 0.96) == []


def test_the_table_fits_eighty_columns() -> None:
    states = {"random": state(2.0, (10, 3.5), (10_001, 2.0)), "exhaustive": state(1.0, (6_000, 1.0))}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(curve_table(states, 20_000))
    title, *lines = console.export_text().splitlines()
    assert title.strip() == "least loss within shares of 20,000 rows"
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert rows == [
        ["random", "3.5000", "3.5000", "2.0000", "2.0000", "140", "1", "3"],
        ["exhaustive", "-", "1.0000", "1.0000", "1.0000", "140", "1", "3"],
    ]
    assert "…" not in "".join(lines)
    assert [states["random"].best_within(rows) for rows in (9, 10, 10_000, 10_001)] == [None, 3.5, 3.5, 2.0]


def test_a_prompt_that_is_exactly_as_good_as_none_is_no_better() -> None:
    same = "this prompt is no better than none: 0.9000 against 0.9000"
    assert sentences_about_loss("random", {"random": state(0.9), "beam": state(0.9)}, 0.9) == [same]
