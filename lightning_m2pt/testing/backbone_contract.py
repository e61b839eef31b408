"""The contract of backbones, as a test for anybody's class: ``backbone_contract(lambda dtype: MyBackbone(dtype))``."""

from collections.abc import Callable
from typing import TypeAlias

import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.frozen import Frozen
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.system.tensor_hashes import hash_tensors
from lightning_m2pt.testing.claims import claim, claim_accepted, claim_close, claim_refused
from lightning_m2pt.testing.method_contract import claim_untouched, everything_of, moved
from lightning_m2pt.testing.passes import (
    batch_for,
    check_both_paths,
    check_candidates,
    check_decoding,
    check_like_library,
    check_numbers_of_pictures,
    check_samples_do_not_meet,
    logits_of,
)
from lightning_m2pt.tuning.comparison import difference
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule

MakeUnloaded: TypeAlias = Callable[[str], Backbone]
SHORT_TYPE_LIMIT = 0.2
"""How much logits in bfloat16 may differ from those in float32, as a share of their size: rounding makes several
percent in deep models."""
ATTACHED: dict[str, Callable[[], Method]] = {
    "visual prompts": lambda: M2PT(3, 0, interaction=False, visual_rows_to_text="none"),
    "textual prompts": lambda: M2PT(0, 2, interaction=False),
    "learned keys and values": lambda: PrefixTuning(2),
    "connector and head": lambda: M2PT(0, 0, lm_head=True),
    "pixels": lambda: PixelPrompting(border=0.2),
}


def backbone_contract(make: MakeUnloaded, *, has_library_passes: bool = True) -> None:
    """Tests all that the project relies on in a backbone; seconds on a CPU with a model of a few layers.

    Constructors read no weights; what is loaded is frozen and named by a fingerprint; sizes are as announced. Whole
    sequences, decoding from the cache and candidates side by side agree with each other and with the libraries' own
    passes, in float64, float32 and bfloat16, untouched and with everything attached that methods attach: visual and
    textual prompts, learned keys and values, a connector and a head, pixels of pictures. What a backbone cannot do
    with an attachment it refuses (``BadInputError``) instead of leaving it out.

    Args:
        make: Returns a new backbone of the same small weights each time, not loaded; called with ``float32``,
            ``float64`` and ``bfloat16``.
        has_library_passes: Whether the libraries' passes are offered to compare with; without them nothing proves
            that the model computes what its library does.

    Raises:
        AssertionError: At the first thing that does not hold, in a sentence.
    """
    unloaded = make("float32")
    name = type(unloaded).__name__
    check_unloaded(make, unloaded, name)
    backbone = loaded(make, "float32")
    check_loaded(make, backbone, name)
    check_count(backbone, name)
    check_sizes(backbone, name)
    check_processor(backbone, name)
    check_long_sequences(backbone, name)
    check_frozen(backbone, name)
    check_used_tensors(loaded(make, "float32"), name)
    exact = loaded(make, "float64")
    for check in (check_samples_do_not_meet, check_numbers_of_pictures, check_decoding, check_candidates):
        check(exact, name)
    check_supervised_rows(exact, name)
    for dtype in ("float64", "float32", "bfloat16"):
        other = loaded(make, dtype)
        check_offers(other, name, has_library_passes)
        check_like_library(other, name)
        for what, method in ATTACHED.items() if dtype != "float32" else ():
            check_attached(other, method, f"{name} with {what}")
    check_short_type(backbone, loaded(make, "bfloat16"), name)


def loaded(make: MakeUnloaded, dtype: str) -> Backbone:
    """Returns a loaded backbone as a run has it: frozen, in evaluation mode."""
    backbone = make(dtype)
    with claim_accepted(f"{type(backbone).__name__} does not load in {dtype}"):
        backbone.check_files()
        backbone.load()
    freeze_all_but_declared(TuningModule(backbone, Frozen()), Frozen())
    return backbone


def check_unloaded(make: MakeUnloaded, backbone: Backbone, name: str) -> None:
    """A constructor reads no weights, and all can be counted without memory."""
    claim(not backbone.is_loaded, f"{name}: the constructor loads weights; load does")
    claim(not list(backbone.parameters()), f"{name}: the constructor makes tensors; load and build_on_meta do")
    claim(backbone.dtype_name == "float32", f"{name}: dtype_name says {backbone.dtype_name} of a float32 model")
    fingerprint = backbone.fingerprint()
    claim(fingerprint == make("bfloat16").fingerprint(), f"{name}: the fingerprint is not the same each time")
    claim(len(fingerprint) >= 32, f"{name}: the fingerprint {fingerprint!r} is too short to name one model")
    claim(bool(backbone.readable_name().strip()), f"{name}: readable_name says nothing")
    backbone.build_on_meta()
    tensors = dict(backbone.named_parameters())
    claim(bool(tensors) and all(each.is_meta for each in tensors.values()), f"{name}: build_on_meta takes memory")
    real = loaded(make, "float32")
    shapes = {tensor: tuple(each.shape) for tensor, each in real.named_parameters()}
    claim(
        shapes == {tensor: tuple(each.shape) for tensor, each in tensors.items()},
        f"{name}: build_on_meta makes other tensors than load",
    )
    counts = backbone.base_parameters(), real.base_parameters()
    claim(counts[0] == counts[1] > 0, f"{name}: {counts[0]:,} numbers are counted on meta and {counts[1]:,} are loaded")


