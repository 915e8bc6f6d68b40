"""Sets of images that are drawn rather than read, and have known factors."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .base import DataError, Size
from .records import DEFAULT_SIZE, Records


class Drawn(Records, ABC):
    """Members of a set, each of which has a number that decides its factors; at one size.

    And any combination of the set's factors, on demand.

    Attributes:
        name: of the set.
        values: its factors, and what stands for the values of each, which are counted from 0.
        counts: how many values each factor takes.
        population: how many members it has.
        numbers: int64 (N,), of the members that are here.
    """

    name: str
    values: Mapping[str, Sequence]
    counts: tuple[int, ...]
    population: int
    numbers: Tensor = torch.arange(0)
    identity: str | None = None
    whole = False

    def __init__(self, size: Size | None = None, channels: int | None = None) -> None:
        self.size, self.channels = size or DEFAULT_SIZE, channels or 3
        if self.channels not in (1, 3, 4):
            raise DataError(f"{self.name} come in 1, 3 or 4 channels, not {channels}")
        self.drawn = self

    @abstractmethod
    def factors_of(self, numbers: Tensor) -> Tensor:
        """Those of members: int64 (n,) -> (n, K)."""

    @abstractmethod
    def draw(self, factors: Tensor) -> Tensor:
        """The images of a few combinations: int64 (n, K) -> uint8 (n, C, H, W), antialiased."""

    def draw_factors(self, n: int, generator: torch.Generator) -> Tensor:
        """Those of n members at random: int64 (n, K)."""
        return self.factors_of(torch.randint(self.population, (n,), generator=generator))

    def images(self, factors: Tensor) -> Tensor:
        """float (n, C, H, W) in [0, 1] of any combinations (n, K); ValueError for none such."""
        counts = torch.tensor(self.counts)
        fits = factors.ndim == 2 and factors.shape[1] == len(counts)
        if not fits or ((factors < 0) | (factors >= counts)).any():
            raise ValueError(
                f"factors are (n, {len(counts)}), counted from 0 up to below {counts.tolist()}"
            )
        return torch.cat([self.draw(some).float() / 255 for some in factors.split(256)])

    def __len__(self) -> int:
        return len(self.numbers)

    def fitting(self) -> tuple[Size, int]:
        return self.size, self.channels

    def some(self, chosen: Sequence[int]) -> "Drawn":
        self.numbers = self.numbers[list(chosen)]
        return self

    def decoded(self, size: Size, channels: int) -> Iterator[np.ndarray]:
        for some in self.numbers.split(256):
            yield from self.draw(self.factors_of(some)).numpy()

    def factors(self) -> Tensor:
        return self.factors_of(self.numbers)
