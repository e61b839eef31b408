"""Writes every number of README.md and of the pages on methods, runs, testbed, design, prompts and rounding.

    python -m benchmarks.report.front           # fills the marked places, draws four of docs/figures

A marked place begins with ``<!-- name -->`` and ends with ``<!-- end of name -->``. ``docs/speed.md`` has a command of
its own (``make bench``).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.learning.prompt_words.chart import draw_search
from benchmarks.learning.prompt_words.findings import found_lines
from benchmarks.report import findings
from benchmarks.report.markdown import with_block, wrapped
from benchmarks.report.measured_tables import domain_lines, parity_lines, rounding_lines
from benchmarks.report.methods_chart import draw_gains, draw_methods
from benchmarks.report.pair_looks_table import looks_lines
from benchmarks.report.parameter_table import parameter_lines
from benchmarks.report.real_pair_findings import (
    foretold_sentence,
    longer_sentence,
    ranking_sentence,
    textual_sentence,
)
from benchmarks.report.real_pair_tables import (
    agreements,
    beside_lines,
    lengths_lines,
    order_lines,
    pair_lines,
    pair_trial_lines,
)
from benchmarks.report.stored import stored
from benchmarks.report.sweep_tables import (
    FROZEN,
    LANGUAGE,
    LEAD,
    Content,
    ablation_lines,
    chances_of,
    comparison_lines,
    front_lines,
    trial_lines,
)
from benchmarks.report.transfer_chart import draw_transfers
from benchmarks.report.transfer_tables import transfer_lines
from benchmarks.training.own_step import RUNGS
from lightning_m2pt.system.atomic_files import write_atomically

README, METHODS, RUNS, TESTBED, DESIGN, WORDS, PAIR = (
    Path(name)
    for name in (
        "README.md",
        "docs/methods.md",
        "docs/runs.md",
        "docs/testbed.md",
        "docs/design.md",
        "docs/prompt_words.md",
        "docs/how_to/real_pair.md",
    )
)
TRANSFER, QUANTISED = Path("docs/transfer.md"), Path("docs/quantised.md")
FIGURES = Path("docs/figures")
CHART, MATRIX, GAINS = FIGURES / "methods.png", FIGURES / "transfers.png", FIGURES / "real_pair.png"
TRANSFERS = "prompt_transfer"
COMPARISON, ABLATION, LEARNING, SECOND, LOGGED = (
    "comparison",
    "ablation",
    "learning_testbed",
    "learning_testbed_patch12",
    "from_logs",
)
SEARCHES = ("prompt_words", "prompt_words_before_question")
"""Comparisons of searches; the second is of words between picture and question, and may not have been made."""
REAL_PAIR = "smollm2"
OF_SECOND = ("patch12", SECOND)
"""What may be stored of the second backbone: the sweep with the pair's methods, else the learning table."""


def results_lines() -> list[str]:
    """Returns the README's table and what it says."""
    comparison, pair = stored(COMPARISON), stored(REAL_PAIR)
    sentences = [
        *findings.comparison_sentences(comparison),
        findings.ablation_sentence(stored(ABLATION)),
        findings.second_backbone_sentence(stored(SECOND)),
    ]
    return [
        *bullets(pair_sentences(pair) if pair else []),
        *front_lines(comparison, chances_of(stored(LEARNING))),
        *bullets(sentences),
    ]


def bullets(sentences: Sequence[str]) -> list[str]:
    """Returns the lines of a list; none of no sentences."""
    return [] if not sentences else [*(line for sentence in sentences for line in wrapped(sentence, "- ")), ""]


def speed_lines() -> list[str]:
    """Returns the README's sentences on speed."""
    sentence = findings.speed_sentence(stored("training_speed"), stored("evaluation_speed"), RUNGS[-1].name)
    return [*wrapped(sentence), ""]


def belief_lines() -> list[str]:
    """Returns what the page on the testbed says about signal and the second backbone."""
    return bullets([findings.signal_sentence(stored(COMPARISON)), findings.second_backbone_sentence(stored(SECOND))])


def machine_lines() -> list[str]:
    """Returns what the page on runs says about other machines."""
    return [*wrapped(findings.instruction_set_sentence(stored(LEARNING), stored(LOGGED))), ""]


