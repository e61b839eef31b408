"""MME's answers as the folder that the official tool reads.

Source: ``calculation.py`` in ``eval_tool.zip`` of https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models.
One file a subtask, ``<subtask>.txt``, one line a question: ``image<TAB>question<TAB>Yes or No<TAB>response``. The tool
takes two adjacent lines as one picture, splits a line at every tab, and stops if one of the 14 files is missing. It
cannot read a line break or a tab within a response, so each of them becomes a space, as in our rule.

Not verified: that the pictures of a subtask stand in the order of the template that comes with the tool. The tool does
not look at it.
"""

from lightning_m2pt.metrics.mme import SUBTASKS, mme_scores, position_of
from lightning_m2pt.metrics.peer_formats.common import Export, encoded, flattened, yes_or_no
from lightning_m2pt.metrics.predictions import PredictionFile

Pair = tuple[str, str]


def mme_official_files(content: PredictionFile) -> Export:
    """Returns the files of the official tool's results folder.

    Raises:
        BadInputError: If a subtask is unknown, a target is neither yes nor no, or a picture has not two questions.
    """
    rows = content.predictions
    targets = [yes_or_no(row) for row in rows]
    mme_scores(
        [row["subtask"] for row in rows], [row["image_id"] for row in rows], [None] * len(rows), targets
    )  # refuses a picture without its pair
    lines: dict[Pair, list[str]] = {}
    for row, target in zip(rows, targets, strict=True):
        fields = (row["image_id"], row["question"], target.capitalize(), row["answer"])
        line = "\t".join(map(one_line, fields)) + "\n"
        lines.setdefault((row["subtask"], row["image_id"]), []).append(line)
    subtasks = sorted({subtask for subtask, _ in lines}, key=position_of)
    files = {
        f"{subtask}.txt": encoded("".join("".join(pair) for (of, _), pair in lines.items() if of == subtask))
        for subtask in subtasks
    }
    missing = [subtask for subtask in SUBTASKS if subtask not in subtasks]
    note = f"the official tool stops without {', '.join(missing)}" if missing else ""
    return Export(files, note)


def one_line(text: str) -> str:
    """Returns a text as one field of one line; a lone carriage return would end a line too."""
    return flattened(text).replace("\r", " ")
