"""PEFT's LoRA as ``Lora``: the same pairs of matrices at the same layers, scaled by the same numbers.

Which layers are wrapped, and at which rank, the tensors say; ``target_modules`` is compared with them. The scale is
alpha / r, of ``rank_pattern`` and ``alpha_pattern`` where they name a layer; with ``use_rslora`` it is alpha / sqrt(r),
which here is an alpha that is sqrt(r) times as large.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.argument_checks import MOST
from lightning_m2pt.methods.lora import LANGUAGE, PROJECTOR, VISION, Lora, linear_layers, name_for, name_in_part
from lightning_m2pt.methods.with_interaction import INTERACTION
from lightning_m2pt.storage.foreign.peft.module_names import FoundLayer, LinearLayers
from lightning_m2pt.storage.foreign.peft.names import BEGINNING, LORA_A, LORA_B
from lightning_m2pt.storage.foreign.peft.patterns import is_target, may_run, names_layer
from lightning_m2pt.storage.foreign.peft.reading import PeftFolder, shown
from lightning_m2pt.storage.foreign.peft.translation import Translation, interaction_sources
from lightning_m2pt.visible_text import counted

KNOWN = (
    "alpha_pattern",
    "exclude_modules",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "r",
    "rank_pattern",
    "runtime_config",
    "target_modules",
    "use_rslora",
    # What decided how numbers started:
    "eva_config",
    "loftq_config",
)
DEFAULTS = {"bias": "none", "megatron_core": "megatron.core", "qalora_group_size": 16}
STARTS = (True, False, "gaussian", "eva")
"""Of ``init_lora_weights``: these leave the base as it is. PiSSA, OLoRA, CorDA, LoftQ and kin subtract from it."""
ALL_LINEAR = "all-linear"


def translated_low_rank(peft: PeftFolder, backbone: Backbone) -> Translation:
    """Returns a LoRA adapter in this project's words.

    Args:
        peft: The folder.
        backbone: The base, built.

    Raises:
        BadInputError: If it does what ``Lora`` does not, does not fit the base, or its files say different things.
    """
    refuse_other_forms(peft)
    pairs, others = pairs_and_others(peft)
    layers, found, unused = LinearLayers(backbone), dict[str, FoundLayer](), list[str]()
    for name in pairs:
        layer = layers.find(name)
        if layer is None:
            raise unknown_layer(peft, name)
        if layer.place is None:
            unused += [pairs[name] + LORA_A, pairs[name] + LORA_B]
        else:
            found[name] = layer
    notes = [*compared_targets(peft, layers, pairs)]
    if unused:
        notes.append(f"left out {len(unused) // 2} layers of the tower that no output depends on")
    interaction = interaction_sources(peft, others, backbone)
    method = method_of(peft, {name: layer for name, layer in found.items()}, backbone, bool(interaction))
    sources = {
        f"{layer.part}.{name_in_part(str(layer.place))}{factor}": pairs[name] + factor
        for name, layer in found.items()
        for factor in (LORA_A, LORA_B)
    }
    if len(sources) != 2 * len(found):
        raise BadInputError(
            "two of its layers are one and the same layer of this base",
            where=str(peft.tensor_file),
            expected="one pair of matrices a layer",
        )
    return Translation(method, {**sources, **interaction}, tuple(unused), tuple(notes))


def refuse_other_forms(peft: PeftFolder) -> None:
    """Refuses what is no plain LoRA.

    Raises:
        BadInputError: Naming the first key.
    """
    peft.refuse_unknown_keys(KNOWN, DEFAULTS)
    start = peft.config.get("init_lora_weights", True)
    if not any(start is each or (isinstance(each, str) and start == each) for each in STARTS):
        raise peft.wrong("init_lora_weights", "true: others change the base, and the adapter is of the changed one")
    if peft.count("r") > MOST:
        raise peft.wrong("r", f"at most {MOST:,}")
    alpha_in(peft, peft.config, "lora_alpha")
    if type(peft.config.get("use_rslora", False)) is not bool:
        raise peft.wrong("use_rslora", "true or false")
    for key, numbers in (("rank_pattern", (int,)), ("alpha_pattern", (int, float))):
        patterns = peft.config.get(key) or {}
        largest = sys.float_info.max
        if not isinstance(patterns, dict) or not all(
            type(each) in numbers and 0 < each <= largest for each in patterns.values()
        ):
            raise peft.wrong(key, "numbers above 0 by the names of layers")
        risky = [pattern for pattern in patterns if not may_run(pattern, most=1)]
        if risky:
            raise BadInputError(
                f"{key} has a regular expression that is not run here: {counted(risky)}",
                where=peft.place,
                expected="names of layers, or expressions of few repetitions",
            )


def alpha_in(peft: PeftFolder, values: Mapping[str, Any], key: str) -> float:
    """Returns an alpha.

    Raises:
        BadInputError: If it is no number above 0.
    """
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
        raise peft.wrong(key, "a number above 0")
    return float(value)


def pairs_and_others(peft: PeftFolder) -> tuple[dict[str, str], dict[str, str]]:
    """Returns for each wrapped layer's name in the library's model what its tensors' names begin with, and the others.

    Raises:
        BadInputError: If a pair is not whole, there is none, or a tensor is of a form that is no linear layer's.
    """
    pairs: dict[str, str] = {}
    others: dict[str, str] = {}
    for stored in peft.stored:
        ending = next((each for each in (LORA_A, LORA_B) if stored.endswith(each)), None)
        begin = stored.removesuffix(ending or "")
        if ending is None:
            others[stored.removeprefix(BEGINNING)] = stored
            continue
        missing = [begin + each for each in (LORA_A, LORA_B) if begin + each not in peft.stored]
        if missing:
            raise BadInputError(
                f"tensors missing {counted(missing)}", where=str(peft.tensor_file), expected="whole pairs"
            )
        pairs[begin.removeprefix(BEGINNING)] = begin
    odd = [name for name in others if ".lora_" in name or name.startswith("lora_")]
    if odd or not pairs:
        raise BadInputError(
            f"tensors of another form: {counted(odd)}" if odd else "there is no pair of lora_A and lora_B in it",
            where=str(peft.tensor_file),
            expected="lora_A.weight and lora_B.weight of linear layers",
        )
    biases = [name for name in others if name.endswith(".bias") and name.removesuffix(".bias") in pairs]
    if biases:
        raise BadInputError(
            f"biases were trained, too: {counted(biases)}", where=str(peft.tensor_file), expected="bias: none"
        )
    return pairs, others


def unknown_layer(peft: PeftFolder, name: str) -> BadInputError:
    """Returns the error about a layer that this base does not have, or not by itself."""
    return BadInputError(
        f"it wraps {counted([name])}, which is no linear layer of its own in this base",
        where=str(peft.tensor_file),
        expected="linear layers of decoder, tower and projector, the head not among them",
        hint="open_clip's attention is one packed tensor: a LLaVA of transformers has its layers one by one",
    )


def method_of(peft: PeftFolder, found: Mapping[str, FoundLayer], backbone: Backbone, interaction: bool) -> Lora:
    """Returns the method with the ranks and alphas of every wrapped layer.

    Raises:
        BadInputError: If no layer of the language model is wrapped, or a rank is not what the configuration says.
    """
    places = {str(layer.place): name for name, layer in found.items()}
    parts = {layer.part for layer in found.values()}
    if LANGUAGE not in parts:
        raise BadInputError(
            "it wraps no layer of the language model", where=str(peft.tensor_file), expected="some of them"
        )
    if PROJECTOR in parts and interaction:
        raise BadInputError(
            f"the projector is in it as a whole, and has low-rank updates besides ({INTERACTION})",
            where=str(peft.tensor_file),
            expected="one of them",
        )
    ranks = {place: rank_of(peft, name) for place, name in places.items()}
    alphas = {place: alpha_of(peft, name, ranks[place]) for place, name in places.items()}
    components = {LANGUAGE: "language", VISION: "vision", PROJECTOR: "interaction"}
    offered = [place for part in parts for place in linear_layers(backbone, components[part])]
    rank, alpha = most_common(ranks), most_common(alphas)
    return Lora(
        rank,
        alpha,
        dropout=0.0,
        vision=VISION in parts,
        interaction=interaction,
        targets=shortest_targets(list(places), offered),
        ranks=by_short_names(ranks, rank),
        alphas=by_short_names(alphas, alpha),
        projector=PROJECTOR in parts,
    )


def rank_of(peft: PeftFolder, name: str) -> int:
    """Returns a layer's rank.

    Raises:
        BadInputError: If its tensors have another one.
    """
    begin = BEGINNING + name if BEGINNING + name + LORA_A in peft.stored else name
    rank: int = pattern_value(peft, "rank_pattern", name, peft.config["r"])
    shapes = peft.stored[begin + LORA_A].shape, peft.stored[begin + LORA_B].shape
    if any(len(shape) != 2 for shape in shapes) or (shapes[0][0], shapes[1][1]) != (rank, rank):
        raise BadInputError(
            f"{counted([name])} has matrices of {list(shapes[0])} and {list(shapes[1])}",
            where=str(peft.tensor_file),
            expected=f"rank {rank}, as r or rank_pattern says",
        )
    return rank


def alpha_of(peft: PeftFolder, name: str, rank: int) -> float:
    """Returns what is to be divided by a layer's rank, to have PEFT's scale."""
    alpha = float(pattern_value(peft, "alpha_pattern", name, peft.config["lora_alpha"]))
    return alpha * math.sqrt(rank) if peft.config.get("use_rslora") else alpha


def pattern_value(peft: PeftFolder, key: str, name: str, default: Any) -> Any:  # noqa: ANN401
    """Returns the value of the first pattern that names a layer, or the default."""
    patterns = peft.config.get(key) or {}
    return next((value for pattern, value in patterns.items() if names_layer(pattern, name)), default)


def most_common(values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Returns the value that most layers have."""
    found = list(values.values())
    return max(dict.fromkeys(found), key=found.count)


