"""Our models within lmms-eval: ``lmms-eval --model m2pt --model_args run=outputs/EXPERIMENT/RUN --tasks mme``.

Importable where lmms-eval is installed (``pip install -e '.[lmms-eval]'``), and found by it through the entry point in
setup.cfg. Written for lmms-eval 0.7.3, read in its source: a request's ``args`` are (context, generation settings,
doc_to_visual, doc_id, task, split), with the continuation in place of the settings for likelihoods, and documents are
in ``task_dict[task][split]``.

Its base class asks for a log-likelihood, but its multiple-choice tasks take the smallest number: as its own LLaVA
classes do, ``loglikelihood`` returns the mean loss a token. In 0.7.3 no multiple-choice task runs to its end, whatever
the model: the evaluator makes a text of every pair (``unwrap_generation_output``) before the task unpacks it.

Answers are greedy and about one picture; a task that samples, or has more pictures or none, is refused.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from lmms_eval.api.model import lmms
from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.templates import IMAGE_MARK
from lightning_m2pt.runs.loaded_model import Asked, load_model

DEFAULT_MAX_NEW_TOKENS = 128


class M2PTModel(lmms):  # type: ignore[misc]  # lmms-eval has no types
    """A tuned run, or the untouched backbone, as lmms-eval asks for it.

    Args:
        run: A tuned run's folder.
        config: In its place, the file of an experiment that tunes nothing, or on the base of ``adapter``.
        template: Name of the conversation template; empty takes that of the first evaluation set.
        batch_size: Questions answered at once.
        device: Where the model runs; None takes this process's GPU if there is one.
        adapter: An adapter's folder by itself; ``config`` says what its base is.
    """

    def __init__(
        self,
        run: str = "",
        config: str = "",
        template: str = "",
        batch_size: int | str = 1,
        device: str | None = None,
        adapter: str = "",
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise BadInputError(f"{batch_size!r} is no number", where="batch_size", expected="at least 1")
        own_gpu = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        self.device = torch.device(device or (own_gpu if torch.cuda.is_available() else "cpu"))
        self.batch_size = int(batch_size)
        self.loaded = load_model(str(run), str(config), str(template), self.device, str(adapter))

    @override
    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        answers = [""] * len(requests)
        settings = [answer_settings(request.args[1]) for request in requests]
        for of_one in dict.fromkeys(settings):
            limit, stops = of_one
            places = [place for place, other in enumerate(settings) if other == of_one]
            for chunk in self.chunks(places, requests):
                asked = [self.asked(requests[place]) for place in chunk]
                for place, answer in zip(chunk, self.loaded.answers(asked, limit), strict=True):
                    answers[place] = before_stops(answer, stops)
        return answers

    @override
    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        results = [(0.0, False)] * len(requests)
        for chunk in self.chunks(range(len(requests)), requests):
            asked = [self.asked(requests[place]) for place in chunk]
            losses = self.loaded.losses(asked, [self.continuation(requests[place]) for place in chunk])
            for place, loss in zip(chunk, losses, strict=True):
                results[place] = (loss.mean, loss.is_greedy)
        return results

    @override
    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("m2pt answers one question about one picture; this task has several rounds")

    def chunks(self, places: Sequence[int], requests: Sequence[Any]) -> list[list[int]]:
        """Returns places in batches, the longest questions first, so that a lack of memory shows at the start."""
        order = sorted(places, key=lambda place: -len(requests[place].args[0]))
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def asked(self, request: Any) -> Asked:
        """Returns a request's question and picture.

        Raises:
            BadInputError: If it is not about exactly one picture.
        """
        context, _, doc_to_visual, doc_id, task, split = six_arguments(request)
        source = f"{task}, {split}, document {doc_id}"
        visuals = doc_to_visual(self.task_dict[task][split][doc_id]) or []
        if len(visuals) != 1 or not hasattr(visuals[0], "convert"):
            raise BadInputError(f"there are {len(visuals)} pictures or videos", where=source, expected="one picture")
        text = str(context).replace(IMAGE_MARK, "").strip()
        return Asked(text, numpy.asarray(visuals[0].convert("RGB")), source)

    def continuation(self, request: Any) -> str:
        """Returns the answer whose likelihood is asked for, without the outer spaces our templates bring themselves."""
        _, target, _, doc_id, task, split = six_arguments(request)
        return str(target(self.task_dict[task][split][doc_id]) if callable(target) else target).strip()


def six_arguments(request: Any) -> tuple[Any, ...]:
    """Returns a request's arguments.

    Raises:
        BadInputError: If there are not six, as in a request without a picture for mutual information.
    """
    if len(request.args) != 6:
        raise BadInputError("a request without a picture", where=str(request.args)[:80], expected="one picture")
    return tuple(request.args)


def answer_settings(settings: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Returns the limit on new tokens and the texts that end an answer.

    Raises:
        BadInputError: If the task samples or searches beams.
    """
    wanted = {"do_sample": False, "temperature": 0, "num_beams": 1}
    for key, greedy in wanted.items():
        if (settings.get(key) or greedy) != greedy:
            raise BadInputError(
                f"the task sets {key} to {settings[key]}",
                where="generation settings",
                expected=f"{greedy}: answers are greedy",
                hint=f"--gen_kwargs {key}={greedy}",
            )
    until = settings.get("until") or []
    stops = (until,) if isinstance(until, str) else tuple(until)
    return int(settings.get("max_new_tokens") or DEFAULT_MAX_NEW_TOKENS), stops


def before_stops(answer: str, stops: Sequence[str]) -> str:
    """Returns an answer up to the first text that ends it."""
    for stop in stops:
        answer = answer.split(stop)[0] if stop else answer
    return answer.strip()
