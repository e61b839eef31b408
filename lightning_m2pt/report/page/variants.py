"""Which of the groups are M2PT itself, M2PT without one of its parts, and M2PT with other prompt lengths.

What a run is follows from its record and the switches in its prediction files, never from a name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_m2pt.report.tables.sweeps import Sweep
from lightning_m2pt.runs.evaluated import Group
from lightning_m2pt.storage.run_record import DECIDING

VISUAL, TEXTUAL, INTERACTION = "visual_length", "textual_length", "interaction"
LENGTHS = (TEXTUAL, VISUAL)
WITHOUT = {
    VISUAL: (0, "without visual prompts"),
    TEXTUAL: (0, "without textual prompts"),
    INTERACTION: (False, "without interaction"),
}
"""The parts of M2PT in the order of the paper's Figure 4: the argument, its value without the part, and the name."""
WHOLE = "full M2PT"
SWITCHES = ("visual_prompts", "textual_prompts", "interaction")
RATES = "learning_rate"


@dataclass(frozen=True)
class Variants:
    """Settings of one method that differ in nothing else.

    Attributes:
        base: The whole method.
        members: The other settings: what is left out, or (textual, visual) lengths.
    """

    base: Group
    members: Mapping[Any, Group]


def is_whole(group: Group) -> bool:
    """Tells whether a group is M2PT with all its parts."""
    toggles = toggles_of(group)
    return (
        toggles.get("method") == "m2pt" and all(toggles.get(name) for name in SWITCHES) and not toggles.get("lm_head")
    )


def toggles_of(group: Group) -> Mapping[str, Any]:
    """Returns the switches that a group's first prediction file names."""
    toggles = next(iter(group.runs[0].sets.values())).answered.header.get("toggles")
    return toggles if isinstance(toggles, dict) else {}


def lead_of(groups: Sequence[Group], sweeps: Sequence[Sweep]) -> Group | None:
    """Returns the M2PT that others are compared with: most seeds, then the largest sweep, then the first name."""

    def order(group: Group) -> tuple[int, int, int, str]:
        keys = {"/".join(folder.parts[-2:]) for folder in group.folders}
        places = [at for at, sweep in enumerate(sweeps) if any(keys & runs for runs in sweep.runs.values())]
        return -len(group.runs), min(places, default=len(sweeps)), len(group.name), group.name

    return min(filter(is_whole, groups), key=order, default=None)


def ablation(groups: Sequence[Group], lead: Group | None) -> Variants | None:
    """Returns M2PT and what is left of it without each part, for the whole method with most of these; None without."""
    found = [Variants(base, one_part_less(base, groups)) for base in filter(is_whole, groups)]
    found = [variants for variants in found if variants.members]
    return max(found, key=lambda one: (len(one.members), one.base is lead), default=None)


def one_part_less(base: Group, groups: Sequence[Group]) -> dict[str, Group]:
    """Returns the groups that are a whole method without one part, by what they lack."""
    members: dict[str, Group] = {}
    for key, (value, name) in WITHOUT.items():
        for group in groups:
            differing = differing_arguments(base, group)
            if differing is not None and set(differing) == {key} and differing[key] == value:
                members.setdefault(name, group)
    return members


def length_grid(groups: Sequence[Group], lead: Group | None) -> Variants | None:
    """Returns the groups that differ in prompt lengths alone, by (textual, visual) length.

    Left-out prompts alone are the ablation's: there has to be a length beside 0 and the whole method's own.
    """
    found = []
    for base in filter(is_whole, groups):
        members: dict[tuple[Any, Any], Group] = {}
        for group in groups:
            differing = differing_arguments(base, group)
            if differing is not None and set(differing) <= set(LENGTHS):
                own = arguments_of(group)
                members[own.get(TEXTUAL), own.get(VISUAL)] = group
        own = arguments_of(base)
        if any(pair[at] not in (0, own.get(key)) for pair in members for at, key in enumerate(LENGTHS)):
            found.append(Variants(base, members))
    return max(found, key=lambda one: (len(one.members), one.base is lead), default=None)


def differing_arguments(base: Group, group: Group) -> dict[str, Any] | None:
    """Returns the method's arguments in which a group differs from another; None if more than the method differs.

    Learning rates count only for parts that both have: what is left out has none.
    """
    first, second = deciding_of(base), deciding_of(group)
    if not first or not second or base.runs[0].experiment != group.runs[0].experiment:
        return None
    if {key: one for key, one in first.items() if key not in OTHERWISE_COMPARED} != {
        key: one for key, one in second.items() if key not in OTHERWISE_COMPARED
    }:
        return None
    if not same_rates(first.get("optimizer"), second.get("optimizer")):
        return None
    own, others = arguments_of(group), arguments_of(base)
    return {key: own.get(key) for key in own.keys() | others.keys() if own.get(key) != others.get(key)}


OTHERWISE_COMPARED = ("seed", "method", "optimizer")


def same_rates(first: Any, second: Any) -> bool:
    """Tells whether two optimizers are the same, with the same rates for what both train."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        return bool(first == second)
    settings = [{key: value for key, value in one.items() if key != RATES} for one in (first, second)]
    own, others = first.get(RATES), second.get(RATES)
    if isinstance(own, dict) and isinstance(others, dict):
        same = all(own[part] == others[part] for part in own.keys() & others.keys())
    else:
        same = own == others
    return same and settings[0] == settings[1]


def deciding_of(group: Group) -> dict[str, Any]:
    """Returns what decides the numbers of a group's first run; empty if that is not recorded."""
    deciding = group.runs[0].record.get(DECIDING)
    return deciding if isinstance(deciding, dict) else {}


def arguments_of(group: Group) -> dict[str, Any]:
    """Returns the arguments of a group's method; empty if they are not recorded."""
    method = deciding_of(group).get("method")
    arguments = method.get("init_args") if isinstance(method, dict) else None
    return arguments if isinstance(arguments, dict) else {}
