"""What a benchmark says of its machine."""

import pytest
import torch

from benchmarks.report.machine import instruction_set, machine, made_with_line


@pytest.mark.parametrize(
    ("capabilities", "named"), [({"amx_bf16": True}, "i and AMX"), ({"amx_bf16": False}, "i"), ({}, "i")]
)
def test_bfloat16_products_of_amx_are_named(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], named: str
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "i")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert instruction_set() == named
    assert f", {named})" in made_with_line(machine())