def shortest_targets(places: Sequence[str], offered: Sequence[str]) -> list[str] | None:
    """Returns the shortest words for a choice of layers: None for all, last steps, or their names."""
    if set(places) == set(offered):
        return None
    steps = sorted({last_step(place) for place in places})
    meant = {place for place in offered if name_for(place, steps)}
    return steps if meant == set(places) else sorted(places)


def by_short_names(values: Mapping[str, Any], default: Any) -> dict[str, Any]:  # noqa: ANN401
    """Returns the values that are not the default's: by last steps where all layers of one have it, else by names."""
    named: dict[str, Any] = {}
    for place, value in values.items():
        alike = {each for other, each in values.items() if last_step(other) == last_step(place)}
        if value != default:
            named[last_step(place) if len(alike) == 1 else place] = value
    return named


def last_step(place: str) -> str:
    """Returns the last step of a dotted name."""
    return place.rpartition(".")[2]


def compared_targets(peft: PeftFolder, layers: LinearLayers, pairs: Mapping[str, str]) -> list[str]:
    """Compares ``target_modules`` with the layers that the file has, as far as names can be compared.

    Returns:
        A sentence, where a regular expression was not run, or a key was not followed.

    Raises:
        BadInputError: If a layer of the language model is named and is not in the file, or there and not named, or
            layers stand in several models.
    """
    targets, chosen = peft.config.get("target_modules"), peft.config.get("layers_to_transform")
    if targets == ALL_LINEAR:
        targets = sorted({last_step(place) for place in layers.language.values()})
    is_list = isinstance(targets, list) and all(isinstance(each, str) for each in targets)
    if not targets or not (is_list or isinstance(targets, str)):
        raise peft.wrong("target_modules", "names of layers, or a regular expression")
    if isinstance(targets, str) and not may_run(targets):
        return ["target_modules is a regular expression that is not run here: which layers there are, the tensors say"]
    if also := next((key for key in ("exclude_modules", "layers_pattern") if peft.config.get(key)), None):
        return [f"{also} is not followed here: which layers there are, the tensors say"]
    numbers = [chosen] if type(chosen) is int else chosen or []
    if not isinstance(numbers, list) or not all(type(each) is int for each in numbers):
        raise peft.wrong("layers_to_transform", "numbers of layers")
    language = [name for name in pairs if (layer := layers.find(name)) is not None and layer.part == LANGUAGE]
    beginnings = {
        name.removesuffix(key)
        for name in language
        for key in layers.language
        if name.endswith(f".{key}") or name == key
    }
    if len(beginnings) > 1:  # each would be matched with every layer's name, by expressions of anybody's
        raise BadInputError(
            f"its layers stand in several decoders: {counted(sorted(beginnings))}",
            where=str(peft.tensor_file),
            expected="the layers of one",
        )
    missing = [
        begin + key
        for begin in beginnings
        for key in layers.language
        if is_target(targets, begin + key)
        and (not numbers or int(key.partition(".")[0]) in numbers)
        and begin + key not in pairs
    ]
    elsewhere = {
        name
        for name in language
        for key in layers.language
        if (name.endswith(f".{key}") or name == key) and numbers and int(key.partition(".")[0]) not in numbers
    }
    odd = [name for name in pairs if name in elsewhere or not is_target(targets, name)]
    if missing or odd:
        raise BadInputError(
            f"target_modules is {shown(targets)}: {'no tensors of' if missing else 'tensors besides, of'} "
            f"{counted(missing or odd)}",
            where=str(peft.tensor_file),
            expected="the tensors of all layers that it names, and no others",
        )
    return []
