"""MME's official score.

Source: ``calculation.py`` in ``eval_tool.zip`` of the MME repository (2023-07-01). The answer is lower-cased; if it is
exactly "yes" or "no" it counts as that, otherwise its first four characters are searched for "yes", then for "no"; any
other answer is wrong. Nothing is trimmed. The only deviation: newlines and tabs become spaces first, which the
official tool cannot read at all.

Per subtask: accuracy over questions, accuracy+ over pictures with both questions right, score = 100 accuracy + 100
accuracy+. Perception is the sum of its 10 subtasks (at most 2000), cognition of its 4 (at most 800).
"""

SUBTASK_SCORE_MAXIMUM = 200
PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
SUBTASKS = PERCEPTION + COGNITION
"""The official order."""
