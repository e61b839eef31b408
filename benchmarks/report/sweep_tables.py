"""Tables of the stored sweeps: the comparison of methods, its searched rates, the ablation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.report.cells import Cell, Row, Table, difference, paired_difference
from benchmarks.report.markdown import table
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.means import MMAVG, benchmark_mean

Content = Mapping[str, Any]

LEAD, FROZEN, CHANCE, LANGUAGE = "m2pt", "frozen", "chance", "no textual prompts"
WORDS, SAME_RATES = "m2pt from words", "m2pt at the rates of words"
"""M2PT whose textual prompts begin as words, and M2PT from random rows with the rates that were searched for it."""
OF_WORDS = (SAME_RATES, "words without visual prompts", "words without interaction")
"""M2PT from words with one thing changed, beside M2PT without textual prompts."""
NO_ROWS = "textual_length=0"
"""M2PT without textual prompts in a grid of lengths."""
LABELS = {
    "full": "full tuning",
    "vpt": "VPT",
    "m2pt": "**M2PT**",
    WORDS: "M2PT from words",
    SAME_RATES: "M2PT, rates of the start from words",
    "lora": "LoRA",
    "adapter": "adapters",
    "layernorm": "norms",
    "projector": "projector alone",
    "ptum": "PTUM, rows",
    "aprompt": "APrompt",
    "ptum prefix": "PTUM, keys and values",
    "rslora": "rsLoRA",
    "dora": "DoRA",
    "pissa": "PiSSA",
    "lora plus": "LoRA+",
    OF_WORDS[1]: "from words without visual prompts",
    OF_WORDS[2]: "from words without interaction",
    "frozen": "frozen",
}
SETS = {
    "mme": "MME",
    "vsr": "VSR",
    "snli_ve": "SNLI-VE",
    "pope": "POPE",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "mnist": "MNIST",
    "text_vqa": "Text-VQA",
}
"""The columns in the paper's order, and what they are called."""
COLUMNS = (*SETS, MMAVG)
ACCURACY = "val/answer_accuracy"
"""What trials of a search are judged by."""
ON_THE_FRONT = ("full", "vpt", LEAD, "lora", "projector", "ptum", FROZEN)
"""The README's rows; the page on methods has all."""
ABLATION = {
    "m2pt": "M2PT",
    "no visual prompts": "no visual prompts",
    "no interaction": "no interaction",
    "no textual prompts": "no textual prompts",
}


@dataclass(frozen=True)
class Sweep:
    """One stored sweep.

    Attributes:
        rows: Percent of the maximum by label and column, one figure for each seed; the untouched model has one.
        trained_percent: What each label trains, of all numbers.
        marks: What ``make report`` found to be inside the noise, by label and column.
    """

    rows: Table
    trained_percent: Mapping[str, float]
    marks: Mapping[str, Mapping[str, str]]

    @property
    def ranking(self) -> list[str]:
        """The labels, the highest mean first, the untouched model last."""
        trained = [name for name in self.rows if name != FROZEN]
        return [*sorted(trained, key=lambda name: -self.rows[name][MMAVG].mean), FROZEN]


def sweep_of(content: Content) -> Sweep:
    """Returns a stored sweep; its means are made anew from the scores of the seeds."""
    rows: Table = {}
    for label, found in content["methods"].items():
        rows[label] = row_of(list(found["by_seed"].values()))
    return Sweep(
        rows=rows | {FROZEN: row_of([content[FROZEN]])},
        trained_percent={label: found["trained_percent"] for label, found in content["methods"].items()} | {FROZEN: 0},
        marks=content.get("marks", {}),
    )


def row_of(scores: list[Mapping[str, float]]) -> Row:
    """Returns one method's figures by column, from the sets' scores of each seed."""
    row = {name: Cell(tuple(seed[name] for seed in scores)) for name in SETS}
    return row | {MMAVG: Cell(tuple(benchmark_mean({name: seed[name] for name in SETS})[1] for seed in scores))}


def mean_name(content: Content) -> str:
    """Returns what the mean over the published seven is called in a stored sweep."""
    return str(content.get("mean_of", MMAVG))


def name_of(label: str) -> str:
    """Returns a method's name without Markdown."""
    return LABELS.get(label, label).strip("*")


def listed(labels: Iterable[str]) -> str:
    """Returns methods' names with commas between them alone: what follows a comma in a name stands in brackets."""
    parted = (name_of(label).partition(", ") for label in labels)
    return ", ".join(f"{name} ({more})" if more else name for name, _, more in parted)


def percent(value: float) -> str:
    """Returns a share of trained numbers in three digits."""
    return f"{value:.3g}%"


def seeds(row: Row) -> str:
    """Returns how many seeds a row has."""
    return str(len(row[MMAVG].values))


