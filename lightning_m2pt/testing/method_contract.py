"""The contract of methods, as a test for anybody's class: ``method_contract(lambda: MyMethod(4))``."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.base import Method
from lightning_m2pt.system.tensor_hashes import hash_tensors
from lightning_m2pt.testing.claims import claim, claim_accepted, claim_refused, size_of_difference
from lightning_m2pt.testing.method_tensors import (
    check_adapter_folder,
    check_declared,
    check_gradients,
    check_late_starters,
    check_words_about_itself,
)
from lightning_m2pt.testing.passes import (
    batch_for,
    check_both_paths,
    check_candidates,
    check_decoding,
    check_like_library,
    check_samples_do_not_meet,
    logits_of,
)
from lightning_m2pt.testing.random_backbone import random_backbone
from lightning_m2pt.tuning.losses import supervised_rows

MakeMethod: TypeAlias = Callable[[], Method]
MakeBackbone: TypeAlias = Callable[[torch.dtype], Backbone]
MOVED = 0.1
"""Deviation of what is added to a method's tensors: most start where mistakes do not show, such as at zero."""


def method_contract(
    make: MakeMethod, backbone: MakeBackbone | None = None, *, starts_as_frozen: bool | None = None
) -> None:
    """Tests all that the project relies on in a method; a few seconds on a CPU, no files needed.

    A method owns what it trains: attaching changes what the backbone computes, detaching gives the very backbone back,
    and what is declared is trained, saved, counted and optimised, and reached by gradients. With it attached every
    pass gives the libraries' own numbers: whole sequences, decoding from the cache, candidates side by side, both
    paths of prompts; in float64, float32 and bfloat16.

    Args:
        make: Returns a new method of the same arguments each time, not built.
        backbone: Returns a loaded backbone of a type, with the same weights each time, that can be built on the meta
            device as well; None takes small ones with random weights.
        starts_as_frozen: Whether the untrained method gives the frozen model's numbers to the last bit, or changes
            them; None does not look.

    Raises:
        AssertionError: At the first thing that does not hold, in a sentence.
    """
    with tempfile.TemporaryDirectory() as folder:
        at_hand = backbone or (lambda dtype: random_backbone(Path(folder), dtype))
        frozen, name = at_hand(torch.float32), type(make()).__name__
        check_words_about_itself(make, frozen, name)
        check_drawing(make, frozen, name)
        check_detaching(make, at_hand(torch.float32), name)
        check_knock_outs(make, at_hand(torch.float32), name)
        check_start(make, frozen, name, starts_as_frozen)
        if make().part_names():
            check_declared(make, frozen, moved, name)
            check_gradients(make, frozen, moved, name)
            check_late_starters(make, frozen, name)
            check_adapter_folder(make, frozen, moved, Path(folder), name)
        check_counts(make, at_hand, name)
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            with claim_accepted(f"{name} on a base in {str(dtype).removeprefix('torch.')}"):
                check_passes(make, at_hand(dtype), name)


def moved(make: MakeMethod, backbone: Backbone) -> Method:
    """Returns a built method whose tensors stand elsewhere than they start, not attached."""
    method, generator = make(), torch.Generator().manual_seed(5)
    with claim_accepted(f"{type(method).__name__} does not work on the backbone of this test"):
        method.check(backbone.shape)
    method.build(backbone, generator)
    with torch.no_grad():
        for parameter in method.named_tensors().values():
            parameter.add_(MOVED * torch.randn(parameter.shape, generator=generator))
    return method.eval()


def check_drawing(make: MakeMethod, backbone: Backbone, name: str) -> None:
    """Tensors come from the generator that is handed over, and from nothing else."""
    hashes = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        state, method = torch.random.get_rng_state(), make()
        method.build(backbone, torch.Generator().manual_seed(5))
        claim(
            torch.equal(torch.random.get_rng_state(), state),
            f"{name}: build draws from torch's global generator; it has to draw from the one it is given",
        )
        hashes.append(hash_tensors(method.named_tensors()))
    claim(hashes[0] == hashes[1], f"{name}: build makes other tensors with the same generator")


def check_start(make: MakeMethod, backbone: Backbone, name: str, starts_as_frozen: bool | None) -> None:
    """An untrained method changes the model's numbers, or does not, as is said of it."""
    batch = batch_for(backbone)
    frozen, method = logits_of(backbone, batch), make()
    method.build(backbone, torch.Generator().manual_seed(5))
    method.eval().attach(backbone)
    started = logits_of(backbone, batch)
    method.detach(backbone)
    is_same = started.shape == frozen.shape and torch.equal(started, frozen)
    if starts_as_frozen is not None:
        expected = "give the frozen model's numbers" if starts_as_frozen else "change the frozen model's numbers"
        claim(is_same == starts_as_frozen, f"{name}: untrained it has to {expected}")


