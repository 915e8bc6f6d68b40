"""What a kind of latent has to say for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .. import functional as F
from ..priors import Prior


class Posterior(ABC):
    """q(z|x) of a batch of images."""

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z ~ q(z|x) for the decoder, (B, ...); gradients flow through it to the encoder."""

    @abstractmethod
    def mode(self) -> Tensor:
        """z without noise and before any rounding, (B, ...): where ways between images run."""

    @abstractmethod
    def rate(self, z: Tensor, prior: Prior) -> Tensor:
        """What z costs under a prior, log q(z|x) − log p(z), (B,) in nats; its mean is the KL.

        In closed form where there is one.
        """

    def penalty(self) -> Tensor | float:
        """(B,) in nats: what training adds that is no part of the bound."""
        return 0.0

    def metrics(self, rate: Tensor) -> dict[str, Tensor]:
        """Means over the batch to report, in nats but for `perplexity`."""
        return {}

    @abstractmethod
    def events(self, times: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """What a prior is over, (times·B, ...): so many draws from each posterior."""

    def kept(self) -> Tensor:
        """What `Latents.drawn` draws events from later, (B, ...): by default one draw."""
        return self.events()


class Axes(NamedTuple):
    """The latents of a vector that are worth showing, the most telling first.

    Attributes:
        dims: which they are.
        weights: what each carries, in `unit`.
        unit: "nats" or "variance".
    """

    dims: list[int]
    weights: list[float]
    unit: str


class Latents(nn.Module, ABC):
    """Takes (B, in_features[, h, w]) from the encoder, and gives the decoder (B, *shape).

    Attributes:
        in_features: how many numbers the encoder gives, at each place of a grid.
        shape: of one z as the decoder takes it: (dim,), or (channels, h, w) for a grid.
        event_shape: of what a prior is over.
        random: whether q(z|x) and a prior make an evidence lower bound.
        rows: what a file of them is called: "latents", or "codes".
        density: whether q(z|x) has one, so that draws of it can be weighed by importance.
        weighed: how many draws are, unless told otherwise: so few of thousands of latents would
            tell no more than the ELBO.
        view: how the demo shows z: as a "vector" of numbers, or as a "grid" of them or of "codes".
    """

    in_features: int
    shape: tuple[int, ...]
    random: ClassVar[bool] = True
    density: ClassVar[bool] = False
    rows: ClassVar[str] = "latents"
    weighed: int = 10
    view: str = "vector"

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.shape

    @abstractmethod
    def forward(self, h: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """h -> q(z|x). In training, a codebook follows what it sees."""

    def quantize(self, z: Tensor) -> Tensor:
        """The nearest latent that the decoder takes; any will do where latents are continuous."""
        return z

    def drawn(self, kept: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One event of each posterior, (B, ...), from what was `kept` of it."""
        return kept

    def lookup(self, events: Tensor, /) -> Tensor:
        """What a prior drew -> z for the decoder."""
        return events

    def replace(self, mode: Tensor, dim: int, values: Sequence[float] | Tensor) -> Tensor:
        """One image's z with its entry `dim` replaced by each of `values`.

        Args:
            mode: (1, ...), as `Posterior.mode` gives it.
            dim: which entry of z, counted channel by channel and row by row.
            values: what it is set to.

        Raises:
            ValueError: there is no such entry, or it takes no such value.
        """
        z = mode.repeat(len(values), *[1] * (mode.ndim - 1))
        flat = z.flatten(1)
        check_dim(dim, flat.shape[1])
        flat[:, dim] = torch.as_tensor(values).to(z)
        return flat.view_as(z)

    # What a whole set of latents says

    def row(self, posterior: Posterior) -> Tensor:
        """What `python -m hfvae.encode` writes of each image, (B, ...)."""
        return posterior.mode()

    def statistics(self, rows: Callable[[], Iterable[Tensor]]) -> dict[str, Tensor]:
        """What it writes of all: the mean and standard deviation of each entry of z, (...).

        And of each channel of a grid, (C,), by which its latents are scaled for a next model.

        Args:
            rows: reads them anew, a few at a time.
        """
        n, mean, squares = 0, torch.zeros(()), torch.zeros(())
        for some in rows():
            n, mean = n + len(some), mean + F.exact(some).sum(0)
        mean = mean / n
        for some in rows():
            squares = squares + (some - mean).square().sum(0)
        found = {"mean": mean, "std": (squares / max(1, n - 1)).sqrt()}
        if mean.ndim > 1:
            channel, cells = mean.flatten(1).mean(1), mean[0].numel()
            apart = (mean.flatten(1) - channel[:, None]).square().sum(1)
            spread = (squares.flatten(1).sum(1) + n * apart) / max(1, n * cells - 1)
            found |= {"channel_mean": channel, "channel_std": spread.sqrt()}
        return {name: values.float() for name, values in found.items()}

    def tally(self, posterior: Posterior) -> Tensor:
        """What a batch adds to what `summary` needs, (..., ...) on the CPU."""
        return posterior.mode().cpu()

    def summary(self, tallies: Sequence[Tensor], rate: Tensor | None = None) -> dict[str, Any]:
        """What the latents of a set say, by the names of evaluation.json.

        Args:
            tallies: of its batches.
            rate: (N,) of its images, where that is known.
        """
        return {}

    def advice(self, results: dict[str, Any]) -> dict[str, str]:
        """What is wrong with these latents and what to change, in words, by what it is about.

        Args:
            results: the names of evaluation.json, or as many of them as are known.
        """
        return {}

    def axes(self, posterior: Posterior) -> Axes:
        """The latents, those first that differ most between the images of a posterior."""
        return ranked(posterior.mode().flatten(1).var(0), "variance")


def ranked(weights: Tensor, unit: str) -> Axes:
    """All entries, the largest weights first."""
    found = weights.sort(descending=True, stable=True)
    return Axes(found.indices.tolist(), found.values.tolist(), unit)


def check_dim(dim: int, count: int) -> None:
    if not 0 <= dim < count:
        raise ValueError(f"dim must be from 0 to {count - 1}, not {dim}")
