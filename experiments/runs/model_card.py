"""The adapter's model card."""

from experiments.configuration.cli import Experiment

CARD = """---
library_name: lightning_m2pt
base_model_relation: adapter
tags: [prompt-tuning, vision-language, {method}]
---
# {method} adapter of experiment {experiment}

Tuned with lightning_m2pt for {steps} optimizer steps (seed {seed}) on a frozen backbone; only the tensors in
`adapter_model.safetensors` were trained. The backbone is named by hash in `adapter_config.json` and is not included.

| part | trained | of these added | never moves |
| --- | ---: | ---: | --- |
{rows}

Load it with `m2pt evaluate --run DIR`, where DIR is the run folder that holds this one.
"""


def model_card(experiment: Experiment, steps: int) -> str:
    """Returns the card's text.

    Args:
        experiment: What was tuned.
        steps: Optimizer steps taken.
    """
    rows = [
        f"| {part.name} | {part.parameters:,} | {part.added:,} | {', '.join(part.dead_names) or 'none'} |"
        for part in experiment.model.method.parameter_parts()
    ]
    return CARD.format(
        method=experiment.model.method.name,
        experiment=experiment.name,
        steps=steps,
        seed=experiment.seed,
        rows="\n".join(rows),
    )
