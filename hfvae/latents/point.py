"""The autoencoder's latent: a point, free of charge, so nothing keeps the codes together."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..priors import Prior
from .base import Latents, Posterior


@dataclass
class PointPosterior(Posterior):
    """All of q(z|x) at z = h. It has no density, and so no rate, whatever the prior."""

    z: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.z

    def mode(self) -> Tensor:
        return self.z

    def rate(self, z: Tensor, prior: Prior) -> Tensor:
        return z.new_zeros(len(z))

    def events(self, times: int = 1, generator: torch.Generator | None = None) -> Tensor:
        return self.z  # certain: once says it all


class Point(Latents):
    """z = h, (B, dim)."""

    random = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_features = dim
        self.shape = (dim,)

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Posterior:
        return PointPosterior(h)
