"""The families. Each only says which parts it is made of; `hfvae.base` holds what they share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import FAMILIES, BaseAutoencoder, Output, from_pretrained, in_eval_mode
from .configs import AutoencoderConfig, VAEConfig, VQVAEConfig, fsq_levels
from .latents import Codes, FiniteScalarQuantizer, Gaussian, Point, VectorQuantizer
from .networks import grid_of

__all__ = [
    "FAMILIES",
    "VAE",
    "VQVAE",
    "Autoencoder",
    "BaseAutoencoder",
    "Output",
    "from_pretrained",
]


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
            bottleneck=Point(config.latent_dim),
            encoder=encoder,
            decoder=decoder,
        )


class VAE(BaseAutoencoder):
    """The variational autoencoder: q(z|x) = N(μ(x), σ²(x)), p(z) = N(0, I).

    Kingma & Welling 2014 (arXiv:1312.6114). With beta ≠ 1 a β-VAE (Higgins et al. 2017); spatial,
    z is a grid of such vectors, as latent diffusion has them (Rombach et al. 2022,
    arXiv:2112.10752).
    """

    config_class = VAEConfig
    config: VAEConfig
    bottleneck: Gaussian

    def __init__(
        self,
        config: VAEConfig,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        grid = grid_of(config.size, len(config.widths)) if config.spatial else ()
        super().__init__(
            config,
            bottleneck=Gaussian(config.latent_dim, *grid),
            encoder=encoder,
            decoder=decoder,
        )

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q(z|x): μ and log σ², each (B, latent_dim[, h, w]), for x (B, C, H, W) in [0, 1]."""
        q = self.infer(x)
        return q.mu, q.logvar

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
        return torch.cat(
            [
                self.importance_bound(some, self.infer(some), samples, generator)
                for some in x.split(64)
            ]
        )


class VQVAE(BaseAutoencoder):
    """Discrete latents: a grid of codes, each naming a vector that the decoder sees.

    van den Oord et al. 2017 (arXiv:1711.00937); with `quantizer="fsq"` Mentzer et al. 2024.
    """

    config_class = VQVAEConfig
    config: VQVAEConfig
    bottleneck: Codes

    def __init__(
        self,
        config: VQVAEConfig,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        grid = grid_of(config.size, len(config.widths))
        if config.quantizer == "fsq":
            bottleneck = FiniteScalarQuantizer(fsq_levels(config.codebook_size), grid)
        else:
            bottleneck = VectorQuantizer(
                config.embedding_dim, grid, config.codebook_size, config.commitment,
                config.ema_decay,
            )  # fmt: skip
        super().__init__(config, bottleneck=bottleneck, encoder=encoder, decoder=decoder)

    def codes(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> int64 (B, h, w), each from 0 to codebook_size − 1."""
        return self.infer(x).events()

    def decode_codes(self, codes: Tensor) -> Tensor:
        """int64 (B, h, w) -> (B, C, H, W) in [0, 1].

        Raises:
            ValueError: the grid has another size, or a code is not in the codebook.
            TypeError: codes are not integers.
        """
        self.bottleneck.check(codes)
        return self._decode_in_chunks(self.bottleneck.lookup(codes))


FAMILIES |= {family.config_class.model_type: family for family in (Autoencoder, VAE, VQVAE)}
