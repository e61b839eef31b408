"""What every shipped experiment trains, counted without weights.

    python -m benchmarks.report.parameters      # writes benchmarks/results/parameters.json (a minute)

``python -m benchmarks.report.front`` puts the counts into ``docs/methods.md``.
"""

import json
from pathlib import Path

from benchmarks.report.stored import RESULTS
from experiments.commands.params import count
from experiments.configuration.cli import parse_experiment

KEPT = ("base", "trained", "percent")


def main() -> None:
    """Counts and stores."""
    counted = {}
    for path in sorted(Path("experiments").glob("*.yaml")):
        summary = count(parse_experiment(["--config", str(path)]).model)
        counted[path.stem] = {key: summary[key] for key in KEPT}
    (RESULTS / "parameters.json").write_text(json.dumps(counted, indent=1) + "\n")


if __name__ == "__main__":
    main()