def patches_lines() -> list[str]:
    """Returns what the page on the testbed says about M2PT with patches only."""
    return [*wrapped(findings.patches_sentence(stored(LEARNING), stored(LOGGED))), ""]


def search_lines() -> list[str]:
    """Returns what the page on prompts says of the searches."""
    made = [name for name in SEARCHES if stored(name)] or [SEARCHES[0]]
    return [line for name in made for line in found_lines(stored(name), f"figures/{name}.png")]


def orders_lines() -> list[str]:
    """Returns what the page on the real pair says about the order of methods elsewhere."""
    return order_lines(*orders_compared()) if has_seeds(stored(REAL_PAIR)) else []


def orders_compared() -> tuple[Content, Content, Content]:
    """Returns what is stored of the real pair, of the first embedded backbone and of the second."""
    second = next(filter(None, map(stored, OF_SECOND)))
    return stored(REAL_PAIR), stored(COMPARISON), second


def pair_sentences(pair: Content) -> list[str]:
    """Returns what came out on the real pair."""
    longer = stored(f"{REAL_PAIR}_longer")
    ranking = " ".join([ranking_sentence(pair), *([longer_sentence(longer)] if longer else [])])
    found = [textual_sentence(pair), ranking]
    return [*found, foretold_sentence(agreements(*orders_compared()))] if has_seeds(pair) else found


def has_seeds(content: Content) -> bool:
    """Tells whether every method of a stored sweep has several seeds; an order of single ones is not compared."""
    return bool(content) and all(len(found["by_seed"]) > 1 for found in content["methods"].values())


BLOCKS: Mapping[Path, Mapping[str, Callable[[], list[str]]]] = {
    README: {"results": results_lines, "speed": speed_lines},
    METHODS: {
        "parameters": lambda: parameter_lines(stored("parameters")),
        "rates": lambda: trial_lines(stored("comparison_search")),
        "comparison": lambda: comparison_lines(stored(COMPARISON)),
        "ablation": lambda: ablation_lines(stored(ABLATION)),
    },
    DESIGN: {"parity": lambda: parity_lines(stored("parity"))},
    QUANTISED: {"rounding": lambda: rounding_lines(stored("rounding"))},
    RUNS: {"machines": machine_lines},
    WORDS: {"searches": search_lines},
    PAIR: {
        "pair": lambda: pair_lines(stored(REAL_PAIR)),
        "pair_rates": lambda: pair_trial_lines(stored(f"{REAL_PAIR}_search"), stored(f"{REAL_PAIR}_lora_search")),
        "lengths": lambda: lengths_lines(stored(f"{REAL_PAIR}_lengths"), stored(REAL_PAIR)),
        "order": orders_lines,
        "looks": lambda: looks_lines(stored("pair_looks")),
    },
    TRANSFER: {"transfers": lambda: transfer_lines(stored(TRANSFERS))},
    TESTBED: {
        "domain": lambda: domain_lines(stored("domain")),
        "attempts": lambda: beside_lines(stored(f"{REAL_PAIR}_attempts"), LEAD, LANGUAGE),
        "longer": lambda: beside_lines(stored(f"{REAL_PAIR}_longer"), LANGUAGE, FROZEN),
        "belief": belief_lines,
        "patches": patches_lines,
    },
}
"""The marked places of each page, and what fills them."""


def page_of(path: Path) -> str:
    """Returns a page with all its marked places made anew."""
    page = path.read_text(encoding="utf-8")
    for name, lines in BLOCKS[path].items():
        page = with_block(page, name, lines())
    return page


def main() -> None:
    """Writes the pages and the picture."""
    for path in BLOCKS:
        write_atomically(path, page_of(path).encode())
    draw_methods(stored(COMPARISON), chances_of(stored(LEARNING)), CHART)
    if pair := stored(REAL_PAIR):
        draw_gains(pair, GAINS)
    for name in SEARCHES:
        if searches := stored(name):
            draw_search(searches, FIGURES / f"{name}.png")
    if transfers := stored(TRANSFERS):
        draw_transfers(transfers, MATRIX)


if __name__ == "__main__":
    main()
