"""The lesson's prior."""

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from .base import Prior


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    words = "draws of the prior p(z) = N(0, I)"

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    @classmethod
    def of(cls, config: Any, shape: tuple[int, ...]) -> "StandardNormal":
        return cls(*shape)

    def nll(self, z: Tensor) -> Tensor:
        return F.standard_normal_nll(z)

    def gaussian_kl(self, mu: Tensor, logvar: Tensor) -> Tensor:
        return F.gaussian_kl(mu, logvar)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        return temperature * F.noise((n, *self.shape), generator=generator)
