"""Answers as the tab-separated result file that VLMEvalKit evaluates.

Source: ``vlmeval/dataset/image_yorn.py``, ``vlmeval/dataset/utils/yorn.py`` and ``vlmeval/smp/file.py`` of
https://github.com/open-compass/VLMEvalKit. It reads results from .xlsx, .tsv or .json by the file's ending; all fields
are quoted here as it quotes them itself. Read are ``index`` (any unique value), ``prediction``, ``answer`` (exactly
``Yes`` or ``No``), ``category`` (MME's subtask, POPE's split) and ``image_path`` (MME's pairs, within the category).
Its own POPE file has one row for questions that recur in several splits, with the splits joined; one row each counts
the same.

Not verified: the text of its questions and the numbers in its ``index`` column, as its own tables were not opened. Its
scores do not depend on them. Its rule is not the official one of MME or POPE: yes or no as a word anywhere, not both.
"""

import csv
import io

from lightning_m2pt.metrics.peer_formats.common import Export, encoded, yes_or_no
from lightning_m2pt.metrics.predictions import PredictionFile

DATASETS = {"mme": "MME", "pope": "POPE", "vsr": "VSR-zeroshot"}
"""VLMEvalKit's name of every set it has; its VSR is the zero-shot test split."""

COLUMNS = ("index", "question", "answer", "category", "image_path", "prediction")


def vlmevalkit_files(content: PredictionFile) -> Export:
    """Returns ``m2pt_<dataset>.tsv``.

    Raises:
        BadInputError: If a target is neither yes nor no.
    """
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    table.writerow(COLUMNS)
    for number, row in enumerate(content.predictions):
        answer = yes_or_no(row).capitalize()
        table.writerow((number, row["question"], answer, row["subtask"], row["image_id"], row["answer"]))
    dataset = DATASETS[content.header["benchmark"]]
    return Export({f"m2pt_{dataset}.tsv": encoded(text.getvalue())})
