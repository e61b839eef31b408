"""The contract of backbones holds for ours, and finds what is planted: one bug a class."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.connected_rows import ConnectedRows, VisualRows
from lightning_m2pt.backbones.model_output import DecodingState
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.picture_batch import SHARED_SEGMENT
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.prompts.past_rows import PastRows
from lightning_m2pt.testing.backbone_contract import backbone_contract
from tests.support.stored_backbone import store_backbone, stored


class LoadsAtOnce(OpenClipLlama):
    """Counting a large model would read its weights."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.load()


class CountsOnDisk(OpenClipLlama):
    """Counting a large model would take its memory."""

    def build_on_meta(self) -> None:
        self.load()


class NamedByWhereItIs(OpenClipLlama):
    """The same model goes by another name each time."""

    def fingerprint(self) -> str:
        return f"v2:{id(self):064d}"


class DrawsAtRandom(OpenClipLlama):
    """A tensor is drawn instead of read."""

    def finish(self) -> None:
        nn.init.normal_(self.projector.weight)
        super().finish()


class LoadsAgain(OpenClipLlama):
    """A second load throws the first away."""

    def load(self) -> None:
        self.is_loaded = False
        super().load()


class OneType(OpenClipLlama):
    """The projector is float32 whatever was asked for."""

    def finish(self) -> None:
        self.projector.float()
        super().finish()


class CountsWhatIsAttached(OpenClipLlama):
    """A method's share is taken of more than the untouched model."""

    def base_parameters(self) -> int:
        return sum(each.numel() for name, each in self.named_parameters() if name != "vision_tower.proj")


class WrongSize(OpenClipLlama):
    """A size is not that of the model."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shape = replace(self.shape, patches=self.shape.patches + 1)


class SmallPictures(OpenClipLlama):
    """Pictures are prepared for another tower."""

    def processor(self) -> Processor:
        processor = super().processor()
        processor.image_size //= 2
        return processor


class KnowsNoEnd(OpenClipLlama):
    """A sequence may be as long as it likes."""

    def refuse_beyond_positions(self, rows: int) -> None:
        pass


class TrainsItself(OpenClipLlama):
    """Training mode switches dropout on in what is frozen."""

    def finish(self) -> None:
        super().finish()
        self.drop = nn.Dropout(0.5)

    def train(self, mode: bool = True) -> "TrainsItself":
        nn.Module.train(self, mode)
        return self

    def connect(self, rows: Tensor) -> Tensor:
        return super().connect(self.drop(rows))


class NamesTooMuch(OpenClipLlama):
    """Full tuning would train what nothing depends on."""

    def used_tensors(self) -> dict[str, dict[str, nn.Parameter]]:
        used = super().used_tensors()
        tower = {f"vision_tower.{name}": each for name, each in self.vision_tower.named_parameters()}
        return {**used, "vision": tower}


class NamesTooLittle(OpenClipLlama):
    """Full tuning would leave something frozen."""

    def used_tensors(self) -> dict[str, dict[str, nn.Parameter]]:
        used = super().used_tensors()
        return {**used, "interaction": {"projector.weight": used["interaction"]["projector.weight"]}}


class MixesPictures(OpenClipLlama):
    """A picture's rows depend on the others of its batch."""

    def visual_rows(self, pixel_values: Tensor) -> VisualRows:
        visual = super().visual_rows(pixel_values)
        return VisualRows(visual.rows + visual.rows.mean(dim=0, keepdim=True), visual.spans)


class OnePositionFurther(OpenClipLlama):
    """What is decoded stands one position too far behind."""

    def prefill(self, batch: Batch) -> DecodingState:
        state = super().prefill(batch)
        return replace(state, next_position=state.next_position + 1)


class SeesPadding(OpenClipLlama):
    """What is decoded sees the padding in front of it."""

    def prefill(self, batch: Batch) -> DecodingState:
        state = super().prefill(batch)
        return replace(state, segment_ids=torch.full_like(state.segment_ids, SHARED_SEGMENT))


class CandidatesInARow(OpenClipLlama):
    """Candidates stand one behind the other."""

    def append_rows(
        self, past: PastRows, embeddings: Tensor, positions: Tensor, visible: Tensor, wanted: Tensor | None = None
    ) -> tuple[Tensor, PastRows]:
        in_a_row = positions[:, :1] + torch.arange(positions.shape[1])
        return super().append_rows(past, embeddings, in_a_row, visible, wanted)


class ScalesLogits(OpenClipLlama):
    """The head's output is not the library's."""

    def logits(self, hidden_states: Tensor) -> Tensor:
        return 1.01 * super().logits(hidden_states)


class OffersNothing(OpenClipLlama):
    """Nothing proves that it computes what its library does."""

    def library_decoder(self, embeddings: Tensor, attention: Any = None) -> None:
        return None


class LeavesPromptsOut(OpenClipLlama):
    """Visual prompts are trained and do nothing."""

    def visual_rows(self, pixel_values: Tensor) -> VisualRows:
        return VisualRows(self.patch_features(pixel_values), super().visual_rows(pixel_values).spans)

    def library_visual_rows(self, pixel_values: Tensor) -> Tensor:
        return self.visual_rows(pixel_values).rows


