"""M2PT's training step as its paper and script describe it, written by us from the description.

Prompt rows stand in the sequence and are overwritten before every layer, in both towers; every vision layer is
computed although the features are the input of the last; all rows but the first go through the projector; the decoder
is recomputed in the backward pass; every row gets logits; prompts, projector and head are trained. The script's debug
prints (each makes a GPU wait) and its copy of the head in every forward pass are left out: they would only make it
slower. Attention is eager, since the script's flash patch does not reach the class the model uses.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.utils.checkpoint import checkpoint

from benchmarks.training.llava_weights import llava_of
from benchmarks.training.peer import Peer
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch
from lightning_m2pt.methods.m2pt import M2PT


class PublishedStep(nn.Module):
    """The model with its prompts.

    Args:
        backbone: Whose frozen weights are used.
        method: Whose trained tensors are copied, the head among them.
        recompute: Recompute each decoder layer in the backward pass (non-reentrant).
        attention: ``eager`` or ``sdpa``.
    """

    def __init__(self, backbone: OpenClipLlama, method: M2PT, recompute: bool, attention: str) -> None:
        super().__init__()
        self.recompute, self.fused = recompute, attention == "sdpa"
        self.llava = llava_of(backbone, attention)
        device = backbone.projector.weight.device
        self.visual_prompts = self._copies(method.visual_prompts.rows, device)  # type: ignore[union-attr]
        self.textual_prompts = self._copies(method.textual_prompts.rows, device)  # type: ignore[union-attr]
        inner = self.llava.model
        inner.multi_modal_projector.linear_1 = self._copy(backbone.projector, torch.float32)
        self.llava.lm_head = self._copy(backbone.language_model.lm_head, backbone.dtype)

    @staticmethod
    def _copies(rows: nn.ParameterDict, device: torch.device) -> nn.ParameterList:
        return nn.ParameterList([nn.Parameter(tensor.detach().clone().to(device)) for tensor in rows.values()])

    @staticmethod
    def _copy(layer: nn.Linear, dtype: torch.dtype) -> nn.Linear:
        clone = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, layer.weight.device, dtype)
        clone.load_state_dict(layer.state_dict())
        return clone

    def trained(self) -> list[nn.Parameter]:
        """Returns prompts, projector and head."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def image_rows(self, pixel_values: Tensor) -> Tensor:
        """Returns (B, P - 1 + 1 + N, D): the last layer's raw prompts but the first, CLS and patches, projected."""
        tower, prompts = self.llava.model.vision_tower, self.visual_prompts
        states = tower.pre_layrnorm(tower.embeddings(pixel_values))
        states = torch.cat([prompts[0].to(states.dtype).expand(len(states), -1, -1), states], dim=1)
        entered = states
        for layer, rows in zip(tower.encoder.layers, prompts, strict=True):
            states[:, : rows.shape[1]] = rows.to(states.dtype)
            entered = states
            states = layer(states, None)
        projector = self.llava.model.multi_modal_projector.linear_1
        return projector(entered[:, 1:].to(projector.weight.dtype)).to(entered.dtype)  # type: ignore[no-any-return]

    def spliced(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns embeddings and labels with each image in its place, sample by sample."""
        images = self.image_rows(batch.pixel_values)
        embed = self.llava.model.language_model.embed_tokens
        embeddings, labels = [], []
        for ids, given, image in zip(batch.input_ids, batch.labels, images, strict=True):
            (place,) = (ids == IMAGE_TOKEN_ID).nonzero().flatten().tolist()
            embeddings.append(torch.cat([embed(ids[:place]), image, embed(ids[place + 1 :])]))
            labels.append(
                torch.cat([given[:place], given.new_full(image.shape[:1], IGNORED_LABEL), given[place + 1 :]])
            )
        return torch.stack(embeddings), torch.stack(labels)

    def decoded(self, embeddings: Tensor) -> Tensor:
        """Returns (B, P + S, D) after the final norm; the first P rows are the prompts'."""
        decoder, prompts = self.llava.model.language_model, self.textual_prompts
        states = torch.cat([prompts[0].to(embeddings.dtype).expand(len(embeddings), -1, -1), embeddings], dim=1)
        length = states.shape[1]
        positions = torch.arange(length, device=states.device)[None]
        rotation = decoder.rotary_emb(states, position_ids=positions)
        mask = None
        if not self.fused:
            lowest = torch.finfo(states.dtype).min
            mask = torch.full((1, 1, length, length), lowest, dtype=states.dtype, device=states.device).triu(1)
        for layer, rows in zip(decoder.layers, prompts, strict=True):
            states[:, : rows.shape[1]] = rows.to(states.dtype)
            if self.recompute:
                states = checkpoint(
                    layer, states, attention_mask=mask, position_embeddings=rotation, use_reentrant=False
                )
            else:
                states = layer(states, attention_mask=mask, position_embeddings=rotation)
        return decoder.norm(states)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> Tensor:
        """Returns the mean loss: logits of all rows, all but the last compared with the next row's label."""
        embeddings, labels = self.spliced(batch)
        states = self.decoded(embeddings)
        logits = self.llava.lm_head(states)
        labels = pad(labels, (states.shape[1] - labels.shape[1], 0), value=IGNORED_LABEL)
        shifted = logits[:, :-1].contiguous().view(-1, logits.shape[-1])
        return cross_entropy(shifted, labels[:, 1:].reshape(-1), ignore_index=IGNORED_LABEL)


def published_peer(
    name: str, backbone: OpenClipLlama, method: M2PT, batch: Batch, *, recompute: bool, attention: str
) -> Peer:
    """Returns one form of the published step."""
    step = PublishedStep(backbone, method, recompute, attention)
    return Peer(name, lambda: step(batch), step.trained(), [step])
