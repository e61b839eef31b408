"""A named score as a torchmetrics metric, for logging while a method is tuned."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from lightning_m2pt.answering.prediction_line import answered_question
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.metrics.predictions import check_same_questions
from lightning_m2pt.metrics.score import named_rule, possible_answers, score


class ScoreMetric(Metric):
    """The score of a set under a rule, fed with answers over steps and ranks.

    ``compute`` gives the same number as ``score`` over the set's prediction file. Only tensors travel between ranks,
    so answers are kept as the bytes of JSON lines (id and answer): whatever text a model writes and whatever a rule
    makes of it, the state is one row of bytes, and ranks' rows are put one after the other. A question that several
    ranks were given, as distributed samplers do to even out, counts once.

    Use ``update`` in the step and give the metric to ``self.log``; ``forward`` has no meaning, since a batch alone has
    no score.

    Args:
        header: What a prediction file's header says of the set: ``benchmark``, ``classes``, ``default_rule``.
        questions: The questions of the whole set.
        rule: Name of a rule; None takes the set's default.

    Raises:
        BadInputError: If the rule is unknown, or does not fit the set.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    lines: list[Tensor]

    def __init__(self, header: Mapping[str, Any], questions: Sequence[Question], rule: str | None = None) -> None:
        super().__init__()
        self.header = dict(header)
        self.questions = {question.id: question for question in questions}
        self.rule = rule or str(header["default_rule"])
        named_rule(self.rule)
        possible_answers(self.rule, header, [self.prediction(name, "") for name in self.questions])
        self.add_state("lines", default=[], dist_reduce_fx="cat")
        self.keep([])

    @override
    def update(self, ids: Sequence[str], answers: Sequence[str]) -> None:
        """Takes answers of this rank.

        Args:
            ids: Questions' ids.
            answers: Their answers, as many.

        Raises:
            BadInputError: If an id is none of the set's.
        """
        for name in ids:
            if name not in self.questions:
                raise BadInputError(f"the id {name!r:.80} is no question of the set", where=self.header["benchmark"])
        self.keep([json.dumps(pair) for pair in zip(ids, answers, strict=True)])

    @override
    def compute(self) -> Tensor:
        """Returns the score in percent of its maximum.

        Raises:
            BadInputError: If a question of the set has no answer on any rank.
        """
        state = torch.cat(self.lines) if isinstance(self.lines, list) else self.lines
        answers: dict[str, str] = {}
        for line in state.cpu().numpy().tobytes().splitlines():
            name, answer = json.loads(line)
            answers.setdefault(name, answer)
        predictions = [self.prediction(name, answer) for name, answer in answers.items()]
        check_same_questions(predictions, list(self.questions), str(self.header["benchmark"]))
        return torch.tensor(score(self.header, predictions, self.rule).value, device=self.device)

    @override
    def reset(self) -> None:
        """Forgets all answers."""
        super().reset()
        self.keep([])

    def keep(self, lines: Sequence[str]) -> None:
        """Appends JSON lines to the state; no lines as well, since a rank's state must never be without its type."""
        content = "".join(line + "\n" for line in lines).encode("ascii")
        self.lines.append(torch.tensor(list(content), dtype=torch.uint8, device=self.device))

    def prediction(self, name: str, answer: str) -> dict[str, Any]:
        """Returns one line of a prediction file."""
        return answered_question(str(self.header["benchmark"]), self.questions[name], answer)
