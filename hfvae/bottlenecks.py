"""Between encoder and decoder: h -> a latent, and what that latent costs.

This is all in which the families differ. With `x -> h -> z -> p(x|z)` every one of them minimises

    −log p(x|z) + penalty(z)        summed over the image, averaged over the batch, in nats
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

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

    def quantize(self, z: Tensor) -> Tensor:
        """The nearest latent that the decoder takes; any will do where latents are continuous."""
        return z


class Deterministic(Bottleneck):
    """The autoencoder's: z = h, free of charge, so nothing keeps the codes together."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_features = dim

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Latent:
        return Latent(h, h.new_zeros(len(h)), {})

    def mode(self, h: Tensor) -> Tensor:
        return h


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


class Discrete(Bottleneck):
    """A grid of codes: (B, in_features, h, w) <-> int64 (B, h, w) in [0, codebook_size)."""

    codebook_size: int

    @abstractmethod
    def codes(self, h: Tensor) -> Tensor:
        """(B, in_features, h, w) -> int64 (B, h, w)."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """int64 (B, h, w) -> (B, in_features, h, w)."""

    def mode(self, h: Tensor) -> Tensor:
        return h

    def quantize(self, z: Tensor) -> Tensor:
        return self.lookup(self.codes(z))

    def counts(self, codes: Tensor) -> Tensor:
        """How often each code occurs, (codebook_size,)."""
        flat = codes.flatten()
        ones = torch.ones(len(flat), device=flat.device)
        # Not bincount, which waits for the GPU.
        return torch.zeros(self.codebook_size, device=flat.device).index_add_(0, flat, ones)


class VectorQuantizer(Discrete):
    """z is the nearest vector of a codebook; the gradient skips the rounding.

    van den Oord et al. 2017 (arXiv:1711.00937). The penalty is the commitment term and, unless the
    codebook follows moving averages (`ema_decay` > 0, appendix A.1), the codebook term. A code used
    less than a tenth of the average is moved onto an encoder output of the batch.
    """

    codebook: Tensor
    ema_counts: Tensor
    ema_sums: Tensor

    def __init__(
        self, dim: int, codebook_size: int, commitment: float, ema_decay: float = 0.99
    ) -> None:
        super().__init__()
        self.in_features = dim
        self.codebook_size = codebook_size
        self.commitment = commitment
        self.ema_decay = ema_decay
        codebook = torch.randn(codebook_size, dim)
        if ema_decay:
            self.register_buffer("codebook", codebook)
            # One use each to start with: from zero, an unused code would be divided by nothing.
            self.register_buffer("ema_sums", codebook.clone())
        else:
            self.codebook = nn.Parameter(codebook)
        self.register_buffer("ema_counts", torch.ones(codebook_size))

    def codes(self, h: Tensor) -> Tensor:
        with torch.autocast(h.device.type, enabled=False):  # near ties need all of float32
            return F.nearest(h.movedim(1, -1), self.codebook.to(h.dtype))

    def lookup(self, codes: Tensor) -> Tensor:
        return nn.functional.embedding(codes, self.codebook).movedim(-1, 1)

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Latent:
        codes = self.codes(h)
        z_q = self.lookup(codes)
        commitment, codebook = F.commitment_term(h, z_q), F.codebook_term(h, z_q)
        penalty = self.commitment * commitment
        if not self.ema_decay:
            penalty = penalty + codebook
        z = F.straight_through(h, z_q)
        if self.training:  # the codebook is one, and follows what all processes see
            h, codes = everyones(h.detach()), everyones(codes)
        counts = self.counts(codes)
        if self.training:
            self.update(h, codes, counts, generator)
        metrics = {
            "commitment": commitment.mean(),
            "codebook": codebook.mean(),
            "perplexity": F.perplexity(counts),
        }
        return Latent(z, penalty, metrics)

    @torch.no_grad()
    def update(
        self, h: Tensor, codes: Tensor, counts: Tensor, generator: torch.Generator | None
    ) -> None:
        """After a batch: one step of the moving averages, and new places for unused codes."""
        vectors, flat = h.movedim(1, -1).flatten(0, -2), codes.flatten()
        decay = self.ema_decay or 0.99
        if self.ema_decay:
            sums = torch.zeros_like(self.codebook).index_add_(0, flat, vectors)
            new = F.ema_codebook(self.ema_counts, self.ema_sums, counts, sums, decay)
            for old, value in zip(
                (self.ema_counts, self.ema_sums, self.codebook), new, strict=True
            ):
                old.copy_(value)
        else:
            self.ema_counts.mul_(decay).add_(counts, alpha=1 - decay)
        self.revive(vectors, generator)

    def revive(self, vectors: Tensor, generator: torch.Generator | None) -> None:
        """Move codes that are hardly used onto random encoder outputs (N, dim)."""
        enough = 0.1 * self.ema_counts.mean()
        dead = self.ema_counts < enough
        u = F.uniform((self.codebook_size,), vectors, generator, rows=False)
        places = vectors[(u * len(vectors)).long().clamp(max=len(vectors) - 1)]
        self.codebook.copy_(torch.where(dead[:, None], places, self.codebook))
        self.ema_counts.copy_(torch.where(dead, enough, self.ema_counts))
        if self.ema_decay:
            sums = torch.where(dead[:, None], enough * places, self.ema_sums)
            self.ema_sums.copy_(sums)


class FiniteScalarQuantizer(Discrete):
    """Every channel rounded to a few levels; their combinations are the codes.

    There is no codebook to collapse, and no penalty. Mentzer et al. 2024 (arXiv:2309.15505).
    """

    levels: Tensor
    places: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.in_features = len(levels)
        # Constants, not weights: no file holds them, so none can hold others. On the CPU even when
        # a model is built without memory, because nothing will be loaded into them.
        constant = torch.tensor(levels, device="cpu")
        self.register_buffer("levels", constant, persistent=False)
        places = torch.tensor([1, *levels[:-1]], device="cpu").cumprod(0)
        self.register_buffer("places", places, persistent=False)
        self.codebook_size = math.prod(levels)

    def digits(self, h: Tensor) -> tuple[Tensor, Tensor]:
        z, index = F.round_to_levels(h.movedim(1, -1), self.levels)
        return z.movedim(-1, 1), index

    def codes(self, h: Tensor) -> Tensor:
        return (self.digits(h)[1] * self.places).sum(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        index = codes[..., None] // self.places % self.levels
        return F.level_values(index, self.levels).movedim(-1, 1)

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Latent:
        z, index = self.digits(h)
        codes = (index * self.places).sum(-1)
        return Latent(z, h.new_zeros(len(h)), {"perplexity": F.perplexity(self.counts(codes))})


def everyones(x: Tensor) -> Tensor:
    """The rows of all processes, (B·world, ...), in the order of the whole batch; see `F.Shard`."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, x.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)
