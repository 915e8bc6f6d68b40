"""Priors over grids of codes."""

from typing import Any

import torch
from torch import Tensor, nn

from .. import functional as F
from .base import Prior

STEP, MOVE = 2**18, 2**5  # multiplications in the time of a step, and of moving a number


class Uniform(Prior):
    """Every grid of codes alike: T·log K nats. What a VQ-VAE is trained with."""

    words = "uniformly random codes, since no prior was trained"

    def __init__(self, codebook_size: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.grid = grid

    @classmethod
    def of(cls, config: Any, shape: tuple[int, ...]) -> "Uniform":
        return cls(config.codebook_size, shape)

    def nll(self, z: Tensor) -> Tensor:
        return F.uniform_codes_nll(z, self.codebook_size)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        u = F.uniform((n, *self.grid), generator=generator)
        codes = (u.double() * self.codebook_size).long()
        return codes if temperature else torch.zeros_like(codes)  # all are modes: take the first


class Autoregressive(Prior):
    """p(codes) = Π_t p(code_t | codes before it), a causal transformer in row-major order.

    The second stage of van den Oord et al. 2017, section 4.2, with attention for their PixelCNN.
    """

    later = True
    words = "codes that its transformer prior drew"

    def __init__(self, codebook_size: int, grid: tuple[int, ...], width: int, layers: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.grid = grid
        length = grid[0] * grid[1]
        self.start = nn.Parameter(torch.zeros(1, 1, width))
        embedding = torch.randn(codebook_size, width)
        self.embedding = nn.Embedding.from_pretrained(embedding, freeze=False)
        self.position = nn.Parameter(torch.randn(1, length, width).mul_(0.02))
        self.layers: Any = nn.ModuleList(TransformerLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, codebook_size)

    @classmethod
    def of(cls, config: Any, shape: tuple[int, ...]) -> "Autoregressive":
        return cls(config.codebook_size, shape, config.prior_width, config.prior_layers)

    @property
    def work(self) -> int:
        """At each place all weights, and all keys and values before it, which are moved as well.

        Both take their time: a step through a layer however narrow it is, and moving a number
        that of many multiplications.
        """
        length, width = self.position.shape[1:]
        moved = MOVE * length * width
        return length * (super().work + len(self.layers) * (STEP + moved))

    def logits(self, codes: Tensor) -> Tensor:
        """int64 (B, T) -> (B, T, K): for every place, given the codes before it."""
        before = self.embedding(codes[:, :-1])
        h = torch.cat([self.start.expand(len(codes), -1, -1), before], dim=1) + self.position
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h))

    def nll(self, z: Tensor) -> Tensor:
        codes = z.flatten(1).long()
        return F.categorical_nll(codes, self.logits(codes).float())

    @torch.no_grad()
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        length = self.grid[0] * self.grid[1]
        u = F.uniform((n, length), self.start, generator)
        rows = [self._sample(chunk, temperature) for chunk in u.split(256)]
        return torch.cat(rows).view(n, *self.grid)

    def _sample(self, u: Tensor, temperature: float) -> Tensor:
        """Codes (B, T) from uniform numbers (B, T); keys and values of the past are kept."""
        caches: list[Cache] = [None] * len(self.layers)
        codes: list[Tensor] = []
        h = self.start.expand(len(u), -1, -1)
        for t in range(u.shape[1]):
            h = h + self.position[:, t : t + 1]
            for i, layer in enumerate(self.layers):
                h, caches[i] = layer.step(h, caches[i])
            logits = self.head(self.norm(h))[:, 0].float()
            if temperature == 0:
                code = logits.argmax(-1)
            else:
                code = F.inverse_cdf(torch.softmax(logits / temperature, -1), u[:, t : t + 1])[:, 0]
            codes.append(code)
            h = self.embedding(code)[:, None]
        return torch.stack(codes, dim=1)


Cache = tuple[Tensor, Tensor] | None  # keys and values of the places so far, (B, heads, t, D)


class TransformerLayer(nn.Module):
    """Causal attention and a two-layer perceptron, each normalized first and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = 8 if width >= 256 else 4
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self._heads(h)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._rest(h, attended)

    def step(self, h: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """`forward` for one more place, (B, 1, width), given the keys and values before it."""
        q, k, v = self._heads(h)
        if cache is not None:
            k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self._rest(h, attended), (k, v)

    def _heads(self, h: Tensor) -> tuple[Tensor, ...]:
        b, t, width = h.shape
        qkv = self.qkv(self.norm1(h)).view(b, t, 3, self.heads, width // self.heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def _rest(self, h: Tensor, attended: Tensor) -> Tensor:
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm2(h))