def check_detaching(make: MakeMethod, backbone: Backbone, name: str) -> None:
    """Attaching does something, twice is once, and detaching gives the very backbone back."""
    batch = batch_for(backbone)
    before, logits = everything_of(backbone), logits_of(backbone, batch)
    method = moved(make, backbone)
    claim(everything_of(backbone) == before, f"{name}: build changes the backbone; attach may, for as long as it lasts")
    method.attach(backbone)
    attached = logits_of(backbone, batch)
    if method.part_names():
        claim(size_of_difference(attached, logits) > 1e-4, f"{name}: attached, it changes no number of the model")
    greedy_answers(backbone, batch_for(backbone, answers=False), max_new_tokens=3, end_token_id=0)
    method.attach(backbone)
    claim(torch.equal(logits_of(backbone, batch), attached), f"{name}: attaching twice gives other numbers than once")
    method.detach(backbone)
    claim_untouched(backbone, before, f"{name}: detaching")
    claim(torch.equal(logits_of(backbone, batch), logits), f"{name}: detaching does not give the model's numbers back")


def check_knock_outs(make: MakeMethod, backbone: Backbone, name: str) -> None:
    """Without all its parts a method is the frozen model; each part alone makes a difference."""
    batch = batch_for(backbone)
    before, logits = everything_of(backbone), logits_of(backbone, batch)
    method = moved(make, backbone)
    parts = set(method.part_names())
    method.attach(backbone)
    attached = logits_of(backbone, batch)
    for part in sorted(parts):
        method.attach(backbone, without={part})
        claim(
            size_of_difference(logits_of(backbone, batch), attached) > 0,
            f"{name}: knocking {part} out changes no number",
        )
    method.attach(backbone, without=parts)
    claim(
        torch.equal(logits_of(backbone, batch), logits),
        f"{name}: with every part knocked out the numbers are not the frozen model's",
    )
    claim_refused(lambda: method.attach(backbone, without={"nonsense"}), f"{name}: an unknown part can be knocked out")
    method.detach(backbone)
    claim_untouched(backbone, before, f"{name}: detaching what was knocked out")


def check_counts(make: MakeMethod, at_hand: MakeBackbone, name: str) -> None:
    """What is counted without memory is what is built, and the base is counted without what is attached."""
    backbone, without_memory, method = at_hand(torch.float32), at_hand(torch.float32), make()
    base, built = backbone.base_parameters(), moved(make, backbone)
    built.attach(backbone)
    claim(backbone.base_parameters() == base, f"{name}: attached, it is counted as part of the base")
    without_memory.build_on_meta()
    method.build(without_memory, torch.Generator())
    found = {tensor: tuple(each.shape) for tensor, each in method.named_tensors().items()}
    real = {tensor: tuple(each.shape) for tensor, each in built.named_tensors().items()}
    claim(found == real, f"{name}: on the meta device other tensors are counted than are built")
    claim(
        all(each.is_meta for each in method.named_tensors().values()),
        f"{name}: a tensor is made with memory for a backbone on the meta device",
    )


def check_passes(make: MakeMethod, backbone: Backbone, name: str) -> None:
    """A frozen model of this type trains and answers as it should, and what is trained stays in float32."""
    method = moved(make, backbone)
    method.attach(backbone)
    if backbone.dtype_name == "float64":
        for check in (check_samples_do_not_meet, check_decoding, check_candidates, check_both_paths):
            check(backbone, name)
    check_like_library(backbone, name)
    loss = supervised_rows(backbone, batch_for(backbone)).losses.sum()
    if method.part_names():
        loss.backward()
    claim(bool(loss.isfinite()), f"{name}, {backbone.dtype_name}: the loss is not finite")
    greedy_answers(backbone, batch_for(backbone, answers=False), max_new_tokens=3, end_token_id=0)
    wrong = [tensor for tensor, each in method.named_tensors().items() if each.dtype != torch.float32]
    claim(not wrong, f"{name}: {', '.join(wrong)} is not float32 on a base in {backbone.dtype_name}")
    method.detach(backbone)


def everything_of(backbone: Backbone) -> tuple[str, list[int], list[str]]:
    """Returns weights, identities of tensors, and hooks and shadowed methods of every module."""
    hooks = [
        f"{name} {len(module._forward_hooks)} {len(module._forward_pre_hooks)} {'attention' in vars(module)}"
        for name, module in backbone.named_modules()
    ]
    return hash_tensors(backbone.state_dict()), [id(tensor) for tensor in backbone.parameters()], hooks


def claim_untouched(backbone: Backbone, before: tuple[str, list[int], list[str]], what: str) -> None:
    """States that a backbone is what it was, naming what is not.

    Raises:
        AssertionError: If it is not.
    """
    weights, tensors, hooks = everything_of(backbone)
    claim(weights == before[0], f"{what} leaves other numbers in the backbone's tensors")
    claim(tensors == before[1], f"{what} leaves other tensors in the backbone")
    claim(hooks == before[2], f"{what} leaves hooks or shadowed methods in the backbone")
