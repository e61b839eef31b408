"""What a transfer gave: scores and paired gains of every row on every set, as a file and as a table."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from callbacks.predictions import prediction_file
from experiments.prompt_transfer.rows import MEANINGS, RANDOM, UNTOUCHED, Row
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.metrics.statistics import compare
from lightning_m2pt.report.tables.formats import Column, ReportTable, markdown
from lightning_m2pt.report.tables.scores import p_text
from lightning_m2pt.runs.scoring import score_file
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.strict_json import parse_json

RESULTS_FILE, TABLE_FILE = "transfer.json", "transfer.md"
SETTINGS_FILE = "settings.json"
"""Written before the first answer: what decides answers and does not stand in their files."""
FORMAT = 1
FEATURES = "feature_distance"


def compared_rows(
    frozen: Path, folder: Path, sets: Sequence[str], rows: Sequence[Row], distances: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Returns one record for every set and row, the untouched model first.

    Args:
        frozen: Folder with the untouched model's answers.
        folder: Folder of the rows' folders.
        sets: Names of the sets.
        rows: The rows.
        distances: The relative distance of a row's features by set, where it was measured.
    """
    records = []
    for name in sets:
        _, untouched = score_file(prediction_file(frozen, name))
        places = {UNTOUCHED: frozen, **{row.name: folder / row.folder for row in rows if not row.same_as}}
        alike = {row.name: row.same_as for row in rows if row.same_as}
        for row in (UNTOUCHED, *(each.name for each in rows)):
            place = prediction_file(places[alike.get(row, row)], name)
            _, scored = score_file(place)
            gain = None if row == UNTOUCHED else compare(read_predictions(place), [untouched], [scored])
            records.append(
                {
                    "set": name,
                    "row": row,
                    "score": scored.value,
                    "chance": scored.chance,
                    "questions": scored.n,
                    "gain": gain and gain.difference,
                    "low": gain and gain.interval.low,
                    "high": gain and gain.interval.high,
                    "p_value": gain and gain.p_value,
                    FEATURES: distances.get(alike.get(row, row), {}).get(name),
                    "same_as": alike.get(row, ""),
                    "predictions": os.path.relpath(place, folder),
                }
            )
    return records


