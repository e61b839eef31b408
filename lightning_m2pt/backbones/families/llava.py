"""LLaVA-1.5 and kin: a CLIP or SigLIP tower, an MLP of two layers, a proven decoder; one tile a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_m2pt.backbones.config_values import bad_key, one_of, whole_number
from lightning_m2pt.backbones.families.family import TiledFamily, TowerForm, module_at, rows_given_to

ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "silu", "relu", "linear")
"""Of the MLP; the library's own function is called, whichever it is."""
WITH_CLS = ("clip_vision_model",)
VISION_TOWER = (
    # CLIP's class had its blocks one step deeper once.
    ("vision_tower.vision_model.", "model.vision_tower.vision_model."),
    ("vision_tower.vision_model.", "model.vision_tower."),
    ("model.vision_tower.vision_model.", "model.vision_tower."),
    ("vision_tower.", "model.vision_tower."),
)
LANGUAGE = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)


class Llava(TiledFamily):
    """``LlavaForConditionalGeneration``."""

    architecture = "LlavaForConditionalGeneration"
    model_type = "llava"
    tower, connector, decoder = "model.vision_tower", "model.multi_modal_projector", "model.language_model"
    towers = ("clip_vision_model", "siglip_vision_model")
    renamed = (*VISION_TOWER, *LANGUAGE)

    def check(self, content: Mapping[str, Any], path: Path) -> None:
        """Takes one feature layer, all of its patches and no CLS."""
        check_features(content, path, layer=-2, strategy="default")

    def tower_form(self, config: Any) -> TowerForm:  # noqa: ANN401
        """Blocks up to the feature layer; the last norm stands behind them."""
        return features_form(config)

    def tower_states(self, model: Any, pixel_values: Tensor) -> Tensor:  # noqa: ANN401
        """Runs the library's own way to image features up to its projector, with CLS."""

        def run() -> object:
            return model.get_image_features(pixel_values=pixel_values, vision_feature_select_strategy="full")

        return rows_given_to(module_at(model, self.connector), run)


def check_features(content: Mapping[str, Any], path: Path, layer: int, strategy: str) -> None:
    """Looks at the keys that say which of the tower's numbers are features, in LLaVA's words.

    Args:
        content: The whole model's ``config.json``.
        path: The file, for messages.
        layer: The family's own feature layer, where the file names none.
        strategy: Its own choice of rows.

    Raises:
        BadInputError: At the first that is not proven.
    """
    layers = content["vision_config"]["num_hidden_layers"]
    whole_number({"vision_feature_layer": layer, **content}, "vision_feature_layer", path, layers, least=-layers)
    if content.get("vision_feature_layer", layer) == 0:
        raise bad_key(path, "vision_feature_layer", "0 is no block's output", "another layer's number")
    one_of(content, "projector_hidden_act", path, ACTIVATIONS, "other activations are not proven")
    with_cls = content["vision_config"]["model_type"] in WITH_CLS
    accepted = ("default",) if with_cls else ("full",)
    reason = "CLS among the patches is not proven" if with_cls else "the first patch would be dropped: it is no CLS"
    key = "vision_feature_select_strategy"
    one_of({key: strategy, **content}, key, path, accepted, reason)


def features_form(config: Any) -> TowerForm:  # noqa: ANN401
    """Returns what LLaVA's words for features mean: the output of a block, before the tower's last norm."""
    tower = config.vision_config
    patches = (tower.image_size // tower.patch_size) ** 2
    return TowerForm(
        used_blocks=config.vision_feature_layer % (tower.num_hidden_layers + 1),
        has_cls=tower.model_type in WITH_CLS,
        patches=patches,
        rows_behind_connector=patches,
        image_size=tower.image_size,
        unused=("post_layernorm", "head"),
    )
