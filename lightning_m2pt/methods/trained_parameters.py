"""One protocol for what is trained: the set a method declares is trained, saved, counted, optimised and exported.

Nobody else in the project sets ``requires_grad``, but that a base is frozen before its weights are shared out.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from lightning_m2pt.methods.base import Method


def freeze_all_but_declared(module: nn.Module, method: Method) -> dict[str, nn.Parameter]:
    """Freezes a whole module and thaws exactly what its method declares.

    Args:
        module: Holds backbone and method.
        method: One of its sub-modules.

    Returns:
        The trained parameters by their name inside ``module``.

    Raises:
        ValueError: If a declared tensor is not part of the module, or is declared twice.
    """
    declared = [parameter for tensors in method.parts().values() for _, parameter in tensors]
    declared_ids = {id(parameter) for parameter in declared}
    if len(declared_ids) != len(declared):
        raise ValueError("a method declares a tensor twice")
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in declared_ids)
    trained = trained_parameters(module)
    if {id(parameter) for parameter in trained.values()} != declared_ids:
        raise ValueError("a method declares a tensor that the module does not hold")
    return trained


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that are trained, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def assert_same_set(what: str, found: Iterable[Tensor], declared: Iterable[Tensor]) -> None:
    """Checks that another part of the program handles exactly the declared tensors.

    Raises:
        ValueError: If the two sets of tensors differ.
    """
    found_ids, declared_ids = {id(tensor) for tensor in found}, {id(tensor) for tensor in declared}
    if found_ids != declared_ids:
        raise ValueError(
            f"{what}: {len(found_ids - declared_ids)} tensors too many, {len(declared_ids - found_ids)} too few"
        )
