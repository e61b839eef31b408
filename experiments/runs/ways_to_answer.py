"""How the questions of a set are answered: greedily, or by comparing the set's candidate answers."""

from typing import TypeAlias

from data_modules.benchmark import BenchmarkDataModule
from lightning_m2pt.answering.content_free import ContentFree
from lightning_m2pt.answering.decoding import Answering, AnsweringMethod, GreedyAnswering, LikelihoodAnswering
from lightning_m2pt.answering.domain_premise import DomainPremise
from lightning_m2pt.answering.likelihood import tokenised_candidates
from lightning_m2pt.answering.own_candidates import OwnCandidateAnswering
from lightning_m2pt.answering.premises import Premises
from lightning_m2pt.errors import BadInputError

PremiseRule: TypeAlias = ContentFree | DomainPremise
"""What a calibrated method sets against a question."""


def answering_of(
    benchmark: BenchmarkDataModule, method: AnsweringMethod, premise: PremiseRule | None = None
) -> Answering:
    """Returns how a set's questions are answered.

    Args:
        benchmark: A connected set, with its examples if it is asked with some.
        method: How.
        premise: What a calibrated method sets against a question; None takes the published.

    Raises:
        BadInputError: If likelihoods are asked for and the set has no candidate answers, or the premise is another
            method's or cannot be read.
    """
    rule = premise_rule(method, premise)
    if method == "greedy":
        return GreedyAnswering(benchmark.processor, benchmark.max_new_tokens, benchmark.template)
    questions = benchmark.questions()
    of_each = {question.id: benchmark.candidates_of(question) for question in questions}
    lacking = next((question for question in questions if not of_each[question.id]), None)
    if lacking is not None:
        raise BadInputError(
            f"{benchmark.name} has no fixed answers to choose from",
            where="command line: --answer",
            expected="sets with classes, or yes and no",
            hint="leave it out with --benchmarks, or take --answer greedy",
        )
    distinct = {
        texts: tokenised_candidates(benchmark.processor, benchmark.template, texts)
        for texts in dict.fromkeys(of_each.values())
    }
    premises = premises_of(benchmark, rule)
    if len(distinct) == 1 and not questions[0].choices:
        return LikelihoodAnswering(next(iter(distinct.values())), method, premises)
    return OwnCandidateAnswering({name: distinct[texts] for name, texts in of_each.items()}, method, premises)


def premise_rule(method: AnsweringMethod, given: PremiseRule | None) -> PremiseRule | None:
    """Returns what a method sets against a question, the published where nothing is given; None where it sets nothing.

    Raises:
        BadInputError: If something is given that is another method's.
    """
    kind = {"contextual_calibration": ContentFree, "likelihood_pmi": DomainPremise}.get(method)
    if given is None:
        return None if kind is None else kind()
    if kind is None or not isinstance(given, kind):
        raise BadInputError(
            f"{method} sets nothing like {type(given).__name__} against a question",
            where="premise",
            expected="ContentFree with contextual_calibration, DomainPremise with likelihood_pmi",
        )
    return given


def premises_of(benchmark: BenchmarkDataModule, rule: PremiseRule | None) -> Premises | None:
    """Returns the premises of a set's questions as they are asked; None where there are none.

    Raises:
        BadInputError: If the model cannot read one.
    """
    if rule is None:
        return None
    return rule.premises(benchmark.asked_samples(), benchmark.processor, benchmark.template)
