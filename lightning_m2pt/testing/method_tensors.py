"""Checks of the method contract about tensors: declared = trained = saved = counted = optimised, and gradients."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, get_args

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.methods.base import Method, Place
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared, trained_parameters
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import (
    TENSOR_FILE,
    check_adapter,
    load_adapter,
    refuse_unless_saved,
    save_adapter,
)
from lightning_m2pt.testing.claims import claim, claim_accepted
from lightning_m2pt.testing.passes import batch_for, only
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW

Moved: TypeAlias = Callable[[Callable[[], Method], Backbone], Method]
FINGERPRINT = "v2:" + "0" * 64


def check_words_about_itself(make: Callable[[], Method], backbone: Backbone, name: str) -> None:
    """What a method says of itself before and after it is built fits together, and can be written down."""
    method = make()
    with claim_accepted(f"{name} does not work on the backbone of this test"):
        method.check(backbone.shape)
    announced, possible = method.part_names(), method.possible_parts()
    claim(len(set(announced)) == len(announced), f"{name}: part_names names a part twice")
    claim(set(announced) <= set(possible), f"{name}: possible_parts leaves out a part that is trained")
    for what, said in (("toggles", method.toggles()), ("adapter_config", method.adapter_config())):
        claim(
            json.loads(json.dumps(said)) == said,
            f"{name}: {what} does not come back from JSON as it was (texts, numbers, lists and dictionaries do)",
        )
    claim(make().adapter_config() == method.adapter_config(), f"{name}: adapter_config differs for the same arguments")
    strange = method.places() - set(get_args(Place))
    claim(not strange, f"{name}: places names {', '.join(map(repr, sorted(strange)))}, which no backbone has")
    claim(bool(method.places()) == bool(announced), f"{name}: places has to name where a method that trains changes it")
    method.build(backbone, torch.Generator().manual_seed(5))
    claim(list(method.parts()) == announced, f"{name}: parts has other keys, or another order, than part_names")
    added = method.added_parameters()
    claim(set(added) == set(announced), f"{name}: added_parameters has other keys than part_names")
    for part, tensors in method.parts().items():
        numbers = sum(parameter.numel() for _, parameter in tensors)
        claim(numbers > 0, f"{name}: the part {part} has no number")
        claim(0 <= added[part] <= numbers, f"{name}: {part} adds {added[part]:,} numbers and trains {numbers:,}")
    attached = method.attachment(frozenset())
    for rows in ("rows_before_text", "rows_beside_patches"):
        claim(
            getattr(method, rows)() == getattr(attached, rows)(),
            f"{name}: {rows} says {getattr(method, rows)()}, and its attachment has {getattr(attached, rows)()}",
        )


def tuned(method: Method, backbone: Backbone) -> TuningModule:
    """Returns the module of an attached method, in which nothing but what is declared has gradients."""
    module = TuningModule(backbone, method)
    freeze_all_but_declared(module, method)
    method.attach(backbone)
    return module.eval()


def check_declared(make: Callable[[], Method], backbone: Backbone, moved: Moved, name: str) -> None:
    """The declared tensors are what is trained, counted and optimised, attached or not."""
    method = moved(make, backbone)
    module = TuningModule(backbone, method)
    with claim_accepted(f"{name}: parts and the module's tensors differ"):
        freeze_all_but_declared(module, method)
    declared = method.named_tensors()
    for tensor, parameter in declared.items():
        claim(is_named(method, tensor, parameter), f"{name}: {tensor} is not the tensor's name inside the method")
    undeclared = sorted({tensor for tensor, _ in method.named_parameters()} - set(declared))
    claim(not undeclared, f"{name}: {', '.join(undeclared[:3])} is a parameter of the method that parts leaves out")
    expected = {f"method.{tensor}" for tensor in declared}
    claim(set(trained_parameters(module)) == expected, f"{name}: what is trained is not what parts declares")
    method.attach(backbone)
    claim(set(trained_parameters(module)) == expected, f"{name}: attached, other tensors are trained than declared")
    groups = AdamW().build(method.parts()).param_groups
    optimised = [id(parameter) for group in groups for parameter in group["params"]]
    claim(sorted(optimised) == sorted(map(id, declared.values())), f"{name}: what is optimised is not what is declared")
    counted = sum(part.parameters for part in method.parameter_parts())
    numbers = sum(parameter.numel() for parameter in declared.values())
    claim(counted == numbers, f"{name}: {counted:,} numbers are counted, and {numbers:,} are trained")
    method.detach(backbone)


def is_named(method: Method, name: str, parameter: nn.Parameter) -> bool:
    """Tells whether a method holds a tensor under a name."""
    try:
        return method.get_parameter(name) is parameter
    except AttributeError:
        return False


def check_gradients(make: Callable[[], Method], backbone: Backbone, moved: Moved, name: str) -> None:
    """Gradients reach every declared row but those declared dead, and nothing else."""
    method = moved(make, backbone)
    module = tuned(method, backbone)
    supervised_rows(backbone, batch_for(backbone)).losses.sum().backward()
    dead, declared = method.dead_rows(), method.named_tensors()
    unknown = sorted(set(dead) - set(declared))
    claim(not unknown, f"{name}: dead_rows names {', '.join(unknown)}, which is not declared")
    for tensor, parameter in declared.items():
        claim(parameter.grad is not None, f"{name}: no gradient reaches {tensor}")
        zero, said = rows_without_gradient(parameter), dead.get(tensor, [])
        claim(set(said) <= set(zero), f"{name}: rows of {tensor} are declared dead and have a gradient")
        claim(zero == sorted(said), f"{name}: rows {zero[:5]} of {tensor} have no gradient, and are not declared dead")
    reached = [tensor for tensor, parameter in module.named_parameters() if parameter.grad is not None]
    foreign = sorted(set(reached) - {f"method.{tensor}" for tensor in declared})
    claim(not foreign, f"{name}: gradients reach {', '.join(foreign[:3])}, which is not declared")
    method.detach(backbone)


def rows_without_gradient(parameter: Tensor) -> list[int]:
    """Returns the rows (dimension -2) of a tensor whose gradient is zero in all numbers."""
    assert parameter.grad is not None
    rows = parameter.grad.reshape(-1, parameter.shape[-1]).ne(0).any(dim=-1)
    return [int(row) for row in (~rows).nonzero().flatten()]


def check_late_starters(make: Callable[[], Method], backbone: Backbone, name: str) -> None:
    """What has no gradient at the first step is declared."""
    method = make()
    method.build(backbone, torch.Generator().manual_seed(5))
    tuned(method, backbone)
    batch, said, dead = batch_for(backbone), method.may_start_without_gradient(), method.dead_rows()
    silent: set[str] = set()
    # One question does not hold every word: word embeddings are late starters, too.
    for asked in (batch, only(batch, 0)):
        supervised_rows(backbone, asked).losses.sum().backward()
        for tensor, parameter in method.named_tensors().items():
            claim(parameter.grad is not None, f"{name}: untrained, no gradient reaches {tensor}")
            if set(rows_without_gradient(parameter)) - set(dead.get(tensor, [])):
                silent.add(tensor)
            parameter.grad = None
    where = "may_start_without_gradient"
    late, wrong = (", ".join(sorted(tensors)[:3]) for tensors in (silent - said, said - silent))
    claim(not late, f"{name}: {late} starts without a gradient, in some rows or all, which {where} does not say")
    claim(not wrong, f"{name}: {where} names {wrong}, which has a gradient from the first step on")
    method.detach(backbone)


def check_adapter_folder(make: Callable[[], Method], backbone: Backbone, moved: Moved, folder: Path, name: str) -> None:
    """An adapter that is saved comes back bit for bit in a method built anew, and saves to the same bytes."""
    method = moved(make, backbone)
    places = folder / "adapter", folder / "adapter saved again"
    save_adapter(places[0], method, AdapterBase("a base", FINGERPRINT), "")
    fresh = make()
    with claim_accepted(f"{name}: its own adapter is refused"):
        check_adapter(places[0], fresh, FINGERPRINT)
        refuse_unless_saved(places[0], method)
    fresh.build(backbone, torch.Generator().manual_seed(6))
    with claim_accepted(f"{name}: its own adapter does not load"):
        load_adapter(places[0], fresh)
    for tensor, parameter in method.named_tensors().items():
        same = torch.equal(fresh.named_tensors()[tensor], parameter)
        claim(same, f"{name}: {tensor} is not loaded as it was saved")
    save_adapter(places[1], fresh, AdapterBase("a base", FINGERPRINT), "")
    first, second = ((place / TENSOR_FILE).read_bytes() for place in places)
    claim(first == second, f"{name}: a loaded adapter saves to other bytes")
    batch, losses = batch_for(backbone), []
    for each in (method, fresh.eval()):
        each.attach(backbone)
        losses.append(supervised_rows(backbone, batch).losses.detach())
        each.detach(backbone)
    claim(torch.equal(*losses), f"{name}: a loaded adapter computes other numbers: a tensor is not saved")
