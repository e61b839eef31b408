"""What every method trains on the testbed and at 7B, as a table."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report.markdown import table

METHODS = {
    "M2PT": ("m2pt_base", "m2pt_vicuna7b"),
    "M2PT, patches only go on to the language model": ("m2pt_patches", ""),
    "VPT-deep": ("vpt_base", "vpt_vicuna7b"),
    "VPT-shallow": ("vpt_shallow_base", "vpt_shallow_vicuna7b"),
    "PTUM, rows": ("ptum_base", "ptum_vicuna7b"),
    "PTUM, keys and values": ("ptum_prefix_base", "ptum_prefix_vicuna7b"),
    "APrompt": ("aprompt_base", "aprompt_vicuna7b"),
    "LoRA (rank 8; at 7B 16)": ("lora_base", "lora_vicuna7b"),
    "rsLoRA (rank 8)": ("rslora_base", ""),
    "DoRA (rank 8)": ("dora_base", ""),
    "PiSSA (rank 8)": ("pissa_base", ""),
    "LoRA+ (rank 8)": ("lora_plus_base", ""),
    "bottleneck adapters": ("adapter_base", "adapter_vicuna7b"),
    "norms": ("layernorm_base", "layernorm_vicuna7b"),
    "VP, pixels": ("vp_base", "vp_vicuna7b"),
    "EVP, pixels": ("evp_base", "evp_vicuna7b"),
    "TVP, pixels": ("tvp_base", "tvp_vicuna7b"),
    "interaction layer alone": ("projector", "projector_vicuna7b"),
    "everything": ("full", "full_vicuna7b"),
    "nothing": ("frozen", "frozen_vicuna7b"),
    "LoRA and visual prompts": ("lora_visual_base", ""),
    "LoRA and M2PT": ("lora_m2pt_base", "lora_m2pt_vicuna7b"),
    "everything and M2PT's prompts": ("full_prompts_base", "full_prompts_vicuna7b"),
}


def parameter_lines(counted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns trained numbers by method, and the 7B ones in percent of base and added numbers."""
    rows = []
    for label, names in METHODS.items():
        cells = []
        for name in names:
            cells += [f"`{name}`", f"{counted[name]['trained']:,}"] if name else ["", ""]
        share = f"{counted[names[1]]['percent']:.4f}" if names[1] else ""
        rows.append([label, *cells, share])
    return [*table(["method", "testbed", "trained", "7B", "trained", "percent"], rows), ""]
