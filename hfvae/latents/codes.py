"""The VQ-VAE's latents: a grid of codes, each naming a vector that the decoder sees."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn

from .. import functional as F
from ..priors import Prior
from .base import Latents, Posterior, check_dim

PATCHWORK = 0.6  # of what codes cost one by one: a prior that charges more knows no whole images


@dataclass
class CodesPosterior(Posterior):
    """q(z|x) certain of its codes, so nothing is drawn and its entropy is zero.

    Attributes:
        h: what the encoder gave, (B, channels, h, w).
        codes: int64 (B, h, w).
        z: the vectors of the codes, through which gradients pass to h.
        terms: of the penalty, (B,) each, with their weights.
        perplexity: of the codes of this batch.
    """

    h: Tensor
    codes: Tensor
    z: Tensor
    perplexity: Tensor
    terms: dict[str, tuple[float, Tensor]] = field(default_factory=dict)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.z

    def mode(self) -> Tensor:
        return self.h

    def rate(self, z: Tensor, prior: Prior) -> Tensor:
        """−log p(codes); no gradient goes to the encoder, since codes are whole numbers."""
        return prior.nll(self.codes)

    def penalty(self) -> Tensor | float:
        return sum((weight * term for weight, term in self.terms.values() if weight), 0.0)

    def metrics(self, rate: Tensor) -> dict[str, Tensor]:
        terms = {name: term.mean() for name, (_, term) in self.terms.items()}
        return terms | {"perplexity": self.perplexity}

    def events(self, times: int = 1, generator: torch.Generator | None = None) -> Tensor:
        return self.codes  # certain: once says it all


class Codes(Latents):
    """A grid of codes: (B, in_features, h, w) <-> int64 (B, h, w) in [0, codebook_size)."""

    view = rows = "codes"
    codebook_size: int

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    @abstractmethod
    def codes(self, h: Tensor) -> Tensor:
        """(B, in_features, h, w) -> int64 (B, h, w)."""

    @abstractmethod
    def lookup(self, codes: Tensor, /) -> Tensor:
        """int64 (B, h, w) -> (B, in_features, h, w)."""

    def quantize(self, z: Tensor) -> Tensor:
        return self.lookup(self.codes(z))

    def replace(self, mode: Tensor, dim: int, values: Sequence[float] | Tensor) -> Tensor:
        """Of the code grid, the cell `dim`, counted row by row, set to each of the codes."""
        asked = torch.as_tensor(values)
        if (asked != asked.round()).any():
            raise ValueError("values must be codes, which are whole numbers")
        codes = self.codes(mode)
        check_dim(dim, codes[0].numel())
        codes = codes.repeat(len(values), 1, 1)
        codes.flatten(1)[:, dim] = asked.to(codes)
        self.check(codes)
        return self.lookup(codes)

    def check(self, codes: Tensor) -> None:
        """Raise unless codes are whole numbers (B, h, w) of the codebook."""
        if codes.is_floating_point():
            raise TypeError(f"codes are integers, not {codes.dtype}")
        if codes.shape[1:] != self.event_shape:
            raise ValueError(
                f"expected codes of shape (B, {', '.join(map(str, self.event_shape))}), "
                f"got {tuple(codes.shape)}"
            )
        if codes.numel() and not 0 <= codes.min() <= codes.max() < self.codebook_size:
            raise ValueError(f"codes must be from 0 to {self.codebook_size - 1}")

    def row(self, posterior: Posterior) -> Tensor:
        return posterior.events()

    def statistics(self, rows: Callable[[], Iterable[Tensor]]) -> dict[str, Tensor]:
        """How often each code occurs, int64 (codebook_size,)."""
        counts = torch.zeros(self.codebook_size, dtype=torch.int64)
        for some in rows():
            counts += torch.bincount(some.flatten(), minlength=self.codebook_size)
        return {"counts": counts}

    def tally(self, posterior: Posterior) -> Tensor:
        """How often each code occurs, (codebook_size,)."""
        return self.counts(posterior.events()).cpu()

    def summary(self, tallies: Sequence[Tensor], rate: Tensor | None = None) -> dict[str, Any]:
        counts = torch.stack(list(tallies)).sum(0)
        return {
            "perplexity": F.perplexity(counts).item(),
            "codebook_usage": (counts > 0).double().mean().item(),
        }

    def advice(self, results: dict[str, Any]) -> dict[str, str]:
        found, used = {}, results.get("perplexity", self.codebook_size)
        if used < self.codebook_size / 10:
            found["codes"] = (
                f"the codes are used like {used:.0f} of {self.codebook_size}: use a smaller "
                "--codebook_size, --model fsq-vae, or more --max_train_minutes"
            )
        if "elbo" in results:
            rate = -results["elbo"] - results["reconstruction"]
            apart = math.prod(self.event_shape) * math.log(used)
            if rate > PATCHWORK * apart:
                found["prior"] = (
                    f"its prior has hardly begun: the codes of an image cost {rate:.0f} nats under "
                    f"it, and {apart:.0f} if each came without regard to the others, so new images "
                    "will be patchwork; give it more --max_train_minutes or a larger "
                    "--prior_fraction"
                )
        return found

    def counts(self, codes: Tensor) -> Tensor:
        """How often each code occurs, (codebook_size,)."""
        flat = codes.flatten()
        ones = torch.ones(len(flat), device=flat.device)
        # Not bincount, which waits for the GPU.
        return torch.zeros(self.codebook_size, device=flat.device).index_add_(0, flat, ones)


class VectorQuantizer(Codes):
    """z is the nearest vector of a codebook; the gradient skips the rounding.

    van den Oord et al. 2017 (arXiv:1711.00937). The penalty is the commitment term and, unless the
    codebook follows moving averages (`ema_decay` > 0, appendix A.1), the codebook term. A code used
    less than a tenth of the average is moved onto an encoder output of the batch.
    """

    codebook: Tensor
    ema_counts: Tensor
    ema_sums: Tensor

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        codebook_size: int,
        commitment: float,
        ema_decay: float = 0.99,
    ) -> None:
        super().__init__()
        self.in_features = dim
        self.shape = (dim, *grid)
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

    def lookup(self, codes: Tensor, /) -> Tensor:
        return nn.functional.embedding(codes, self.codebook).movedim(-1, 1)

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Posterior:
        codes = self.codes(h)
        z_q = self.lookup(codes)
        terms = {
            "commitment": (self.commitment, F.commitment_term(h, z_q)),
            "codebook": (0.0 if self.ema_decay else 1.0, F.codebook_term(h, z_q)),
        }
        z = F.straight_through(h, z_q)
        seen, of_all = h, codes
        if self.training:  # the codebook is one, and follows what all processes see
            seen, of_all = all_gather(h.detach()), all_gather(codes)
        counts = self.counts(of_all)
        if self.training:
            self.update(seen, of_all, counts, generator)
        return CodesPosterior(h, codes, z, F.perplexity(counts), terms)

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


class FiniteScalarQuantizer(Codes):
    """Every channel rounded to a few levels; their combinations are the codes.

    There is no codebook to collapse, and no penalty. Mentzer et al. 2024 (arXiv:2309.15505).
    """

    levels: Tensor
    places: Tensor

    def __init__(self, levels: tuple[int, ...], grid: tuple[int, int]) -> None:
        super().__init__()
        self.in_features = len(levels)
        self.shape = (len(levels), *grid)
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

    def lookup(self, codes: Tensor, /) -> Tensor:
        index = codes[..., None] // self.places % self.levels
        return F.level_values(index, self.levels).movedim(-1, 1)

    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Posterior:
        z, index = self.digits(h)
        codes = (index * self.places).sum(-1)
        return CodesPosterior(h, codes, z, F.perplexity(self.counts(codes)))


def all_gather(x: Tensor) -> Tensor:
    """The rows of all processes, (B·world, ...), in the order of the whole batch; see `F.Shard`."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, x.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)
