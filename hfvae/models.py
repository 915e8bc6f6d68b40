"""The families. Each only says which parts it is made of; `hfvae.base` holds what they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import functional as F
from .base import CHUNK, BaseAutoencoder, Output, at_least_float32, in_eval_mode, one_image
from .bottlenecks import (
    Deterministic,
    Discrete,
    FiniteScalarQuantizer,
    Gaussian,
    VectorQuantizer,
)
from .configs import AutoencoderConfig, VAEConfig, VQVAEConfig, fsq_levels
from .priors import Prior, StandardNormal, make_prior

__all__ = ["FAMILIES", "VAE", "VQVAE", "Autoencoder", "BaseAutoencoder", "Output"]


class Autoencoder(BaseAutoencoder):
    """Encoder and decoder alone: it reconstructs, and its latent space is left to chance.

    Nothing makes codes fill the space between them, so a point drawn there decodes to no image:
    `sample` needs a mixture fitted to the codes first, as `train.py` does.
    """

    config_class = AutoencoderConfig
    config: AutoencoderConfig

    def __init__(
        self,
        config: AutoencoderConfig,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__(
            config,
            bottleneck=Deterministic(config.latent_dim),
            prior=make_prior(config),
            latent_features=config.latent_dim,
            encoder=encoder,
            decoder=decoder,
        )


class VAE(BaseAutoencoder):
    """The variational autoencoder: q(z|x) = N(μ(x), σ²(x)), p(z) = N(0, I).

    Kingma & Welling 2014 (arXiv:1312.6114). With beta ≠ 1 a β-VAE (Higgins et al. 2017).
    """

    config_class = VAEConfig
    config: VAEConfig
    bottleneck: Gaussian
    prior: Prior

    def __init__(
        self,
        config: VAEConfig,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__(
            config,
            bottleneck=Gaussian(config.latent_dim, config.beta),
            prior=make_prior(config),
            latent_features=config.latent_dim,
            encoder=encoder,
            decoder=decoder,
        )

    @in_eval_mode
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z|x): μ and log σ², each (B, latent_dim), for x (B, C, H, W) in [0, 1]."""
        self._check_values(x)
        return self.bottleneck.posterior(self._features(x))

    @in_eval_mode
    def elbo(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A one-sample lower bound on log p(x), (B,) in nats; `beta` plays no part.

        Jensen's inequality: log p(x) = log E_q[p(x|z) p(z) / q(z|x)] ≥ E_q[log p(x|z)] − KL(q ‖ p).
        The KL is exact for the standard normal prior; for a mixture it is that of the z drawn.
        """
        self.likelihood.check(x)
        mu, logvar = self.posterior(x)
        z = F.reparameterize(mu, logvar, generator)
        if not isinstance(self.prior, StandardNormal):
            return self._log_weights(x, z[None], mu, logvar)[0]
        nll = self.likelihood.nll(at_least_float32(x), self._params(z))
        return -nll - F.gaussian_kl(mu, logvar)

    @in_eval_mode
    @torch.no_grad()
    def log_likelihood(
        self, x: Tensor, samples: int = 100, generator: torch.Generator | None = None
    ) -> Tensor:
        """log p(x) by importance sampling, (B,) in nats: a bound that grows with `samples`.

        Args:
            x: (B, C, H, W) in [0, 1], of the kind that the likelihood is over.
            samples: z drawn from q(z|x) for each image.
            generator: the same seed gives the same numbers.

        Raises:
            ValueError: bad images, or no samples.
        """
        self.likelihood.check(x)
        if samples < 1:
            raise ValueError(f"samples must be 1 or more, not {samples}")
        return torch.cat([self._log_likelihood(some, samples, generator) for some in x.split(64)])

    def _log_likelihood(self, x: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
        mu, logvar = self.posterior(x)
        z = F.reparameterize(
            mu.expand(samples, *mu.shape), logvar.expand(samples, *mu.shape), generator
        )
        at_once = max(1, CHUNK // x.numel())
        return F.importance_bound(
            torch.cat([self._log_weights(x, some, mu, logvar) for some in z.split(at_once)])
        )

    def _log_weights(self, x: Tensor, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
        """log p(x|z) + log p(z) − log q(z|x): (B, ...), (k, B, D), (B, D), (B, D) -> (k, B)."""
        k, b = z.shape[:2]
        flat = z.flatten(0, 1)
        many = [t.expand(k, *t.shape).flatten(0, 1) for t in (at_least_float32(x), mu, logvar)]
        nll = self.likelihood.nll(many[0], self._params(flat))
        log_weights = -nll - self.prior.nll(flat) + F.gaussian_nll(flat, *many[1:])
        return log_weights.view(k, b)


class VQVAE(BaseAutoencoder):
    """Discrete latents: a grid of codes, each naming a vector that the decoder sees.

    van den Oord et al. 2017 (arXiv:1711.00937); with `quantizer="fsq"` Mentzer et al. 2024.
    """

    config_class = VQVAEConfig
    config: VQVAEConfig
    bottleneck: Discrete
    prior: Prior

    def __init__(
        self,
        config: VQVAEConfig,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        if config.quantizer == "fsq":
            bottleneck = FiniteScalarQuantizer(fsq_levels(config.codebook_size))
        else:
            bottleneck = VectorQuantizer(
                config.embedding_dim, config.codebook_size, config.commitment, config.ema_decay
            )
        super().__init__(
            config,
            bottleneck=bottleneck,
            prior=None,
            latent_features=bottleneck.in_features,
            encoder=encoder,
            decoder=decoder,
            spatial=True,
        )
        self.prior = make_prior(config, self.latent_shape[1:])

    @in_eval_mode
    def codes(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> int64 (B, h, w), each from 0 to codebook_size − 1."""
        return self.bottleneck.codes(self._mode(x))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """int64 (B, h, w) -> (B, C, H, W) in [0, 1].

        Raises:
            ValueError: the grid has another size, or a code is not in the codebook.
            TypeError: codes are not integers.
        """
        if codes.is_floating_point():
            raise TypeError(f"codes are integers, not {codes.dtype}")
        if codes.shape[1:] != self.latent_shape[1:]:
            raise ValueError(
                f"expected codes of shape (B, {', '.join(map(str, self.latent_shape[1:]))}), "
                f"got {tuple(codes.shape)}"
            )
        if codes.numel() and not 0 <= codes.min() <= codes.max() < self.config.codebook_size:
            raise ValueError(f"codes must be from 0 to {self.config.codebook_size - 1}")
        return self._decode_in_chunks(self.bottleneck.lookup(codes))

    @torch.no_grad()
    def traverse(self, x: Tensor, dim: int, values: Sequence[float] | Tensor) -> Tensor:
        """What one code does: the code in cell `dim` replaced by each of `values`.

        Args:
            x: one image, (C, H, W) or (1, C, H, W) in [0, 1].
            dim: a cell of the code grid, counted row by row.
            values: codes.

        Returns:
            (len(values), C, H, W) in [0, 1].

        Raises:
            ValueError: the grid has no such cell, or the codebook no such code.
        """
        asked = torch.as_tensor(values)
        if (asked != asked.round()).any():
            raise ValueError("values must be codes, which are whole numbers")
        codes = self.codes(one_image(x))
        cells = codes[0].numel()
        if not 0 <= dim < cells:
            raise ValueError(f"dim must be from 0 to {cells - 1}, not {dim}")
        codes = codes.repeat(len(values), 1, 1)
        codes.flatten(1)[:, dim] = asked.to(codes)
        return self.decode_codes(codes)

    @in_eval_mode
    def elbo(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """log p(x|codes) + log p(codes) ≤ log p(x), (B,) in nats, for the codes of x.

        The posterior is certain of its codes, so nothing is drawn and its entropy is zero.
        """
        self.likelihood.check(x)
        codes = self.codes(x)
        params = self._params(self.bottleneck.lookup(codes))
        return -self.likelihood.nll(at_least_float32(x), params) - self.prior.nll(codes)

    def _draw(self, n: int, temperature: float, generator: torch.Generator | None) -> Tensor:
        codes = self.prior.sample(n, temperature, generator).to(self.device)
        return self.bottleneck.lookup(codes)


FAMILIES: dict[str, type[Any]] = {
    family.config_class.model_type: family for family in (Autoencoder, VAE, VQVAE)
}
