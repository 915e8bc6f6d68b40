"""Priors over grids, one cell after the other: a causal transformer, over codes or over vectors."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional as F
from .base import Prior
from .transformer import TransformerLayer

STEP, MOVE = 2**18, 2**5  # multiplications in the time of a step, and of moving a number
CACHED = 2**26  # numbers in the keys and values of draws made at once


class Autoregressive(Prior):
    """p(z) = Π_t p(cell_t | cells before it), a causal transformer in row-major order.

    The second stage of van den Oord et al. 2017, section 4.2, with attention for their PixelCNN.
    What a cell holds, and how likely, is for the kinds below: `embedding` and `head` are theirs.
    """

    later = True
    share = 0.5
    words = "what its transformer prior drew, cell by cell"

    embedding: nn.Module
    head: nn.Module

    def __init__(self, grid: tuple[int, ...], width: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("fitted", torch.tensor(False))
        self.grid = grid
        length = grid[0] * grid[1]
        self.start = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, length, width).mul_(0.02))
        self.layers: Any = nn.ModuleList(TransformerLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    @classmethod
    def of(cls, config: Any, shape: tuple[int, ...]) -> "Autoregressive":
        """Over codes (h, w), or over vectors (channels, h, w)."""
        size = {"width": config.prior_width, "layers": config.prior_layers}
        if len(shape) == 2:
            return AutoregressiveCodes(config.codebook_size, shape, **size)
        return AutoregressiveVectors(config.prior_components, *shape, **size)

    @property
    def work(self) -> int:
        """At each place all weights, and all keys and values before it, which are moved as well.

        Both take their time: a step through a layer however narrow it is, and moving a number
        that of many multiplications.
        """
        length, width = self.position.shape[1:]
        moved = MOVE * length * width
        return length * (super().work + len(self.layers) * (STEP + moved))

    # What a cell holds

    @abstractmethod
    def cells(self, z: Tensor) -> Tensor:
        """A batch of grids -> what they hold cell by cell, (B, T[, C])."""

    @abstractmethod
    def grids(self, cells: Tensor) -> Tensor:
        """The inverse of `cells`."""

    @abstractmethod
    def cell_nll(self, cells: Tensor, told: Tensor) -> Tensor:
        """−log p of all cells, (B,) in nats, where `told` (B, T, ...) is what the head says."""

    @abstractmethod
    def noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        """What n draws take, (n, T, ...)."""

    @abstractmethod
    def draw(self, told: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """One cell, (B[, C]), from what the head says (B, ...) and that cell's noise (B, ...)."""

    # One cell after the other

    def tell(self, cells: Tensor) -> Tensor:
        """(B, T[, C]) -> (B, T, ...): what the head says of every cell, given those before it."""
        before = self.embedding(cells[:, :-1])
        h = torch.cat([self.start.expand(len(cells), -1, -1), before], dim=1) + self.position
        for layer in self.layers:
            h = layer(h)
        return self.say(h)

    def say(self, h: Tensor) -> Tensor:
        """In full precision: densities need it."""
        with torch.autocast(h.device.type, enabled=False):
            return self.head(self.norm(h.to(self.start.dtype))).float()

    def nll(self, z: Tensor) -> Tensor:
        self.note_training()
        cells = self.cells(z)
        return self.cell_nll(cells, self.tell(cells))

    @torch.no_grad()
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        self.warn_unless_fitted()
        length, width = self.position.shape[1:]
        rows = max(1, CACHED // (2 * len(self.layers) * length * width))
        drawn = [self._sample(e, temperature) for e in self.noise(n, generator).split(rows)]
        return self.grids(torch.cat(drawn))

    def _sample(self, noise: Tensor, temperature: float) -> Tensor:
        """Cells (B, T[, C]) from their noise; keys and values of the past are kept."""
        length = self.position.shape[1]
        caches = [layer.cache(len(noise), length) for layer in self.layers]
        cells: list[Tensor] = []
        h = self.start.expand(len(noise), -1, -1)
        for t in range(length):
            h = h + self.position[:, t : t + 1]
            for layer, cache in zip(self.layers, caches, strict=True):
                h = layer.step(h, cache, t)
            cells.append(self.draw(self.say(h)[:, 0], noise[:, t], temperature))
            h = self.embedding(cells[-1])[:, None]
        return torch.stack(cells, dim=1)


class AutoregressiveCodes(Autoregressive):
    """A cell is a code, from a softmax."""

    def __init__(self, codebook_size: int, grid: tuple[int, ...], width: int, layers: int) -> None:
        super().__init__(grid, width, layers)
        embedding = torch.randn(codebook_size, width)
        self.embedding = nn.Embedding.from_pretrained(embedding, freeze=False)
        self.head = nn.Linear(width, codebook_size)

    def cells(self, z: Tensor) -> Tensor:
        return z.flatten(1).long()

    def grids(self, cells: Tensor) -> Tensor:
        return cells.unflatten(1, self.grid)

    def cell_nll(self, cells: Tensor, told: Tensor) -> Tensor:
        return F.categorical_nll(cells, told)

    def noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        return F.uniform((n, self.position.shape[1]), self.start, generator)

    def draw(self, told: Tensor, noise: Tensor, temperature: float) -> Tensor:
        if temperature == 0:
            return told.argmax(-1)
        return F.inverse_cdf(torch.softmax(told / temperature, -1), noise[:, None])[:, 0]


class AutoregressiveVectors(Autoregressive):
    """A cell is a vector (C,), from a mixture of Gaussians: its weights, means and scales.

    GIVT: Tschannen et al. 2024 (arXiv:2312.02116), section 3.2.
    """

    def __init__(self, components: int, channels: int, *grid: int, width: int, layers: int) -> None:
        super().__init__(grid, width, layers)
        self.channels, self.components = channels, components
        self.embedding = nn.Linear(channels, width)
        self.head = nn.Linear(width, components * (1 + 2 * channels))

    def cells(self, z: Tensor) -> Tensor:
        return z.flatten(2).mT.to(self.start.dtype)

    def grids(self, cells: Tensor) -> Tensor:
        return cells.mT.unflatten(2, self.grid)

    def mixture(self, told: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., K·(1+2C)) -> logits (..., K), means and log-scales (..., K, C)."""
        sizes = (1, self.channels, self.channels)
        logits, means, log_scales = told.unflatten(-1, (self.components, -1)).split(sizes, dim=-1)
        return logits[..., 0], means, F.bounded(log_scales, 7)

    def cell_nll(self, cells: Tensor, told: Tensor) -> Tensor:
        return F.mixture_nll(cells.float(), *self.mixture(told))

    def noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        """For each cell a uniform number, which chooses the Gaussian, then ε ~ N(0, I)."""
        shape = n, self.position.shape[1]
        u = F.uniform((*shape, 1), self.start, generator)
        return torch.cat([u, F.noise((*shape, self.channels), self.start, generator)], dim=-1)

    def draw(self, told: Tensor, noise: Tensor, temperature: float) -> Tensor:
        logits, means, log_scales = self.mixture(told)
        u, eps = noise.split((1, self.channels), dim=-1)
        chosen = F.inverse_cdf(torch.softmax(logits, -1), u)[:, 0]
        if temperature == 0:
            chosen = logits.argmax(-1)
        rows = torch.arange(len(chosen), device=chosen.device)
        z = means[rows, chosen] + temperature * log_scales[rows, chosen].exp() * eps
        return z.to(self.start.dtype)
