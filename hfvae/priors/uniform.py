"""The prior that a VQ-VAE is trained with."""

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from .base import Prior


class Uniform(Prior):
    """Every grid of codes alike: T·log K nats."""

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
        codes = (F.exact(u) * self.codebook_size).long().to(u.device)
        return codes if temperature else torch.zeros_like(codes)  # all are modes: take the first
