"""The VAE's latent: q(z|x) = N(μ, σ²), drawn by reparameterization."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from ..priors import Prior
from .base import Axes, Latents, Posterior, ranked

ACTIVE = 0.01  # Burda et al. 2016 (arXiv:1509.00519): a unit is active if Var_x[μ(x)] exceeds this
FAR = 20.0  # nats of KL for each latent: a mean over six standard deviations of N(0, I) away


@dataclass
class GaussianPosterior(Posterior):
    """q(z|x) = N(μ, σ²), each (B, ...). Kingma & Welling 2014 (arXiv:1312.6114)."""

    mu: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return F.reparameterize(self.mu, self.logvar, generator)

    def mode(self) -> Tensor:
        return self.mu

    def nll(self, z: Tensor) -> Tensor:
        """−log q(z|x), (B,) in nats."""
        return F.gaussian_nll(z, self.mu, self.logvar)

    def rate(self, z: Tensor, prior: Prior) -> Tensor:
        kl = prior.gaussian_kl(self.mu, self.logvar)
        return prior.nll(z) - self.nll(z) if kl is None else kl

    def metrics(self, rate: Tensor) -> dict[str, Tensor]:
        return {"kl": rate.mean()}

    def events(self, times: int = 1, generator: torch.Generator | None = None) -> Tensor:
        return self.repeat(times).sample(generator)

    def kept(self) -> Tensor:
        return torch.cat([self.mu, self.logvar], dim=1)

    def repeat(self, times: int) -> "GaussianPosterior":
        """The whole batch so many times over."""
        over = times, *[1] * (self.mu.ndim - 1)
        return GaussianPosterior(self.mu.repeat(over), self.logvar.repeat(over))


class Gaussian(Latents):
    """(B, 2·dim) -> q(z|x) = N(μ, σ²) over z (B, dim); with a grid, (B, 2·dim, h, w) alike."""

    density = True

    def __init__(self, dim: int, *grid: int) -> None:
        super().__init__()
        self.in_features = 2 * dim
        self.shape = (dim, *grid)
        if grid:
            self.view = "grid"
            self.weighed = 0

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> GaussianPosterior:
        mu, logvar = h.chunk(2, dim=1)
        return GaussianPosterior(mu, logvar.clamp(-20, 20))  # one wild step must not overflow exp

    def drawn(self, kept: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self(kept).sample(generator)

    def summary(self, tallies: Sequence[Tensor], rate: Tensor | None = None) -> dict[str, Any]:
        kl = {} if rate is None else {"kl": F.exact(rate).mean().item()}
        means = torch.cat(list(tallies))
        if len(means) < 2:
            return kl  # one image does not vary
        # Of a grid a unit is a channel, since all cells share its meaning.
        variance = means.var(dim=0).reshape(self.shape[0], -1).mean(1)
        return kl | {"active_units": int((variance > ACTIVE).sum())}

    def advice(self, results: dict[str, Any]) -> dict[str, str]:
        found, units, latents = {}, self.shape[0], math.prod(self.shape)
        active, kl = results.get("active_units", units), results.get("kl", 0.0)
        if active < units / 4:
            kind = "latents" if units == latents else "channels"
            found["active units"] = (
                f"only {active} of {units} {kind} carry information: add --max_train_minutes, "
                "lower --beta or add --kl_warmup_steps; if the pictures are good, use fewer "
                "--latent_dim"
            )
        if kl > FAR * latents:
            found["kl"] = (
                f"the KL is {kl:.0f} nats, {kl / latents:.0f} for each latent: they lie far "
                "outside the prior, and new images will be poor; raise --beta or --latent_dim, or "
                "lower --learning_rate"
            )
        return found

    def axes(self, posterior: Posterior) -> Axes:
        """Those first with the largest KL from N(0, I), averaged over the images."""
        assert isinstance(posterior, GaussianPosterior)
        kl = F.gaussian_kl_by_latent(posterior.mu, posterior.logvar).mean(0)
        return ranked(kl.flatten(), "nats")
