"""p(z): what latents cost before an image is seen, and where new images come from."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from . import functional as F


class Prior(nn.Module, ABC):
    """A distribution over what the decoder takes."""

    @abstractmethod
    def nll(self, z: Tensor) -> Tensor:
        """−log p(z): (B, ...) -> (B,) in nats."""

    @abstractmethod
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """n draws; temperature 0 is the mode."""


class StandardNormal(Prior):
    """p(z) = N(0, I). Temperature multiplies the standard deviation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def nll(self, z: Tensor) -> Tensor:
        return F.standard_normal_nll(z)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        device = generator.device if generator is not None else None
        return temperature * torch.randn(n, self.dim, generator=generator, device=device)
