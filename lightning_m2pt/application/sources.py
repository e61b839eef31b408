"""From what a program names to a base and an adapter: a run's folder, an adapter's, or one of the hub."""

import os
from pathlib import Path

import torch

from lightning_m2pt.application.fetched_adapter import adapter_of_hub, hub_commit
from lightning_m2pt.application.shared_base import SharedBase, Tuned, default_device_of_torch
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.hub_ids import DEFAULT_REVISION, ID, cache_of, commit_of
from lightning_m2pt.backbones.origins.made import DTYPES, backbone_of, origin_in, refuse_unknown_form
from lightning_m2pt.backbones.origins.named import named_base
from lightning_m2pt.backbones.origins.said import WITH_WEIGHTS
from lightning_m2pt.configuration.paths import HUB
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import Template, is_known
from lightning_m2pt.inputs.template_notices import say_notices
from lightning_m2pt.runs.adapter_method import adapter_method
from lightning_m2pt.runs.loading import check_fits, evaluated_adapter
from lightning_m2pt.runs.model_of_run import model_of_run, runs_near, template_of_run
from lightning_m2pt.runs.tuned_model import TunedModel
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE, QUANTIZATION, read_adapter_config
from lightning_m2pt.storage.adapter_template import CONTENT, TEMPLATE, adapter_template
from lightning_m2pt.storage.run_record import CONFIG_FILE as RUN_CONFIG_FILE
from lightning_m2pt.storage.run_record import RECORD_FILE
from lightning_m2pt.system.console import people_read_errors, say
from lightning_m2pt.tuning.own_trainer import refuse_double_on_apple
from lightning_m2pt.tuning.positions import refuse_without_room

KEY = "source"
BASE_DTYPE = "base_dtype"
DEVICES = ("cpu", "cuda", "mps")
"""Kinds of devices that a model runs on; torch has others, on which there are no numbers, or not all operations."""


def named_source(source: object, revision: str | None, fetch: bool = False) -> TunedModel:
    """Returns the adapter, and the run where it is one's, that a program names; a folder that is there comes first.

    Args:
        source: A run's folder, an adapter's, or ``user/name`` of the hub.
        revision: Branch, tag or commit of the hub's repository; None takes ``main``.
        fetch: Whether the hub may be asked for it; otherwise it was fetched before.

    Raises:
        BadInputError: If it is none of these.
        EnvironmentFailure: If it shall be fetched and the hub cannot be reached.
    """
    if not isinstance(source, str | os.PathLike) or not isinstance(os.fspath(source), str):
        raise BadInputError(f"{type(source).__name__} is no source", where=KEY, expected="a folder, or user/name")
    if revision is not None and not isinstance(revision, str):
        raise BadInputError(f"{revision!r:.40} is no revision", where="revision", expected="a branch, tag or commit")
    text = os.fspath(source)
    folder = Path(text)
    if not text or not is_folder(text):
        return TunedModel(None, hub_adapter(text, revision, fetch))
    if revision is not None or fetch:
        raise BadInputError(
            f"{text:.200} is a folder, and a folder {'is not fetched' if revision is None else 'has no revision'}",
            where="fetch" if revision is None else "revision",
            expected=f"a folder alone, or {HUB}user/name",
        )
    if is_hub_name(text) and commit_of(cache_of(text), DEFAULT_REVISION) is not None:
        say(f"note: {text} is the folder here, not the adapter of that name in the hub's cache: {HUB}{text} is that")
    if (folder / CONFIG_FILE).is_file():
        return TunedModel(None, folder)
    if (folder / RUN_CONFIG_FILE).is_file() or (folder / RECORD_FILE).is_file():
        return TunedModel(folder, evaluated_adapter(folder))
    raise BadInputError(
        "no run and no adapter here",
        where=text,
        expected=f"a run's folder outputs/EXPERIMENT/RUN, or an adapter's, with its {CONFIG_FILE}",
        hint=runs_near(text),
    )


def is_folder(text: str) -> bool:
    """Tells whether a text names a folder that is there; what no path can be names none."""
    try:
        return "\0" not in text and Path(text).is_dir()
    except OSError:  # a name that is too long for any file
        return False


def is_hub_name(text: str) -> bool:
    """Tells whether a text has the form of the hub's names with an owner."""
    return "/" in text and ID.fullmatch(text) is not None


def hub_adapter(text: str, revision: str | None, fetch: bool) -> Path:
    """Returns the folder in the hub's cache that holds an adapter.

    Raises:
        BadInputError: If the text names none, or it was not fetched.
        EnvironmentFailure: If it shall be fetched and the hub cannot be reached.
    """
    name = text.removeprefix(HUB)
    if not is_hub_name(name):
        raise BadInputError(
            f"there is no folder {text!r:.200}",
            where=KEY,
            expected="a run's folder outputs/EXPERIMENT/RUN, an adapter's folder, or user/name of the hub",
            hint=runs_near(text),
        )
    try:
        return adapter_of_hub(name, revision, fetch=fetch, where=KEY)
    except BadInputError as error:
        missing = "" if text.startswith(HUB) else f"there is no folder {text:.200}, and "
        raise BadInputError(f"{missing}{error.what}", where=KEY, expected=error.expected, hint=error.hint) from error


