"""Short PyTorch networks of the tests' own, under torchvision's and timm's names."""

from __future__ import annotations

import torch
from torch import nn

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


class Block(nn.Module):
    """A basic block, or with `wide` 4 a bottleneck with the stride on its 3x3."""

    def __init__(self, inside: int, planes: int, stride: int, wide: int) -> None:
        super().__init__()
        kernels = [1, 3, 1] if wide == 4 else [3, 3]
        sizes = [inside, *[planes] * (len(kernels) - 1), planes * wide]
        where = kernels.index(3)
        self.depth = len(kernels)
        for i, kernel in enumerate(kernels):
            step = stride if i == where else 1
            conv = nn.Conv2d(
                sizes[i], sizes[i + 1], kernel, step, kernel // 2, bias=False
            )
            setattr(self, f"conv{i + 1}", conv)
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(sizes[i + 1]))
        self.downsample = nn.Identity()
        if stride > 1 or inside != planes * wide:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, planes * wide, 1, stride, bias=False),
                nn.BatchNorm2d(planes * wide),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = torch.relu(y)
        return torch.relu(y + self.downsample(x))


class ResNet(nn.Module):
    """ResNet-18 or ResNet-50 up to the pooled features."""

    def __init__(self, depth: int, width: int, stem: str) -> None:
        super().__init__()
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        wide, inside = (4 if depth >= 50 else 1), width
        for stage, count in enumerate(BLOCKS[depth]):
            blocks = []
            for i in range(count):
                step = 2 if stage and not i else 1
                blocks.append(Block(inside, width * 2**stage, step, wide))
                inside = width * 2**stage * wide
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, tokens, width = x.shape
        parts = self.qkv(x).view(count, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(count, tokens, width))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """A ViT up to its normalized class token."""

    def __init__(
        self, width: int, depth: int, heads: int, patch: int, size: int
    ) -> None:
        super().__init__()
        tokens = (size // patch) ** 2 + 1
        self.patch_embed = Patches(width, patch)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, width))
        self.blocks = nn.Sequential(*[Layer(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.cls_token.expand(len(x), -1, -1)
        x = torch.cat([tokens, self.patch_embed(x)], 1) + self.pos_embed
        return self.norm(self.blocks(x))[:, 0]
