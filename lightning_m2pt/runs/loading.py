"""The frozen weights and an adapter, a run's or one by itself, into a model that has read configuration only."""

from collections.abc import Sequence
from pathlib import Path

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.origins.made import origin_in
from lightning_m2pt.backbones.origins.pictures import picture_settings
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.bound_template import labelled
from lightning_m2pt.methods.base import Method
from lightning_m2pt.storage.adapter_folder import (
    CHOSEN,
    CONFIG_FILE,
    PICTURES,
    TEMPLATE_DIGEST,
    check_adapter,
    load_adapter,
    read_adapter_config,
)
from lightning_m2pt.storage.adapter_template import adapter_template
from lightning_m2pt.storage.run_record import BEST_ADAPTER, is_unfinished, read_run_record
from lightning_m2pt.system.console import say
from lightning_m2pt.tuning.module import TuningModule

ADAPTER, BEST = "adapter", "adapter_best"


def evaluated_adapter(run: Path) -> Path:
    """Returns the folder of the adapter that a run is evaluated with: its last one, or its best where it says so.

    Raises:
        BadInputError: If it says so and has none.
    """
    best = read_run_record(run).get(BEST_ADAPTER, {})
    if best.get("evaluated") != "best":
        return run / ADAPTER
    if not (run / BEST).is_dir():
        raise BadInputError(
            f"{best.get('by')!s:.40} was never a number in this run, so no adapter of it is the best",
            where=str(run),
            expected="a run with a best adapter",
            hint=f"--adapter {run / ADAPTER} is its last",
        )
    return run / BEST


def load_weights(run: Path, model: TuningModule, templates: Sequence[str] = ()) -> None:
    """Loads the frozen weights and the run's adapter, the last or the best as it says.

    Args:
        run: The run's folder.
        model: Not loaded yet.
        templates: Labels of the templates it will be asked in; none if it will not be asked.

    Raises:
        BadInputError: If the adapter is missing, damaged, or belongs to another backbone or other arguments; known
            before any weight is loaded.
    """
    load_with_adapter(evaluated_adapter(run), model, templates)


def load_with_adapter(adapter: Path, model: TuningModule, templates: Sequence[str] = ()) -> None:
    """Loads the frozen weights and an adapter.

    Args:
        adapter: The adapter's folder.
        model: Not loaded yet; of a method that trains nothing no adapter is read.
        templates: Labels of the templates it will be asked in; none if it will not be asked.

    Raises:
        BadInputError: If the adapter is missing, damaged, or belongs to another backbone or other arguments; known
            before any weight is loaded.
    """
    if not model.method.part_names():
        model.configure_model()
        return
    check_fits(adapter, model.backbone, model.method, templates)
    model.configure_model()
    take_adapter(adapter, model)


def check_fits(adapter: Path, backbone: Backbone, method: Method, templates: Sequence[str] = ()) -> None:
    """Compares an adapter with what it shall be loaded into, and says in what way it is asked otherwise than tuned.

    Args:
        adapter: The adapter's folder.
        backbone: Need not be loaded.
        method: Not built yet.
        templates: Labels of the templates it will be asked in; none if it will not be asked.

    Raises:
        BadInputError: If the adapter is missing, damaged, or belongs to another backbone or other arguments.
    """
    fingerprints = backbone.fingerprint(), backbone.former_fingerprint()
    check_adapter(adapter, method, *fingerprints, backbone.quantization)
    check_described(adapter, backbone)
    say_differences(adapter, backbone, templates)


def check_described(adapter: Path, backbone: Backbone) -> None:
    """Reads what an adapter says of base, template and pictures, and compares the pictures with a backbone's.

    Args:
        adapter: The adapter's folder; before format 3 it says nothing of this.
        backbone: What it shall be loaded into.

    Raises:
        BadInputError: If it says something that no adapter does, or its pictures were read otherwise.
    """
    config, where = read_adapter_config(adapter), str(adapter / CONFIG_FILE)
    origin_in(config, where)
    if config["format"] > 2:
        adapter_template(config, where)
    if PICTURES not in config:
        return
    said, now = config[PICTURES], picture_settings(backbone)
    if not isinstance(said, dict):
        raise BadInputError(f"{said!r:.60} is no object", where=f"{where}: {PICTURES}", expected=", ".join(now))
    for key in (*now, *sorted({*said} - {*now})):
        if said.get(key) != now.get(key):
            raise BadInputError(
                f"pictures were read with {key} {said.get(key)!r:.60}, which is {now.get(key)!r:.60} now",
                where=f"{where}: {PICTURES}",
                expected="the base it was tuned on, with its own picture processing",
            )


def take_adapter(adapter: Path, model: TuningModule) -> None:
    """Copies an adapter's tensors into a loaded model, which remembers of which step they are.

    Raises:
        BadInputError: If a tensor is missing, unknown, of another shape or type, or not finite.
    """
    load_adapter(adapter, model.method)
    chosen = read_adapter_config(adapter).get(CHOSEN)
    model.chosen = chosen if isinstance(chosen, dict) else None


def say_differences(adapter: Path, backbone: Backbone, templates: Sequence[str]) -> None:
    """Says so where a model is asked otherwise than it was tuned, or before it is, which is allowed.

    Before format 2 an adapter says nothing of this.

    Args:
        adapter: The adapter's folder, which may be a run's.
        backbone: What it is loaded into.
        templates: Labels of the templates it will be asked in.
    """
    config, dtype = read_adapter_config(adapter), backbone.dtype_name
    tuned_in = labelled(str(config.get("template")), config.get(TEMPLATE_DIGEST))
    others = sorted({template for template in templates if template != tuned_in})
    if is_unfinished(read_run_record(adapter.parent)):
        say("note: tuning was stopped before its last step: the command that began it goes on with it")
    if config.get("base_dtype") not in (None, dtype):
        say(f"note: tuned on a base in {config['base_dtype']}, which is in {dtype} now")
    if config.get("template") is not None and others:
        say(f"note: tuned with the template {tuned_in}, asked in {', '.join(others)} now")