def check_loaded(make: MakeUnloaded, backbone: Backbone, name: str) -> None:
    """Loading is complete, in the announced type, the same each time, and done once."""
    claim(backbone.is_loaded, f"{name}: is_loaded is not set by load")
    weights, tensors = hash_tensors(backbone.state_dict()), [id(each) for each in backbone.parameters()]
    backbone.load()
    claim([id(each) for each in backbone.parameters()] == tensors, f"{name}: a second load builds another model")
    again = hash_tensors(loaded(make, "float32").state_dict())
    claim(weights == again, f"{name}: loading gives other numbers each time: a tensor is drawn, not read")
    other = loaded(make, "bfloat16")
    wrong = [tensor for tensor, each in other.named_parameters() if each.dtype != torch.bfloat16]
    claim(not wrong, f"{name}: {', '.join(wrong[:3])} is not of the type that was asked for")
    claim(other.dtype_name == "bfloat16", f"{name}: dtype_name says {other.dtype_name} of a bfloat16 model")


def check_count(backbone: Backbone, name: str) -> None:
    """The base is counted as it was built, whatever a method has put into its modules since."""
    base, place = backbone.base_parameters(), backbone.sublayer(0, "mlp")
    place.register_parameter("put_in_by_a_method", torch.nn.Parameter(torch.zeros(1)))
    counted = backbone.base_parameters()
    del place.put_in_by_a_method
    claim(counted == base, f"{name}: base_parameters counts what a method has put into the modules")


def check_sizes(backbone: Backbone, name: str) -> None:
    """The announced sizes are the model's."""
    shape, batch = backbone.shape, batch_for(backbone)
    visual = backbone.visual_rows(batch.pixel_values)
    found = {
        "patches": visual.rows.shape[1],
        "vision_width": visual.rows.shape[2],
        "text_width": backbone.connect(visual.rows).shape[-1],
        "vocabulary_size": backbone.token_embedding().weight.shape[0],
        "text_layers": len(backbone.decoder().layers),
    }
    for size, number in found.items():
        claim(number == getattr(shape, size), f"{name}: shape.{size} is {getattr(shape, size)}, and there are {number}")
    claim(len(visual.spans) == visual.rows.shape[1], f"{name}: visual_rows gives other spans than rows")
    claim(set(visual.spans) <= {Span.PATCH}, f"{name}: untouched, visual_rows gives rows that are no patches")
    logits = logits_of(backbone, batch)
    claim(logits.shape[-1] == shape.vocabulary_size, f"{name}: there are {logits.shape[-1]} logits")
    for layer in range(shape.text_layers):
        for part in ("attention", "mlp"):
            with claim_accepted(f"{name}: sublayer gives no module for {part} of layer {layer}"):
                backbone.sublayer(layer, part)


def check_processor(backbone: Backbone, name: str) -> None:
    """Texts and pictures come as the model reads them."""
    processor = backbone.processor()
    size, vocabulary = backbone.shape.image_size, backbone.shape.vocabulary_size
    picture = processor.image(torch.zeros(5, 7, 3, dtype=torch.uint8).numpy(), "a black picture")
    claim(tuple(picture.shape) == (3, size, size), f"{name}: the processor makes pictures of {tuple(picture.shape)}")
    for token in (processor.eos_token_id, processor.pad_token_id, *processor.bos_ids):
        claim(0 <= token < vocabulary, f"{name}: the tokenizer's token {token} has no row in the model")


def check_long_sequences(backbone: Backbone, name: str) -> None:
    """A sequence that is longer than the language model knows is refused."""
    rows = backbone.shape.maximum_positions + 1
    claim_refused(lambda: backbone.refuse_beyond_positions(rows), f"{name}: {rows} rows are not refused")


def check_frozen(backbone: Backbone, name: str) -> None:
    """Passes change nothing, and training mode neither drops nor draws anything."""
    batch = batch_for(backbone)
    before, logits = everything_of(backbone), logits_of(backbone, batch)
    state = torch.random.get_rng_state()
    backbone.train()
    claim(torch.equal(logits_of(backbone, batch), logits), f"{name}: in training mode it gives other numbers")
    backbone.eval()
    backbone.prefill(batch_for(backbone, answers=False))
    claim_untouched(backbone, before, f"{name}: a pass")
    claim(torch.equal(torch.random.get_rng_state(), state), f"{name}: a pass draws from torch's global generator")
    backbone.release_hooks()


