"""The proposers by what users call them."""

from lightning_m2pt.prompt_search.proposers.autoprompt import AutoPrompt
from lightning_m2pt.prompt_search.proposers.base import Proposer
from lightning_m2pt.prompt_search.proposers.beam import BeamSearch
from lightning_m2pt.prompt_search.proposers.exhaustive import ExhaustiveCoordinates
from lightning_m2pt.prompt_search.proposers.gcg import GreedyCoordinateGradient
from lightning_m2pt.prompt_search.proposers.pez import PEZ
from lightning_m2pt.prompt_search.proposers.random_prompts import RandomPrompts
from lightning_m2pt.prompt_search.proposers.reinforce import Reinforce


def proposer_named(name: str, width: int, top_k: int, beam: int) -> Proposer:
    """Returns a proposer that needs nothing but numbers.

    Args:
        name: What users call it; the verb's flag knows the names.
        width: Prompts a round, of those that draw.
        top_k: Tokens tried for each place, of those that go by gradients.
        beam: Prompts that a beam keeps.

    Raises:
        ValueError: If there is none of the name.
    """
    match name:
        case RandomPrompts.name:
            return RandomPrompts(width)
        case ExhaustiveCoordinates.name:
            return ExhaustiveCoordinates()
        case AutoPrompt.name:
            return AutoPrompt(top_k)
        case GreedyCoordinateGradient.name:
            return GreedyCoordinateGradient(width, top_k)
        case BeamSearch.name:
            return BeamSearch(beam, top_k)
        case PEZ.name:
            return PEZ()
        case Reinforce.name:
            return Reinforce(width)
    raise ValueError(f"no proposer is called {name}")
