"""Between encoder and decoder: h -> a latent, and what that latent costs.

This is all in which the families differ. With `x -> h -> z -> p(x|z)` every one of them minimises

    −log p(x|z) + penalty(z)        summed over the image, averaged over the batch, in nats
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import functional as F


class Latent(NamedTuple):
    """z for the decoder, its (B,) penalty in nats, and unweighted per-image means to report."""

    z: Tensor
    penalty: Tensor
    metrics: dict[str, Tensor]


class Bottleneck(nn.Module, ABC):
    """Takes (B, in_features[, h, w]) from the encoder."""

    in_features: int

    @abstractmethod
    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Latent:
        """The latent of training, noise included."""

    @abstractmethod
    def mode(self, h: Tensor) -> Tensor:
        """The latent without noise, before any rounding: where interpolation happens."""


class Gaussian(Bottleneck):
    """q(z|x) = N(μ, σ²), drawn by reparameterization and charged β·KL(q(z|x) ‖ N(0, I)).

    β = 1 gives the negative ELBO (Kingma & Welling 2014, eq. 3); β > 1 trades reconstruction for
    independent latents (Higgins et al. 2017). `beta` may be changed during training: a warm-up.
    """

    def __init__(self, dim: int, beta: float) -> None:
        super().__init__()
        self.in_features = 2 * dim
        self.beta = beta

    def posterior(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2·dim) -> μ and log σ², each (B, dim)."""
        mu, logvar = h.chunk(2, dim=1)
        return mu, logvar.clamp(-20, 20)  # one wild step must not overflow exp

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Latent:
        mu, logvar = self.posterior(h)
        z = F.reparameterize(mu, logvar, generator)
        kl = F.gaussian_kl(mu, logvar)
        return Latent(z, self.beta * kl, {"kl": kl.mean()})

    def mode(self, h: Tensor) -> Tensor:
        return self.posterior(h)[0]