def check_used_tensors(backbone: Backbone, name: str) -> None:
    """What full tuning trains is what the output depends on, all of it and nothing else."""
    used = backbone.used_tensors()
    claim(set(used) == {"vision", "interaction", "language"}, f"{name}: used_tensors has the keys {sorted(used)}")
    own = dict(backbone.named_parameters(remove_duplicate=False))
    named = {tensor: each for tensors in used.values() for tensor, each in tensors.items()}
    for tensor, parameter in named.items():
        claim(own.get(tensor) is parameter, f"{name}: used_tensors names {tensor}, which the backbone does not have so")
    for parameter in backbone.parameters():
        parameter.requires_grad_(True)
    supervised_rows(backbone, batch_for(backbone), EVERY_ROW).losses.sum().backward()
    reached = {tensor for tensor, each in own.items() if each.grad is not None and bool(each.grad.any())}
    tied = {id(own[tensor]) for tensor in reached}
    unreached = sorted(tensor for tensor, each in named.items() if id(each) not in tied)
    left_out = sorted(reached - set(named))
    claim(not unreached, f"{name}: used_tensors names {', '.join(unreached[:3])}, which no gradient reaches")
    claim(not left_out, f"{name}: used_tensors leaves out {', '.join(left_out[:3])}, which the output depends on")
    with claim_accepted(f"{name}: full tuning does not work"):
        method = Full()
        method.build(backbone, torch.Generator())
        method.attach(backbone)
        method.detach(backbone)


def check_supervised_rows(backbone: Backbone, name: str) -> None:
    """The rows that the loss needs are the same whatever is left out (float64)."""
    batch = batch_for(backbone)
    with torch.no_grad():
        losses = [supervised_rows(backbone, batch, each).losses for each in (Shortcuts(), EVERY_ROW)]
    claim_close(losses[0], losses[1], 1e-6, f"{name}: supervised_states with shortcuts changes the losses")


def check_offers(backbone: Backbone, name: str, has_library_passes: bool) -> None:
    """The libraries' passes are there to compare with."""
    if not has_library_passes:
        return
    batch = batch_for(backbone)
    with torch.no_grad():
        rows = backbone.library_visual_rows(batch.pixel_values)
        claim(rows is not None, f"{name}: library_visual_rows offers nothing to compare the tower with")
        embeddings = backbone.assemble(batch)[0]
        passes = backbone.library_decoder(embeddings)
        claim(passes is not None, f"{name}: library_decoder offers nothing to compare the decoder with")
        assert passes is not None
        claim(
            passes[0].shape == embeddings.shape and passes[1].shape[-1] == backbone.shape.vocabulary_size,
            f"{name}: library_decoder returns hidden states and logits of all rows",
        )


def check_attached(backbone: Backbone, make: Callable[[], Method], what: str) -> None:
    """Something attached works in every pass, with gradients, or is refused; detached, nothing of it is left."""
    batch, before = batch_for(backbone), everything_of(backbone)
    untouched = logits_of(backbone, batch)
    try:
        make().check(backbone.shape)
    except BadInputError:
        return  # by its sizes
    method = moved(make, backbone)
    method.attach(backbone)
    try:
        changed = logits_of(backbone, batch)
    except BadInputError:
        method.detach(backbone)
        claim_untouched(backbone, before, f"{what}: refusing it")
        return
    where = f"{what}, {backbone.dtype_name}"
    claim(not torch.equal(changed, untouched), f"{where}: it is left out: no number changes")
    check_like_library(backbone, where)
    if backbone.dtype_name == "float64":
        for check in (check_samples_do_not_meet, check_decoding, check_candidates, check_both_paths):
            check(backbone, what)
    freeze_all_but_declared(TuningModule(backbone, method), method)
    supervised_rows(backbone, batch).losses.sum().backward()
    silent = [tensor for tensor, each in method.named_tensors().items() if each.grad is None or not each.grad.any()]
    unused = [tensor for tensor in silent if tensor not in method.dead_rows()]
    claim(not unused, f"{where}: no gradient reaches {', '.join(unused[:3])}")
    method.detach(backbone)
    claim(backbone.attachment == Attachment(), f"{where}: something stays attached")
    claim_untouched(backbone, before, f"{where}: detaching")
    claim(torch.equal(logits_of(backbone, batch), untouched), f"{where}: detached, the numbers are others than before")


def check_short_type(backbone: Backbone, short: Backbone, name: str) -> None:
    """In bfloat16 it is the same model."""
    size = difference(*(logits_of(each, batch_for(each)) for each in (short, backbone)))
    claim(
        size <= SHORT_TYPE_LIMIT,
        f"{name}: the logits in bfloat16 are not those of float32: they differ by {size:.2g} of their size",
    )
