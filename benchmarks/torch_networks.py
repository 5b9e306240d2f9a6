"""The networks of two recipes, as PyTorch's collections have them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Network(nn.Module):
    """Encoder, projector and, of the online network, predictor.

    Args:
      encoder: to (b, features).
      features: of the encoder.
      projector: the widths of its hidden layers; its last layer has BatchNorm.
      last_bn: whether the predictor's last layer has it, too.
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: int,
        projector: Sequence[int],
        *,
        last_bn: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = head(features, projector, last_bn=True)
        self.predictor = head(256, [4096], last_bn=last_bn)

    def forward(self, view: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns unit projections y and predictions z, (b, 256) float32."""
        projection = self.projector(self.encoder(view))
        prediction = self.predictor(projection)
        return tuple(
            nn.functional.normalize(each.float()) for each in (projection, prediction)
        )

    def target(self, view: torch.Tensor) -> torch.Tensor:
        """Returns unit projections t, (b, 256) float32."""
        return nn.functional.normalize(self.projector(self.encoder(view)).float())


def cifar_resnet18() -> Network:
    """Returns the networks of configs/cifar10.py, torchvision's ResNet-18 in them."""
    from torchvision.models import resnet18

    encoder = resnet18()
    encoder.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    encoder.maxpool = nn.Identity()
    encoder.fc = nn.Identity()
    return Network(encoder, 512, [2048], last_bn=False)


def vit_s16() -> Network:
    """Returns those of configs/imagenet_vit_s16.py, timm's ViT-S/16 in them.

    Its positions are learned parameters; they and the patches stay as they are.
    """
    import timm

    encoder = timm.create_model("vit_small_patch16_224", num_classes=0, num_heads=12)
    for frozen in (encoder.patch_embed.proj.weight, encoder.pos_embed):
        frozen.requires_grad_(False)
    return Network(encoder, 384, [4096, 4096], last_bn=True)


def head(inside: int, hidden: Sequence[int], *, last_bn: bool) -> nn.Sequential:
    """Returns a head of 256 outputs."""
    layers: list[nn.Module] = []
    for features in hidden:
        linear = nn.Linear(inside, features, bias=False)
        layers += [linear, nn.BatchNorm1d(features), nn.ReLU()]
        inside = features
    layers.append(nn.Linear(inside, 256, bias=False))
    return nn.Sequential(
        *layers, *([nn.BatchNorm1d(256, affine=False)] if last_bn else [])
    )