def opened(
    source: object,
    revision: str | None,
    base: object,
    device: str | torch.device | None,
    dtype: str | None,
    quantization: str | None,
    fetch: bool = False,
) -> tuple[SharedBase, Tuned]:
    """Loads an adapter and its base; the arguments are those of ``lightning_m2pt.load``.

    Raises:
        BadInputError: If something is missing, damaged or does not fit; as far as possible before weights load.
    """
    with people_read_errors(), default_device_of_torch():
        named = named_source(source, revision, fetch)
        place = device_named(device)
        backbone = base_of(named, base, dtype, quantization)
        refuse_double_on_apple(place, backbone.dtype_name)
        backbone.check_files()
        shared = SharedBase(backbone, place)
    return shared, tuned_by(shared, named)


def tuned_by(shared: SharedBase, named: TunedModel) -> Tuned:
    """Loads an adapter onto a base.

    Raises:
        BadInputError: If the adapter is damaged or does not belong to the base; the base is then as it was.
    """
    with people_read_errors(), shared.to_itself():
        method = adapter_method(read_adapter_config(named.adapter), str(named.adapter / CONFIG_FILE))
        template, backbone = template_of(named), shared.backbone
        say_notices(shared.processor, [template])
        method.check(backbone.shape)
        refuse_without_room(backbone.shape, method)
        check_fits(named.adapter, backbone, method, [shared.processor.bound(template).label])
        shared.load(method, named.adapter if method.part_names() else None)
    return Tuned(method, template, hub_commit(named.adapter))


def template_of(named: TunedModel) -> Template:
    """Returns the template that an adapter was tuned with.

    Raises:
        BadInputError: If neither it nor its run says it.
    """
    config = read_adapter_config(named.adapter)
    name = config.get(TEMPLATE)
    if named.run is not None and CONTENT not in config and (name is None or not is_known(str(name))):
        return template_of_run(named.run)  # before format 3 an adapter does not say what a file of its run holds
    template = adapter_template(config, str(named.adapter / CONFIG_FILE))
    if template is None:
        raise BadInputError(
            "the adapter does not say its template",
            where=str(named.adapter / CONFIG_FILE),
            expected="an adapter of format 2 or later, or a run's folder",
        )
    return template


def base_of(named: TunedModel, base: object, dtype: str | None, quantization: str | None) -> Backbone:
    """Returns the backbone that an adapter stands on; configuration is read, and no weights are.

    Args:
        named: The adapter, and its run.
        base: An embedded backbone's name, a whole model's folder, ``hub:owner/name``, or a backbone; None asks the
            adapter, and the run's configuration where the adapter knows its base by its content alone.
        dtype: Type of the frozen weights; None takes the one that it was tuned on.
        quantization: How they are packed; None takes what it was tuned on.

    Raises:
        BadInputError: If there is no such base, or nobody says where it is.
    """
    config, where = read_adapter_config(named.adapter), str(named.adapter / CONFIG_FILE)
    if isinstance(base, Backbone):
        for name, value in (("dtype", dtype), ("quantization", quantization)):
            if value is not None:
                raise BadInputError(
                    f"{value!r:.40} for a base that is made", where=name, expected="None: it has its own"
                )
        if base.attached_method is not None:
            raise BadInputError(
                "another model stands on this base",
                where="base",
                expected="a base that no other load was given",
                hint="Model.add puts another adapter on the base of a model",
            )
        return base
    words = words_for(dtype, quantization)
    dtype = dtype if dtype is not None else str(config.get(BASE_DTYPE) or DTYPES[0])
    quantization = quantization if quantization is not None else config.get(QUANTIZATION)
    refuse_unknown_form(dtype, quantization)
    if base is None:
        origin = origin_in(config, where)
        if origin.kind == "files" and named.run is not None:
            return model_of_run(named.run, words).backbone
        return backbone_of(origin, dtype=dtype, quantization=quantization)
    if not isinstance(base, str | os.PathLike):
        raise BadInputError(
            f"{type(base).__name__} is no base",
            where="base",
            expected=f"{', '.join(WITH_WEIGHTS)}, a whole model's folder, {HUB}OWNER/NAME, or a backbone",
        )
    return named_base(os.fspath(base), dtype=dtype, quantization=quantization)  # type: ignore[arg-type]


def words_for(dtype: str | None, quantization: str | None) -> list[str]:
    """Returns what a command line would set on top of a run's configuration: what is given."""
    given = {"dtype": dtype, "quantization": quantization}
    return [f"--model.backbone.{name}={value}" for name, value in given.items() if value is not None]


def device_named(device: str | torch.device | None) -> torch.device:
    """Returns a device of this machine; without a name its GPU, or its processor where there is none.

    Raises:
        BadInputError: If there is no such device.
    """
    try:
        found = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
        if found.type not in DEVICES:
            raise RuntimeError("no model of this project runs on it")
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise BadInputError(
            f"there is no device {device!r:.40} here: {reason:.100}",
            where="device",
            expected="cpu, cuda, or cuda:NUMBER",
        ) from error
    return found