def write_results(
    folder: Path, description: Mapping[str, Any], records: Sequence[Mapping[str, Any]], table: ReportTable
) -> Path:
    """Writes everything with all digits, and the table in Markdown beside it; returns the file with all digits.

    Args:
        folder: The transfer's folder.
        description: What was carried where.
        records: As ``compared_rows`` returns them.
        table: As ``transfer_table`` returns it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / TABLE_FILE, markdown([table]).encode())
    content = {"format": FORMAT, **description, "rows": list(records)}
    write_atomically(folder / RESULTS_FILE, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    return folder / RESULTS_FILE


def settle(folder: Path, arguments: Mapping[str, Any], fingerprints: Sequence[str], force: bool) -> None:
    """Keeps two transfers out of one folder: files of answers say neither base nor composition.

    Args:
        folder: The transfer's folder.
        arguments: How the prompt is composed.
        fingerprints: Today's and the former fingerprint of the target base.
        force: Whether everything is done again.

    Raises:
        BadInputError: If another base's answers are there, those of a prompt that is composed otherwise, or some of
            which nothing says that.
    """
    settings, path = folder / SETTINGS_FILE, folder / RESULTS_FILE
    if settings.is_file():
        path = settings
    has_answers = any(prediction_file(folder / row, "").parent.is_dir() for row in MEANINGS)
    if has_answers and not path.is_file() and not force:
        raise BadInputError(
            "answers of a transfer that was stopped are in this folder, and nothing says of which base",
            where=f"command line: --output {folder}",
            expected="a folder of its own for every transfer",
            hint="--force answers again",
        )
    if path.is_file() and not force:
        known = read_settings(path)
        if known != {"arguments": dict(arguments), "fingerprint": known["fingerprint"]}:
            what = "answers with a prompt that is composed otherwise"
        else:
            what = "" if known["fingerprint"] in fingerprints else "answers of another base"
        if what:
            raise BadInputError(
                f"{what} are in this folder",
                where=f"command line: --output {folder}",
                expected="a folder of its own for every transfer",
                hint="--force answers again",
            )
    if force or not settings.is_file():
        content = {"arguments": dict(arguments), "fingerprint": fingerprints[0]}
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(settings, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_settings(path: Path) -> dict[str, Any]:
    """Returns arguments and fingerprint as a transfer's settings, or its results, have them.

    Raises:
        BadInputError: If the file is damaged.
    """
    try:
        content = parse_json(path.read_bytes(), path)
        target = content.get("target", content)
        return {"arguments": dict(content["arguments"]), "fingerprint": str(target["fingerprint"])}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise BadInputError(f"damaged ({error})", where=str(path), expected="a transfer's file") from error


def known_distances(folder: Path, random_seed: int | None, force: bool) -> dict[str, dict[str, float]]:
    """Returns the relative distances by row and set that an earlier start of the same transfer has measured.

    Args:
        folder: The transfer's folder.
        random_seed: What the random prompt is drawn with; another one's distances are not its own.
        force: Whether everything is done again.
    """
    if force or not (folder / RESULTS_FILE).is_file():
        return {}
    known: dict[str, dict[str, float]] = {}
    content = read_transfer(folder)
    for record in content["rows"]:
        is_other = record["row"] == RANDOM and content.get("random_seed") != random_seed
        if record[FEATURES] is not None and not record["same_as"] and not is_other:
            known.setdefault(record["row"], {})[record["set"]] = record[FEATURES]
    return known


def read_transfer(folder: Path) -> dict[str, Any]:
    """Returns what a transfer wrote last.

    Raises:
        BadInputError: If it is missing or damaged.
    """
    path = folder / RESULTS_FILE
    try:
        content: dict[str, Any] = parse_json(path.read_bytes(), path)
        for record in content["rows"]:
            float(record["score"]), str(record["set"]), str(record["row"]), str(record["predictions"])
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
    except OSError as error:
        raise BadInputError(
            f"cannot be read: {error.strerror}", where=str(path), expected="a transfer's file"
        ) from error
    except (ValueError, TypeError, LookupError) as error:
        raise BadInputError(f"damaged ({error})", where=str(path), expected="a transfer's file") from error
    return content


def transfer_table(title: str, records: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> ReportTable:
    """Returns the records as a table for people and for programs.

    Args:
        title: What stands above it.
        records: As ``compared_rows`` returns them.
        notes: Sentences below it.
    """
    measured = any(record[FEATURES] is not None for record in records)
    columns = [Column("set"), Column("row")]
    columns += [Column(name, is_number=True) for name in ("score", "gain", "95% interval", "McNemar p")]
    columns += [Column("feature distance", is_number=True)] if measured else []
    rows = []
    for record in records:
        has_gain = record["gain"] is not None
        cells = [
            str(record["set"]),
            str(record["row"]),
            f"{record['score']:.1f}",
            f"{record['gain']:+.1f}" if has_gain else "",
            f"{record['low']:+.1f} to {record['high']:+.1f}" if has_gain else "",
            "" if record["p_value"] is None else p_text(record["p_value"]),
        ]
        if measured:
            cells.append("" if record[FEATURES] is None else f"{record[FEATURES]:.3f}")
        rows.append(cells)
    shown = dict.fromkeys(str(record["row"]) for record in records)
    said = "; ".join(f"{row}: {MEANINGS[row]}" for row in shown)
    alike = [f"{record['row']} has the very pictures of {record['same_as']}" for record in records if record["same_as"]]
    return ReportTable(
        title,
        columns,
        rows,
        records,
        [
            said,
            "gains are over the untouched model on the same questions, with paired 95% intervals",
            *(["feature distance: of patch rows to those without the prompt, by their norm"] if measured else []),
            *dict.fromkeys(alike),
            *notes,
        ],
    )
