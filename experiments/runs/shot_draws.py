"""What several draws of examples make of a set's score."""

from collections.abc import Mapping, Sequence

from lightning_m2pt.metrics.score import Score
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.report.tables.template_spread import spread_of

NOTE = (
    "best and worst were found on the very questions that are scored: mean and deviation are a result, the best draw "
    "is none"
)


def draws_table(shots: int, scores: Sequence[Mapping[str, Score]]) -> ReportTable:
    """Returns mean, standard deviation (of a sample), best and worst of every set, in percent of its maximum.

    Args:
        shots: Examples before every question.
        scores: Of every draw the scores by set.
    """
    rows, records = [], []
    for name, first in scores[0].items():
        values = [of_draw[name].value for of_draw in scores]
        spread = spread_of(values) if len(values) > 1 else {"mean": values[0], "deviation": None}
        record = {
            "set": first.name,
            "headline": first.headline,
            "rule": first.rule,
            "questions": first.n,
            "shots": shots,
            "draws": len(values),
            "mean": spread["mean"],
            "deviation": spread["deviation"],
            "best": max(values),
            "worst": min(values),
            "values": values,
        }
        records.append(record)
        deviation = "" if spread["deviation"] is None else f"{spread['deviation']:.2f}"
        rows.append(
            [
                f"{first.name} ({first.headline})",
                f"{record['mean']:.1f}",
                deviation,
                f"{record['best']:.1f}",
                f"{record['worst']:.1f}",
                f"{first.n:,}",
                " ".join(f"{value:.1f}" for value in values),
            ]
        )
    titles = ("mean", "deviation", "best", "worst", "n")
    columns = [Column("set"), *(Column(title, is_number=True) for title in titles), Column("draws")]
    draws = len(scores)
    counted = f"{draws} draw{'s' * (draws > 1)} of {shots} example{'s' * (shots > 1)}, the same before all questions"
    return ReportTable("", columns, rows, records, [counted, NOTE])
