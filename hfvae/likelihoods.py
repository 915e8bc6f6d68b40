"""p(x|z): what the decoder's numbers say about pixels in [0, 1].

The decoder gives `params` numbers per channel and pixel. A likelihood turns them into log p(x|z),
summed over the image in nats; into the mean image; into a draw.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from . import functional as F


class Likelihood(nn.Module, ABC):
    """p(x|z). `params` is how many numbers per channel and pixel the decoder must give."""

    params: int = 1
    levels: int | None = None  # 8-bit levels that a density must be rescaled by for bits/dim
    guess: int = 8  # bits/dim of guessing every pixel
    seen: str = ""  # what becomes of grey pixels before they are scored, in words

    @abstractmethod
    def nll(self, x: Tensor, params: Tensor) -> Tensor:
        """−log p(x|z): (B, C, H, W), (B, params·C, H, W) -> (B,) in nats."""

    @abstractmethod
    def mean(self, params: Tensor) -> Tensor:
        """E[x|z]: (B, params·C, H, W) -> (B, C, H, W) in [0, 1]."""

    @abstractmethod
    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """x ~ p(x|z): (B, params·C, H, W) -> (B, C, H, W) in [0, 1]."""

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """8-bit pixels k/255 as the kind of data that this likelihood is a distribution over."""
        return x

    def nearest(self, x: Tensor) -> Tensor:
        """Pixels as the likeliest of that kind, without chance: the same picture each time."""
        return x

    def check(self, x: Tensor) -> None:
        """Raise ValueError where log p(x) would mean nothing for these pixels."""

    def advice(self) -> dict[str, str]:
        """What is wrong with what was learned and what to change, in words."""
        return {}

    def bits_per_dim(self, nll: float, dims: int) -> float:
        """Bits per pixel and channel of 8-bit data, for a mean −log p(x) in nats."""
        bits = F.bits_per_dim(nll, dims)
        return float(bits) + (math.log2(self.levels) if self.levels else 0.0)


class Bernoulli(Likelihood):
    """Pixels that are 0 or 1. Grey ones are binarized first: drawn with their value as chance."""

    guess = 1
    seen = "binarized"

    def nll(self, x: Tensor, params: Tensor) -> Tensor:
        return F.bernoulli_nll(x, params)

    def mean(self, params: Tensor) -> Tensor:
        return torch.sigmoid(params)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return (F.uniform(params.shape, params, generator) < torch.sigmoid(params)).to(params.dtype)

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return (F.uniform(x.shape, x, generator) < x).to(x.dtype)

    def nearest(self, x: Tensor) -> Tensor:
        return (x > 0.5).to(x.dtype)

    def check(self, x: Tensor) -> None:
        if not ((x == 0) | (x == 1)).all():
            raise ValueError(
                "a Bernoulli likelihood is over pixels that are 0 or 1, and these are grey: "
                "binarize them first, for example with (x > 0.5).float()"
            )


class Scaled(Likelihood):
    """A location for every pixel, and one log-scale per channel that all images share.

    Learning the scale balances reconstruction and KL without a hand-set weight (Rybkin et al. 2021,
    arXiv:2006.13202). Its floor keeps noise-free pixels from driving it to zero.

    Attributes:
        pace: of learning, in those of the networks. One number that all pixels share has a long way
            to go, at a step of the learning rate each time, and lags behind the images until then.
    """

    pace = 10.0

    def __init__(self, channels: int, floor: float, scale: float | None) -> None:
        super().__init__()
        self.log_floor = math.log(floor)
        self.fixed = None if scale is None else math.log(scale)
        if self.fixed is None:
            start = math.log(0.1) - self.log_floor
            self.raw_scale = nn.Parameter(torch.full((channels, 1, 1), start))

    def log_scale(self, params: Tensor) -> Tensor:
        """log of the scale, broadcastable against `params`."""
        if self.fixed is not None:
            return torch.full((), self.fixed, dtype=params.dtype, device=params.device)
        # In the precision of params, which is float32 at least: exp of this overflows in half.
        return self.log_floor + nn.functional.softplus(self.raw_scale.to(params.dtype))

    def advice(self) -> dict[str, str]:
        if self.fixed is not None or (self.log_scale(self.raw_scale) - self.log_floor).max() >= 0.1:
            return {}
        return {
            "scale": "the likelihood's scale has shrunk to its floor: pixels are fitted all but "
            "exactly and the KL weighs next to nothing; --model beta-vae fixes the scale"
        }


class Gaussian(Scaled):
    """A density on uniformly dequantized pixels (k + u) / 256, u ~ U[0, 1)."""

    levels = 256

    def __init__(self, channels: int, scale: float | None = None) -> None:
        # Below the spread of the dequantization noise itself there is nothing to gain.
        super().__init__(channels, floor=1 / (256 * math.sqrt(12)), scale=scale)

    def nll(self, x: Tensor, params: Tensor) -> Tensor:
        return F.gaussian_nll(x, params, 2 * self.log_scale(params))

    def mean(self, params: Tensor) -> Tensor:
        return params.clamp(0, 1)

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        eps = F.noise(params.shape, params, generator)
        return (params + torch.exp(self.log_scale(params)) * eps).clamp(0, 1)

    def observe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        u = F.uniform(x.shape, x, generator)
        return ((torch.round(x * 255) + u) / 256).to(x.dtype)


class DiscretizedLogistic(Scaled):
    """Probabilities of the 256 levels k/255; the default for 8-bit images."""

    def __init__(self, channels: int, scale: float | None = None) -> None:
        # At a tenth of a level all of the mass is already on one level.
        super().__init__(channels, floor=0.1 / 255, scale=scale)

    def nll(self, x: Tensor, params: Tensor) -> Tensor:
        return F.discretized_logistic_nll(x, params, self.log_scale(params))

    def mean(self, params: Tensor) -> Tensor:
        return F.clipped_logistic_mean(params, self.log_scale(params))

    def sample(self, params: Tensor, generator: torch.Generator | None = None) -> Tensor:
        u = F.uniform(params.shape, params, generator).clamp(1e-6, 1 - 1e-6)
        x = params + torch.exp(self.log_scale(params)) * torch.logit(u)
        return torch.round(x.clamp(0, 1) * 255) / 255


def make_likelihood(name: str, channels: int, scale: float | None) -> Likelihood:
    """The likelihood that a config names."""
    if name == "bernoulli":
        return Bernoulli()
    return {"gaussian": Gaussian, "discretized-logistic": DiscretizedLogistic}[name](
        channels, scale
    )
