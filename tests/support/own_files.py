"""The same sixteen records in every form that a file to tune on may have."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_modules.reading.files import fake_image, write_image
from tests.support.hub_files import picture, write_parquet

QUESTION = "What is the number ?"
RECORDS = [(number // 2, QUESTION, "yes it is" if number % 3 else "no") for number in range(16)]
"""Number of the picture, question, answer; every question is the same one, as a folder of captions has it."""


def name_of(number: int) -> str:
    return f"pictures/{number}.png"


def write_pictures(folder: Path) -> None:
    for number, _, _ in RECORDS:
        write_image(folder / name_of(number), fake_image(number))


def llava_json(folder: Path) -> Path:
    write_pictures(folder)
    records = [
        {
            "id": place,
            "image": name_of(number),
            "conversations": [
                {"from": "human", "value": f"<image>\n{question}" if place % 2 else f"{question}\n<image>"},
                {"from": "gpt", "value": answer},
            ],
        }
        for place, (number, question, answer) in enumerate(RECORDS)
    ]
    return written(folder / "own.json", json.dumps(records))


def messages_jsonl(folder: Path) -> Path:
    write_pictures(folder)
    lines = []
    for place, (number, question, answer) in enumerate(RECORDS):
        parts = [{"type": "image"}, {"type": "text", "text": question}]
        content: Any = parts if place % 2 else f"<image>{question}"
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages, "images": [name_of(number)]}))
    return written(folder / "own.jsonl", "\n".join(lines))


def table(folder: Path, ending: str = "csv") -> Path:
    write_pictures(folder)
    path = folder / f"own.{ending}"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if ending == "tsv" else ",")
        writer.writerow(["path", "q", "label"])
        writer.writerows([name_of(number), question, answer] for number, question, answer in RECORDS)
    return path


def parquet(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"image": picture(fake_image(number)), "instruction": question, "output": answer}
        for number, question, answer in RECORDS
    ]
    return write_parquet(folder / "own.parquet", rows, row_group_size=5)


def captioned(folder: Path) -> Path:
    for place, (number, _, answer) in enumerate(RECORDS):
        write_image(folder / f"{place:02d}.png", fake_image(number))
        written(folder / f"{place:02d}.txt", answer + "\n")
    return folder


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


COLUMNS = {"image": "path", "question": "q", "answer": "label"}
FORMS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "llava json": (llava_json, {}),
    "messages jsonl": (messages_jsonl, {}),
    "csv": (table, {"columns": COLUMNS}),
    "tsv": (lambda folder: table(folder, "tsv"), {"columns": COLUMNS}),
    "parquet": (parquet, {}),
    "captioned folder": (captioned, {"question": QUESTION}),
}
"""Writes the form and returns its file, and the settings that it needs."""
