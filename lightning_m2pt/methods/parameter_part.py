"""One named part of what a method trains, and how many numbers it has."""

from dataclasses import dataclass, field


@dataclass
class ParameterPart:
    """One named part of what a method trains, counted.

    Attributes:
        name: ``visual_prompts``, ``textual_prompts``, ``interaction``, ``lm_head``, ...
        parameters: Trained numbers.
        added: Those of them that the untouched model does not have (the others stand in for pretrained ones).
        dead: Those that can never receive a gradient, or never move, by declaration.
        dead_names: What the dead ones are.
        is_outside: Whether they stand outside of the model, in the pictures that it is shown.
    """

    name: str
    parameters: int
    added: int
    dead: int = 0
    dead_names: list[str] = field(default_factory=list)
    is_outside: bool = False
