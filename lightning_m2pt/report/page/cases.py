"""Won and lost questions side by side (the paper's Figure 8), chosen by a rule that knows nothing of the pictures.

Compared are M2PT and the best other method, each with its first seed. A question is won if M2PT alone is right and lost
if the other alone is. Shown are, in every set, as many lost as won: those whose ids have the smallest SHA-256. Sets
whose rule gives parts of a point have no right and wrong and are left out.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_m2pt.metrics.statistics import right_answers
from lightning_m2pt.report.page.comparison import MEAN, Scores
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.runs.evaluated import EvaluatedSet, Group
from lightning_m2pt.visible_text import visible

RULE = (
    "Won: {lead} is right and {other} (the best other method) is wrong; lost: the other way round; the first seed of "
    "each. Of every set as many lost as won are shown, {count} at most: those whose ids have the smallest SHA-256."
)
WON, LOST = "won", "lost"
LONGEST = 300
"""Letters of an answer that are shown; what is cut off ends in an ellipsis."""


@dataclass(frozen=True)
class MethodAnswer:
    """What one method answered."""

    method: str
    text: str
    is_right: bool


@dataclass(frozen=True)
class Case:
    """One question that one of two methods alone answered rightly.

    Attributes:
        benchmark: Its set.
        outcome: ``won`` or ``lost``, as M2PT sees it.
        row: The question's line of the prediction file.
        answers: The answers of all methods, M2PT's first.
    """

    benchmark: str
    outcome: str
    row: Mapping[str, Any]
    answers: Sequence[MethodAnswer]


@dataclass
class Cases:
    """The chosen questions.

    Attributes:
        lead: M2PT's name.
        other: The other method's.
        chosen: The questions, set by set, the won ones first.
        counts: How many are won and lost in every set, and how many questions it has.
        notes: What was left out.
    """

    lead: str
    other: str
    chosen: list[Case] = field(default_factory=list)
    counts: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def opponent(scores: Scores) -> Group | None:
    """Returns the tuned method with the highest mean beside M2PT; if no other is tuned, the untuned one with it."""
    others = [group for group in scores.groups if group is not scores.lead]
    tuned = [group for group in others if any(run.is_tuned for run in group.runs)]
    column = MEAN if scores.mean_name else scores.benchmarks[0]
    found = [(record["percent"], group) for group in tuned or others if (record := scores.record(group, column))]
    return max(found, key=lambda one: one[0])[1] if found else None


def chosen_cases(scores: Scores, count: int) -> Cases | None:
    """Returns the cases of a comparison; None without M2PT or something to compare it with.

    Args:
        scores: The groups' scores.
        count: How many won and how many lost of every set, at most.
    """
    other = opponent(scores)
    if scores.lead is None or other is None:
        return None
    cases = Cases(scores.lead.name, other.name)
    for benchmark in scores.benchmarks:
        first = {group.name: of[0] for group in scores.groups if (of := group.of_set(benchmark))}
        if cases.lead not in first or cases.other not in first:
            cases.notes.append(f"{benchmark}: not answered by both")
            continue
        names = [cases.lead, cases.other, *(name for name in first if name not in (cases.lead, cases.other))]
        add_cases(cases, benchmark, {name: first[name] for name in names}, count)
    return cases


def add_cases(cases: Cases, benchmark: str, answered: Mapping[str, EvaluatedSet], count: int) -> None:
    """Adds one set's cases; the first two methods are those that are compared."""
    rows = next(iter(answered.values())).answered.predictions
    right = right_answers(next(iter(answered.values())).answered, [one.score for one in answered.values()])
    if not right:
        cases.notes.append(f"{benchmark}: its rule gives parts of a point, so nothing is won or lost")
        return
    texts = [{row["id"]: row["answer"] for row in one.answered.predictions} for one in answered.values()]
    ordered = sorted(range(len(rows)), key=lambda at: hashlib.sha256(rows[at]["id"].encode()).digest())
    won = [at for at in ordered if right[0][at] and not right[1][at]]
    lost = [at for at in ordered if right[1][at] and not right[0][at]]
    cases.counts[benchmark] = (len(won), len(lost), len(rows))
    shown = min(len(won), len(lost), count)
    for outcome, places in ((WON, won[:shown]), (LOST, lost[:shown])):
        for at in places:
            answers = [
                MethodAnswer(name, of[rows[at]["id"]], of_right[at])
                for name, of, of_right in zip(answered, texts, right, strict=True)
            ]
            cases.chosen.append(Case(benchmark, outcome, rows[at], answers))


def counts_table(cases: Cases) -> ReportTable:
    """Returns how many questions of every set are won and lost, shown or not."""
    rows = [(name, *(f"{number:,}" for number in numbers)) for name, numbers in cases.counts.items()]
    records = [
        {"set": name, "won": won, "lost": lost, "questions": of, "method": cases.lead, "other": cases.other}
        for name, (won, lost, of) in cases.counts.items()
    ]
    columns = [Column("set"), *(Column(title, is_number=True) for title in (WON, LOST, "questions"))]
    return ReportTable("all won and lost questions", columns, rows, records)


def case_table(cases: Cases, rule: str) -> ReportTable:
    """Returns the chosen questions with all answers as a table."""
    methods = [answer.method for answer in cases.chosen[0].answers] if cases.chosen else []
    rows, records = [], []
    for case in cases.chosen:
        answers = {answer.method: answer for answer in case.answers}
        texts = [
            f"{one_line(answers[name].text)} ({right_or_wrong(answers[name])})" if name in answers else ""
            for name in methods
        ]
        rows.append(
            (case.benchmark, case.outcome, one_line(case.row["question"]), one_line(case.row["target"]), *texts)
        )
        records.append(
            {
                "set": case.benchmark,
                "outcome": case.outcome,
                "id": one_line(case.row["id"]),
                "question": one_line(case.row["question"]),
                "target": one_line(case.row["target"]),
                **{name: one_line(answers[name].text) if name in answers else None for name in methods},
                **{f"{name} is right": answers[name].is_right if name in answers else None for name in methods},
            }
        )
    columns = [Column(title) for title in ("set", "outcome", "question", "target", *methods)]
    return ReportTable("", columns, rows, records, [rule, *cases.notes])


def right_or_wrong(answer: MethodAnswer) -> str:
    """Returns whether an answer is right, in a word."""
    return "right" if answer.is_right else "wrong"


def one_line(text: str) -> str:
    """Returns a text that somebody else wrote as one line of letters that can be shown, cut where it is too long."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