class LeavesTheHeadOut(OpenClipLlama):
    """A trained head does nothing."""

    def logits(self, hidden_states: Tensor) -> Tensor:
        return self.pretrained_lm_head()(hidden_states)

    def library_decoder(self, embeddings: Tensor, attention: Any = None) -> tuple[Tensor, Tensor] | None:
        attached, self.attachment = self.attachment, replace(self.attachment, lm_head=None)
        try:
            return super().library_decoder(embeddings, attention)
        finally:
            self.attachment = attached


class KeepsHooks(OpenClipLlama):
    """What was attached stays in the tower."""

    def release_hooks(self) -> None:
        if self.attachment == Attachment():
            return
        super().release_hooks()


class AnotherModelInBfloat16(OpenClipLlama):
    """The type decides more than rounding does."""

    def connect(self, rows: Tensor) -> Tensor:
        return super().connect(-rows if self.dtype_name == "bfloat16" else rows)


class CountsOneRowTooFew(OpenClipLlama):
    """What arithmetic says of a picture's rows is not what it becomes."""

    def rows_of_runs(self, pixel_values: Tensor, picture_sizes: Tensor | None = None) -> list[int]:
        return [rows - 1 for rows in super().rows_of_runs(pixel_values, picture_sizes)]


class TakesTheFirstPicture(OpenClipLlama):
    """Where there are fewer placeholders than pictures, the wrong ones are left out."""

    def connected_rows(self, pixel_values: Tensor, picture_sizes: Tensor | None = None) -> ConnectedRows:
        if len(pixel_values) == 2:
            pixel_values = pixel_values[[0, 0]]
        return super().connected_rows(pixel_values, picture_sizes)


class LeavesPixelsOut(OpenClipLlama):
    """A trained prompt in pixels is shown to nobody."""

    def prompted_pixels(self, pixel_values: Tensor) -> Tensor:
        return pixel_values


BUGS: dict[type[OpenClipLlama], str] = {
    LoadsAtOnce: "the constructor loads weights",
    CountsOnDisk: "build_on_meta takes memory",
    NamedByWhereItIs: "the fingerprint is not the same each time",
    DrawsAtRandom: "a tensor is drawn, not read",
    LoadsAgain: "a second load builds another model",
    OneType: "projector.weight, projector.bias is not of the type",
    CountsWhatIsAttached: "base_parameters counts what a method has put into the modules",
    WrongSize: r"shape.patches is 17, and there are 16",
    SmallPictures: r"the processor makes pictures of \(3, 8, 8\)",
    KnowsNoEnd: "129 rows are not refused",
    TrainsItself: "in training mode it gives other numbers",
    NamesTooMuch: "used_tensors names vision_tower.ln_post.bias.*, which no gradient reaches",
    NamesTooLittle: "used_tensors leaves out projector.bias",
    MixesPictures: "logits depend on the other samples of its batch",
    CountsOneRowTooFew: r"rows_of_runs says \[15, 15, 15, 15\], and connected_rows gives \[16, 16, 16, 16\]",
    TakesTheFirstPicture: "a sample with 2 pictures is another one beside others",
    OnePositionFurther: "advance, token 1 does not give the whole sequence's logits",
    SeesPadding: "advance, token 1 does not give the whole sequence's logits",
    CandidatesInARow: "branch gives candidate answers another log-probability",
    ScalesLogits: "our forward pass is not that of LlamaModel",
    OffersNothing: "library_decoder offers nothing",
    LeavesPromptsOut: "with visual prompts, float64: it is left out: no number changes",
    LeavesTheHeadOut: "with connector and head, float64: no gradient reaches lm_head.weight",
    LeavesPixelsOut: "with pixels, float64: it is left out: no number changes",
    KeepsHooks: "leaves hooks or shadowed methods in the backbone",
    AnotherModelInBfloat16: "the logits in bfloat16 are not those of float32",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "backbone"
    store_backbone(folder)
    return folder


@pytest.fixture
def of(folder: Path) -> Callable[[type[Backbone]], Callable[[str], Backbone]]:
    """Returns a function from a class to the contract's argument."""

    def of_class(kind: type[Backbone]) -> Callable[[str], Backbone]:
        arguments = stored(folder)
        files = (arguments.vision_config, arguments.vision_weights, arguments.language_config)
        return lambda dtype: kind(*map(str, (*files, arguments.language_folder, arguments.projector_weights)), dtype)

    return of_class


@pytest.mark.parametrize("tied", [False, True], ids=["two matrices", "tied head"])
def test_our_backbone_keeps_the_contract(tmp_path: Path, tied: bool) -> None:
    store_backbone(tmp_path / "backbone", {"tie_word_embeddings": tied})
    backbone_contract(lambda dtype: stored(tmp_path / "backbone", dtype))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found_and_named(of: Any, bug: type[OpenClipLlama]) -> None:
    with pytest.raises(AssertionError, match=BUGS[bug]) as caught:
        backbone_contract(of(bug))
    assert str(caught.value).startswith(bug.__name__)


def test_what_a_backbone_refuses_is_no_fault(of: Any) -> None:
    class TakesNoPrompts(OffersNothing):
        def visual_rows(self, pixel_values: Tensor) -> VisualRows:
            if self.attachment.visual_prompts is not None:
                raise BadInputError("no visual prompts here", where="model.method")
            return super().visual_rows(pixel_values)

    backbone_contract(of(TakesNoPrompts), has_library_passes=False)
