"""The head of a report: what was measured, how, on which backbone, and what speaks against the numbers."""

from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.configuration.paths import readable
from lightning_m2pt.report.page.comparison import Scores
from lightning_m2pt.report.page.material import ComparedGroups
from lightning_m2pt.report.tables.backbone_gates import backbone_folder, gate_notes
from lightning_m2pt.report.tables.formats import Column, ReportTable
from lightning_m2pt.report.tables.groups import zero_shot_notes
from lightning_m2pt.runs.evaluated import short
from lightning_m2pt.storage.run_record import MADE_WITH

SHOWN_COMMIT = 8


def set_table(scores: Scores) -> ReportTable:
    """Returns what was asked in every set: number, rule, chance, template, decoding and data."""
    rows, records = [], []
    for benchmark in scores.benchmarks:
        group = next(group for group in scores.groups if group.scores(benchmark))
        scored, settings = group.scores(benchmark)[0], group.of_set(benchmark)[0].settings
        setting = [short(settings[key]) for key in ("rule", "template", "decoding", "shots", "data_revision")]
        rows.append((benchmark, f"{scored.n:,}", f"{scored.chance:.1f}", *setting))
        records.append({"set": benchmark, "n": scored.n, "chance_percent": scored.chance, **settings})
    columns = [Column("set"), Column("questions", is_number=True), Column("chance %", is_number=True), Column("rule")]
    columns += [Column(title) for title in ("template", "decoding", "shots", "data")]
    return ReportTable("", columns, rows, records, ["chance: the best constant answer, percent of the maximum"])


def reservations(comparison: ComparedGroups, scores: Scores, roots: Sequence[Path]) -> list[str]:
    """Returns what has to be known before any number is believed: missed gates, shared data, few seeds."""
    notes = gate_notes(comparison.backbone, roots)
    notes += zero_shot_notes(scores.groups)
    single = [group.name for group in scores.groups if len(group.runs) == 1 and any(run.is_tuned for run in group.runs)]
    if single:
        notes.append(f"one seed only: {', '.join(single)}")
    return notes


def origin_notes(comparison: ComparedGroups) -> list[str]:
    """Returns what the runs were made with: backbone, code and days."""
    runs = [run for group in comparison.groups for run in group.runs]
    starts = [start for run in runs for start in run.record.get(MADE_WITH) or [] if isinstance(start, dict)]
    commits = sorted({str(start["git_commit"])[:SHOWN_COMMIT] for start in starts if start.get("git_commit")})
    days = sorted({str(start["started"])[:10] for start in starts if start.get("started")})
    tuned = [run for run in runs if run.is_tuned]
    notes = [f"{len(tuned)} tuned runs, {len(runs) - len(tuned)} of an untuned model"]
    if comparison.backbone:
        arguments = comparison.backbone.get("init_args") or {}
        folder = backbone_folder(arguments)
        name = str(comparison.backbone.get("class_path")).split(".")[-1]
        notes.append(f"backbone: {name}" + (f", {readable(str(folder))}" if folder is not None else ""))
    if days:
        notes.append(f"started: {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else ""))
    if commits:
        notes.append(f"code: {', '.join(commits)}")
    return notes
