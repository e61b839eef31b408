"""Runs ``m2pt judge``; its flags and what it is for are in ``parsers``."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.progress import track

from lightning_m2pt.answering.judge import (
    MAX_NEW_TOKENS,
    PROMPT,
    LocalJudge,
    judge_prompt,
    read_verdict,
)
from lightning_m2pt.answering.local_model import check_model_folder, model_fingerprint
from lightning_m2pt.commands.parsers.judge import argument_parser
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.metrics.agreement import Agreement, agreement
from lightning_m2pt.metrics.coverage import part_answered
from lightning_m2pt.metrics.pope import ratio
from lightning_m2pt.metrics.predictions import PredictionFile, read_predictions
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.metrics.word_matching import exact
from lightning_m2pt.report.tables.scores import score_table
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import OUT, say

RULE = "judge"
VERDICT_NAMES = {True: "right", False: "wrong", None: None}


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    check_model_folder(own.model, LocalJudge.called)
    device = checked_device(own.device)
    content = read_predictions(own.predictions)
    if not content.predictions:
        raise BadInputError("there are no predictions", where=str(own.predictions), expected="at least one")
    path = verdict_file(own.predictions, str(content.header["benchmark"]))
    if path.exists() and not own.force:
        raise BadInputError("there are verdicts already", where=str(path), hint="--force judges again")
    say(f"judging {len(content.predictions):,} answers of {content.header['benchmark']} with {own.model}")
    judge = LocalJudge.load(own.model, device)
    replies = all_replies(judge, content, own.batch_size)
    verdicts = [read_verdict(reply) for reply in replies]
    scored = judged_score(content, verdicts)
    agreed = agreement_with_exact(content, verdicts)
    record = {
        "rule": RULE,
        "predictions": {"header": content.header, "sha256": hashlib.sha256(own.predictions.read_bytes()).hexdigest()},
        "judge": {
            "name": own.model.resolve().name,
            "fingerprint": model_fingerprint(own.model),
            "dtype": str(judge.model.dtype).removeprefix("torch."),
            "device": device.type,
            "batch_size": own.batch_size,
            "chat_template": judge.has_chat_template,
            "prompt": PROMPT,
            "decoding": {"method": "greedy", "max_new_tokens": MAX_NEW_TOKENS},
        },
        "score": {key: value for key, value in scored.to_json().items() if key != "parsed"},
        "agreement_with_exact": asdict(agreed),
        "verdicts": {
            row["id"]: {"verdict": VERDICT_NAMES[verdict], "reply": reply}
            for row, verdict, reply in zip(content.predictions, verdicts, replies, strict=True)
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode(errors="replace"))
    OUT.print(score_table([scored]))
    say(agreement_sentence(agreed))
    say(f"verdicts: {path}")
    return ExitCode.DONE


def checked_device(name: str | None) -> torch.device:
    """Returns the device to use.

    Raises:
        BadInputError: If this machine has no such device.
    """
    has_cuda = torch.cuda.is_available()
    try:
        device = torch.device(name or ("cuda" if has_cuda else "cpu"))
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        raise BadInputError(
            f"there is no device {name!r:.40}", where="--device", expected="cpu or cuda" if has_cuda else "cpu"
        ) from error
    return device


def verdict_file(predictions: Path, benchmark: str) -> Path:
    """Returns where a set's verdicts stand: beside ``predictions/``, or beside the file if that is elsewhere."""
    folder = predictions.parent
    return (folder.parent if folder.name == "predictions" else folder) / "verdicts" / f"{benchmark}.json"


def all_replies(judge: LocalJudge, content: PredictionFile, batch_size: int) -> list[str]:
    """Returns the judge's reply to every answer, in the file's order; the longest prompts are judged together."""
    prompts = [judge_prompt(row["question"], row["target"], row["answer"]) for row in content.predictions]
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    replies = [""] * len(prompts)
    for start in track(range(0, len(order), batch_size), "judging", console=OUT, transient=True):
        places = order[start : start + batch_size]
        for place, reply in zip(places, judge.replies([prompts[place] for place in places]), strict=True):
            replies[place] = reply
    return replies


def judged_score(content: PredictionFile, verdicts: Sequence[bool | None]) -> Score:
    """Returns the share of answers judged right, over all and per subtask; chance is the commonest target's share."""
    rows = content.predictions
    targets = Counter(row["target"].strip().lower() for row in rows)
    table = {}
    for subtask in dict.fromkeys(row["subtask"] for row in rows):
        right = [verdict is True for row, verdict in zip(rows, verdicts, strict=True) if row["subtask"] == subtask]
        table[subtask or "overall"] = {"accuracy": ratio(sum(right), len(right)), "n": float(len(right))}
    share = verdicts.count(True) / len(rows)
    return Score(
        benchmark=str(content.header["benchmark"]),
        rule=RULE,
        headline="judged right",
        value=100 * share,
        raw=share,
        maximum=1.0,
        chance=100 * max(targets.values()) / len(rows),
        n=len(rows),
        unparsed=verdicts.count(None),
        yes_ratio=None,
        table=table,
        parsed={row["id"]: VERDICT_NAMES[verdict] for row, verdict in zip(rows, verdicts, strict=True)},
        part=part_answered(content.header, rows),
    )


def agreement_with_exact(content: PredictionFile, verdicts: Sequence[bool | None]) -> Agreement:
    """Returns how far verdicts agree with the rule ``exact``; an unparsed verdict counts as wrong."""
    is_exact = [exact(row["answer"], [row["target"]]) is not None for row in content.predictions]
    return agreement([verdict is True for verdict in verdicts], is_exact)


def agreement_sentence(agreed: Agreement) -> str:
    """Returns the agreement in words."""
    kappa = "has no value: one of them never varies" if agreed.kappa is None else f"{agreed.kappa:.2f}"
    return f"agreement with exact: {100 * agreed.share:.1f}% of {agreed.n:,} answers, Cohen's kappa {kappa}"