def front_lines(content: Content, chances: Mapping[str, float]) -> list[str]:
    """Returns the README's table: means by set, MMAvg with its deviation, and the distance to M2PT.

    Args:
        content: The stored comparison.
        chances: Percent that the best constant answer has, by set.
    """
    sweep = sweep_of(content)
    rows = []
    for label in (each for each in sweep.ranking if each in ON_THE_FRONT):
        row = sweep.rows[label]
        value, half = difference(row[MMAVG], sweep.rows[LEAD][MMAVG])
        rows.append(
            [
                LABELS[label],
                percent(sweep.trained_percent[label]),
                "-" if label == FROZEN else seeds(row),
                *(f"{row[name].mean:.1f}" for name in SETS),
                str(row[MMAVG]),
                "" if label == LEAD else f"{value:+.1f} ± {half:.1f}",
            ]
        )
    mean = benchmark_mean(chances)[1]
    rows.append([CHANCE, "", "", *(f"{chances[name]:.1f}" for name in SETS), f"{mean:.1f}", ""])
    return [*table(["", "trained", "seeds", *SETS.values(), MMAVG, "to M2PT"], rows), ""]


def comparison_lines(content: Content) -> list[str]:
    """Returns every method's figures by set with deviations, the best of a column in bold, and the marks."""
    sweep = sweep_of(content)
    best = {name: max(row[name].mean for row in sweep.rows.values()) for name in COLUMNS}
    rows = []
    for label in sweep.ranking:
        row = sweep.rows[label]
        cells = []
        for name in COLUMNS:
            mark = sweep.marks.get(label, {}).get(name, "").replace("*", "\\*")
            shown = " ".join(filter(None, (str(row[name]), mark)))
            cells.append(f"**{shown}**" if row[name].mean == best[name] else shown)
        rows.append([LABELS[label], percent(sweep.trained_percent[label]), seeds(row), *cells])
    return [*table(["", "trained", "seeds", *SETS.values(), MMAVG], rows), ""]


def ablation_lines(content: Content) -> list[str]:
    """Returns M2PT and what is left of it without each part, with the differences paired by seed."""
    sweep = sweep_of(content)
    rows = []
    for label, shown in ABLATION.items():
        row = sweep.rows[label]
        paired = "" if label == LEAD else signed(paired_difference(row[MMAVG], sweep.rows[LEAD][MMAVG]))
        rows.append([shown, percent(sweep.trained_percent[label]), *(str(row[name]) for name in COLUMNS), paired])
    return [*table(["", "trained", *SETS.values(), MMAVG, "difference, paired by seed"], rows), ""]


def signed(cell: Cell) -> str:
    """Returns a difference's mean with its sign, and its deviation."""
    return f"{cell.mean:+.1f} ± {cell.deviation:.1f}"


def trial_lines(*searches: Content) -> list[str]:
    """Returns what searches of learning rates found for each method, the best first.

    A trial that diverged has no figure and is the worst; a method whose search is not over has no row, and one that
    several searches have has one.

    Raises:
        BadInputError: If searches that have a method in common have other trials of it.
    """
    rows = []
    for label, (found, chosen) in finished_searches(*searches).items():
        figures = figures_of_trials(found)
        rates = {**found["stated"], **chosen["rates"]}
        shown = ", ".join(f"{part.replace('_', ' ')} {rate:.3g}" for part, rate in rates.items())
        best = 100 * chosen[ACCURACY]
        worst = min(figures.values(), key=lambda each: -1.0 if each is None else each)
        cells = [in_percent(figures.get(0)), f"{best:.1f}", in_percent(worst)]
        rows.append((best, [name_of(label), *cells, shown]))
    ordered = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    return [*table(["", "its file's rates", "best trial", "worst trial", "rates of the best"], ordered), ""]


def finished_searches(*searches: Content) -> dict[str, tuple[Content, Content]]:
    """Returns every method's search that is over, with the chosen trial.

    Raises:
        BadInputError: If two of a method have other trials.
    """
    over: dict[str, tuple[Content, Content]] = {}
    for label, found in (each for content in searches if content for each in content["variants"].items()):
        chosen = next((trial for trial in found["trials"] if trial["number"] == found["chosen"]), None)
        if chosen is None:
            continue
        if label in over and trials_of(over[label][0]) != trials_of(found):
            raise BadInputError(
                f"two searches of {label} have other trials", where="search", expected="the same, or one search of it"
            )
        over.setdefault(label, (found, chosen))
    return over


def trials_of(found: Content) -> dict[int, tuple[object, ...]]:
    """Returns rates, outcome and whether it was chosen of every trial, by number."""
    return {
        trial["number"]: (trial["rates"], trial.get(ACCURACY), trial["number"] == found["chosen"])
        for trial in found["trials"]
    }


def figures_of_trials(found: Content) -> dict[int, float | None]:
    """Returns every trial's accuracy by number; None of one that diverged."""
    return {trial["number"]: trial.get(ACCURACY) for trial in found["trials"]}


def in_percent(share: float | None) -> str:
    """Returns an accuracy in percent, or that there is none."""
    return "diverged" if share is None else f"{100 * share:.1f}"


def chances_of(learning: Content) -> dict[str, float]:
    """Returns the percent that the best constant answer has, by set, from a stored learning table."""
    return {name: learning[FROZEN][name]["chance"] for name in SETS}
