"""An open_clip vision tower, a linear projector and a Llama-form language model of transformers: the paper's make-up.

The embedded default and CLIP ViT-L/14 + Vicuna-7B differ in paths only. Features are those of layer -2: the input of
the vision tower's last block, which is therefore never computed (LLaVA-v1 and the published M2PT code).
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base_files import BaseFiles
from lightning_m2pt.backbones.chat_template_files import tokenizer_chat_template
from lightning_m2pt.backbones.connected_rows import VisualRows
from lightning_m2pt.backbones.feature_cache import FeatureCache
from lightning_m2pt.backbones.filling.from_files import FilledFromFiles
from lightning_m2pt.backbones.filling.unfilled import Unfilled
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.language_model import check_language_folder, model_on_meta, unfilled_language_model
from lightning_m2pt.backbones.library_forward import library_rows
from lightning_m2pt.backbones.open_clip_llama_files import shape_of
from lightning_m2pt.backbones.origins.said import BaseOrigin, origin_of
from lightning_m2pt.backbones.quantised import parameter_count, quantised_fingerprint, refuse_missing_package
from lightning_m2pt.backbones.tokenizer_files import check_tokenizer_files, load_tokenizer
from lightning_m2pt.backbones.towers.open_clip_files import stored_tower, tower_on_meta, unfilled_tower
from lightning_m2pt.backbones.weight_files import (
    Shape,
    Stored,
    compare_tensors,
    conversion_of_pickle,
    stored_tensors,
)
from lightning_m2pt.configuration.paths import FilePath, readable
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.prompts.prefix_path import VisionPrefixPath, is_foldable
from lightning_m2pt.prompts.token_path import VisionTokenPath, put_rows_first


class OpenClipLlama(FilledFromFiles):
    """open_clip tower + linear projector + transformers causal LM.

    Args:
        vision_config: open_clip's JSON file (``model_cfg`` and ``preprocess_cfg``).
        vision_weights: safetensors file of the CLIP model or of its tower.
        language_config: Folder with the language model's ``config.json``.
        language_model: Folder with the language model's safetensors and tokenizer.
        projector_weights: safetensors file with ``weight`` (D_text, D_vision) and ``bias`` (D_text).
        dtype: Type of the frozen weights.
        activation_checkpointing: Recompute activations in the backward pass (non-reentrant). ``auto`` recomputes where
            an estimate of the memory says that training would not fit otherwise.
        compile_backend: Compile every layer with ``torch.compile``: ``inductor`` writes fused kernels (for GPUs; the
            first steps take minutes), ``aot_eager`` only traces. None does not compile.
        feature_cache: Folder that keeps the tower's features while nothing in the tower is trained; None keeps none.
            A batch's features are then computed without the pictures that are there, which may change last bits.
        feature_cache_bytes: Size beyond which the cache takes nothing more.
    """

    def __init__(
        self,
        vision_config: FilePath,
        vision_weights: FilePath,
        language_config: FilePath,
        language_model: FilePath,
        projector_weights: FilePath,
        dtype: Literal["float32", "bfloat16", "float64"] = "float32",
        activation_checkpointing: bool | Literal["auto"] = "auto",
        compile_backend: Literal["inductor", "aot_eager"] | None = None,
        feature_cache: FilePath | None = None,
        feature_cache_bytes: int = 100_000_000_000,
    ) -> None:
        super().__init__()
        self.vision_config = Path(vision_config)
        self.vision_weights = Path(vision_weights)
        self.language_config = Path(language_config)
        self.language_folder = Path(language_model)
        self.projector_weights = Path(projector_weights)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.compile_backend = compile_backend
        self.checkpointing_is_automatic = activation_checkpointing == "auto"
        self._open_clip = read_json(self.vision_config, "model.backbone.vision_config")
        self._llama = read_json(self.language_config / "config.json", "model.backbone.language_config")
        self.shape = shape_of(self._open_clip, self._llama, self.vision_config, self.language_config)
        self.files = BaseFiles(
            self.vision_config, self.vision_weights, self.language_config, self.language_folder, self.projector_weights
        )
        self.files.refuse_two_truths()
        self.recompute_activations(activation_checkpointing is True)
        self._vision_token_path = VisionTokenPath()
        self._vision_prefix_path = VisionPrefixPath()
        self._base_parameters = 0
        self.is_loaded = False
        self.feature_cache: FeatureCache | None = None
        if feature_cache:
            computing = json.dumps(self._open_clip["model_cfg"], sort_keys=True)
            self.feature_cache = FeatureCache(Path(feature_cache), feature_cache_bytes, computing)

    def processor(self) -> Processor:
        """Returns the tokenizer of the language model's folder with the tower's image transform."""
        tokenizer = load_tokenizer(self.language_folder)
        return Processor(
            tokenizer=tokenizer,
            image_size=self.shape.image_size,
            mean=self.shape.image_mean,
            std=self.shape.image_std,
            interpolation=self.shape.interpolation,
            resize=self.shape.resize,
            vocabulary_size=self.shape.vocabulary_size,
            chat_template=tokenizer_chat_template(self.language_folder, tokenizer),
        )

    @property
    def dtype_name(self) -> str:
        """Returns the type of the frozen weights."""
        return str(self.dtype).removeprefix("torch.")

    def check_files(self) -> None:
        """Raises BadInputError if a file is not what the configuration says; opens no tensor."""
        tokenizer = self.language_folder / "tokenizer_config.json"
        weights = sorted([*self.language_folder.glob("*.safetensors"), *self.language_folder.glob("*.bin")])
        language = weights[0] if weights else self.language_folder / "model.safetensors"
        wanted = [self.vision_weights, tokenizer, language, self.projector_weights]
        missing = [str(path) for path in wanted if not path.is_file()]
        if missing:
            raise BadInputError(
                f"missing {', '.join(missing)}",
                where="model.backbone",
                expected="the weights as safetensors, and the tokenizer, where the configuration says",
                hint=next(filter(None, map(conversion_of_pickle, [path for path in wanted if not path.is_file()])), "")
                or f"{self.language_config.parent / 'README.md'} says how to get them",
            )
        stored_tower(self.vision_weights, tower_on_meta(self._open_clip["model_cfg"]))
        self._stored_projector()
        check_language_folder(self.language_folder, by_reference=True)
        check_tokenizer_files(self.language_folder)
        refuse_missing_package(self.quantization)
        if self.feature_cache is not None:
            self.feature_cache.check()

    def build_on_meta(self) -> None:
        """Builds all modules on the meta device."""
        self.vision_tower = tower_on_meta(self._open_clip["model_cfg"])
        self.language_model = model_on_meta(self.language_config)
        self.pack_on_meta()
        self.projector = self._projector_on_meta()
        self._base_parameters = self._count_parameters()

    def build_unfilled(self) -> list[Unfilled]:
        """Builds all modules on the meta device in ``dtype``."""
        tower = unfilled_tower(self.vision_weights, self._open_clip["model_cfg"], self.dtype)
        language = unfilled_language_model(self.language_folder, self.dtype, self.quantization)
        projector, stored = self._projector_on_meta().to(self.dtype), self._stored_projector()
        self.vision_tower, self.projector, self.language_model = tower.module, projector, language.module
        names = {name: name for name in stored}
        return [tower, Unfilled(projector, stored, names, self.dtype, self.projector_weights), language]

    def _projector_on_meta(self) -> nn.Linear:
        with torch.device("meta"):
            return nn.Linear(self.shape.vision_width, self.shape.text_width)

    def _stored_projector(self) -> Stored:
        stored = stored_tensors(self.projector_weights)
        shapes: dict[str, Shape] = {
            "weight": (self.shape.text_width, self.shape.vision_width),
            "bias": (self.shape.text_width,),
        }
        compare_tensors(shapes, stored, self.projector_weights)
        return stored

    def finish(self) -> None:
        """Puts the built modules into their frozen state; also called by tests that build random weights."""
        self.eval()
        self._base_parameters = self._count_parameters()
        self.ready_language_model()
        if self.activation_checkpointing:
            self.vision_tower.set_grad_checkpointing(True)
        if self.compile_backend is not None:
            for block in self.vision_tower.transformer.resblocks[:-1]:
                block.compile(backend=self.compile_backend)
        self.is_loaded = True

    def fingerprint(self) -> str:
        """Returns the SHA-256 over what the model is built from, independent of where the files lie."""
        return quantised_fingerprint(self.files.fingerprint(), self.quantization)

    def former_fingerprint(self) -> str:
        """Returns the first version, which leaves out the configuration the model is built from and the tokenizer."""
        return quantised_fingerprint(self.files.former_fingerprint(), self.quantization)

    def readable_name(self) -> str:
        """Returns the folder of the language model's configuration."""
        return readable(str(self.language_config))

    def origin(self) -> BaseOrigin:
        """Returns the embedded backbone, or the five places in the hub, if these are its files."""
        return origin_of(type(self), vars(self.files), {})

    def verify_files(self) -> None:
        """Raises BadInputError if a weight file changed though its size and times are what they were."""
        self.files.verify()

    def base_parameters(self) -> int:
        """Counts language model, vision tower and projector as they were built, whatever has been put in since.

        open_clip's text projection ``visual.proj`` is no part of a LLaVA model and left out; the tower's unused last
        block and norm are counted, as the paper's percentages need.
        """
        return self._base_parameters

    def used_tensors(self) -> dict[str, dict[str, nn.Parameter]]:
        """Leaves out what stands behind the tower's last used block: the last block, the final norm, the projection."""
        unused = (f"transformer.resblocks.{self.shape.vision_layers - 1}.", "ln_post.", "proj")
        components = {"vision": "vision_tower", "interaction": "projector", "language": "language_model"}
        return {
            component: {
                f"{attribute}.{name}": parameter
                for name, parameter in getattr(self, attribute).named_parameters(remove_duplicate=False)
                if component != "vision" or not name.startswith(unused)
            }
            for component, attribute in components.items()
        }

    def visual_rows(self, pixel_values: Tensor) -> VisualRows:
        """Runs the used vision blocks and selects what goes through the connector."""
        prompts = self.attachment.visual_prompts
        if prompts is None:
            return VisualRows(self.patch_features(pixel_values), [Span.PATCH] * self.shape.patches)
        rows = prompts.layer_rows()
        used, last = rows[:-1], rows[-1]
        if self.attachment.path != "token" and is_foldable(used):
            self._vision_prefix_path.rows = used
            self._install_vision(self._vision_prefix_path)
            states = self.vision_states(pixel_values)
        else:
            self._vision_token_path.rows = used
            self._vision_token_path.position = self.attachment.visual_position
            self._install_vision(self._vision_token_path)
            states = self._vision_token_path.without_prompts(self.vision_states(pixel_values), prompts.length)
        return self.select_rows(states, last)

    def patch_features(self, pixel_values: Tensor) -> Tensor:
        """Returns (B, N, D) of the tower without prompts, from the cache where the features are constants."""

        def compute(pixels: Tensor) -> Tensor:
            return self.vision_states(pixels)[:, 1:]

        if self.feature_cache is None or not self.feature_cache.may_serve(self.vision_tower, pixel_values):
            return compute(pixel_values)
        form = self.shape.patches, self.shape.vision_width
        return self.feature_cache.features(self.vision_tower, pixel_values, compute, form)

    def vision_states(self, pixel_values: Tensor) -> Tensor:
        """Returns the input of the tower's last block: (B, 1 + N, D), or (B, P + 1 + N, D) on the token path."""
        output = self.vision_tower.forward_intermediates(
            pixel_values.to(self.vision_tower.conv1.weight.dtype),  # float32 where a copy of the tower is trained
            indices=[self.shape.vision_layers - 2],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        # open_clip calls row 0 the prefix token, whatever it is.
        return torch.cat([output["image_intermediates_prefix"][0], output["image_intermediates"][0]], dim=1)

    def select_rows(self, states: Tensor, raw_prompt: Tensor | None) -> VisualRows:
        """Chooses the rows for the connector by name.

        Args:
            states: (B, 1 + N, D): CLS, then patches.
            raw_prompt: (1, P, D) prompt of the last layer's input, which passes no layer at all.
        """
        patches = [Span.PATCH] * self.shape.patches
        choice = self.attachment.visual_rows_to_text
        if choice == "none" or raw_prompt is None:
            return VisualRows(states[:, 1:], patches)
        if choice == "all":
            rows = put_rows_first(raw_prompt, states[:, 1:], 0)
            return VisualRows(rows, [Span.VISUAL_PROMPT] * raw_prompt.shape[1] + patches)
        rows = put_rows_first(raw_prompt[:, 1:], states, 0)
        return VisualRows(rows, [Span.VISUAL_PROMPT] * (raw_prompt.shape[1] - 1) + [Span.CLS] + patches)

    def library_visual_rows(self, pixel_values: Tensor) -> Tensor:
        """Runs open_clip's whole tower, with hooks of its own for what is attached."""
        return library_rows(self, pixel_values)

    def attention_layers(self) -> tuple[list[Any], list[Any]]:
        """Returns the blocks whose output is used, and the decoder's layers."""
        return list(self.vision_tower.transformer.resblocks[:-1]), list(self.language_model.model.layers)

    def release_hooks(self) -> None:
        """Takes every hook and shadowed method away; called when a method detaches."""
        self._vision_token_path.remove()
        self._vision_prefix_path.remove()
        self._vision_installed = None
        super().release_hooks()

    _vision_installed: VisionTokenPath | VisionPrefixPath | None = None

    def _count_parameters(self) -> int:
        tower = [parameter for name, parameter in self.vision_tower.named_parameters() if name != "proj"]
        counted = sum(int(parameter.numel()) for parameter in [*tower, *self.projector.parameters()])
        return counted + parameter_count(self.language_model)

    def _install_vision(self, path: VisionTokenPath | VisionPrefixPath) -> None:
        if self._vision_installed is path:
            return
        rows = path.rows
        if self._vision_installed is not None:
            self._vision_installed.remove()
        path.install(self.vision_tower.transformer.resblocks[:-1])
        path.rows = rows
        self._vision_installed = path
