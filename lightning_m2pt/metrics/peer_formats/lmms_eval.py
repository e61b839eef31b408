"""Answers in the form of lmms-eval's sample logs, ``samples_<task>.jsonl``.

Source: lmms-eval 0.7.3 (``evaluator.py``, ``loggers/evaluation_tracker.py``, ``tasks/mme/utils.py``,
``tasks/pope/utils.py``; https://github.com/EvolvingLMMs-Lab/lmms-eval), read and run on what is written here. A line
has ``doc_id``, ``input``, ``target``, ``filtered_resps`` (the answer as it is) and, under every metric's name, what
the task's ``process_results`` returns; the aggregations take lists of these. The values under the metrics are computed
by lmms-eval's rules, which are not the official ones.

Left out are ``doc_hash`` and ``token_counts``, which only a run of lmms-eval has, and a file of results, which its
scorer shall make. Not verified: that ``doc_id``, here the place in our file, is the place in its copy of the set on the
hub. POPE goes to the three tasks of ``pope_full``.
"""

from collections.abc import Mapping
from typing import Any

from lightning_m2pt.metrics.mme import COGNITION, position_of
from lightning_m2pt.metrics.mme_readings import mme_lmms_answer
from lightning_m2pt.metrics.peer_formats.common import Export, yes_or_no
from lightning_m2pt.metrics.peer_formats.pope import json_lines, number_of, split_of
from lightning_m2pt.metrics.predictions import PredictionFile

POPE_TASKS = {"random": "pope_random", "popular": "pope_pop", "adversarial": "pope_adv"}
POPE_METRICS = ("pope_accuracy", "pope_precision", "pope_recall", "pope_f1_score", "pope_yes_ratio")


def lmms_eval_files(content: PredictionFile) -> Export:
    """Returns ``samples_<task>.jsonl`` for every task.

    Raises:
        BadInputError: If a subtask or split is unknown, or a target neither yes nor no.
    """
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    is_mme = content.header["benchmark"] == "mme"
    for row in content.predictions:
        task = "mme" if is_mme else POPE_TASKS[split_of(row)]
        of_task = tasks.setdefault(task, [])
        sample = {
            "doc_id": len(of_task),
            "input": row["question"],
            "target": yes_or_no(row).capitalize() if is_mme else yes_or_no(row),
            "filtered_resps": row["answer"],
        }
        of_task.append(sample | (mme_metrics(row) if is_mme else pope_metrics(row)))
    return Export({f"samples_{task}.jsonl": json_lines(samples) for task, samples in tasks.items()})


def mme_metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what lmms-eval's MME task logs for an answer: its subtask's group with the pair's key and a score."""
    position_of(row["subtask"])  # refuses one that MME has not
    name = "mme_cognition_score" if row["subtask"] in COGNITION else "mme_perception_score"
    right = mme_lmms_answer(row["answer"]) == yes_or_no(row)
    key = f"{row['subtask']}/{row['image_id']}"
    return {name: {"question_id": key, "category": row["subtask"], "score": float(right)}}


def pope_metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what lmms-eval's POPE tasks log for an answer, the same under all five metrics."""
    prediction = row["answer"].lower().strip()
    logged = {
        "question_id": number_of(row),
        "score": float(prediction == yes_or_no(row)),
        "prediction": prediction,
        "ground_truth": yes_or_no(row),
    }
    return dict.fromkeys(POPE_METRICS, logged)
