"""What a prior has to say for itself."""

import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Prior(nn.Module, ABC):
    """A distribution over latents: vectors (B, dim), or codes int64 (B, h, w).

    After the model, one with a share of the training is trained on −log p(z); one that is later and
    has none is fitted.

    Attributes:
        later: whether it is fitted or trained after the model only, and plays no part before.
        share: of a training, what its own part takes; 0 where it needs no steps of its own.
        samples: whether there is something to draw from.
        turns: whether its base may be turned towards factors that are known, and p stays as it is.
        letter, entry: what the numbers are called where ways between latents run, for the demo.
        words: what new images are, for the card: "draws of the prior p(z) = N(0, I)".
        fitted: of one that learns, whether it did; a buffer.
    """

    fitted: Tensor

    later: ClassVar[bool] = False
    share: ClassVar[float] = 0.0
    samples: ClassVar[bool] = True
    turns: ClassVar[bool] = False
    letter: ClassVar[str] = "z"
    entry: ClassVar[str] = "one latent"
    words: ClassVar[str] = "draws of its prior"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.later and not cls.share and cls.fit is Prior.fit:
            raise TypeError(
                f"{cls.__name__} comes after the model, but no training would reach it: give it a "
                "`share`, to train its parameters, or `fit`"
            )

    @classmethod
    @abstractmethod
    def of(cls, config: Any, shape: tuple[int, ...]) -> "Prior":
        """The prior of a config, over latents or codes (B, *shape)."""

    @property
    def work(self) -> int:
        """Multiplications that a draw takes, about: each number that it holds is used once."""
        held = self.state_dict().values()
        return sum(tensor.numel() for tensor in held if tensor.is_floating_point())

    @abstractmethod
    def nll(self, z: Tensor) -> Tensor:
        """−log p(z): (B, ...) -> (B,) in nats."""

    @abstractmethod
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """n draws. Temperature multiplies standard deviations or divides logits; 0: no chance."""

    def gaussian_kl(self, mu: Tensor, logvar: Tensor) -> Tensor | None:
        """KL(N(μ, σ²) ‖ p), (B,) in nats, where it has a closed form."""
        return None

    def to_base(self, z: Tensor) -> Tensor:
        """z where ways between latents run: a flow's base space, in which p is N(0, I)."""
        return z

    def from_base(self, u: Tensor) -> Tensor:
        """The z of a place on such a way."""
        return u

    def around(self, z: Tensor) -> "Prior":
        """The prior in whose base ways from latents z (N, ...) run: this one, where it knows them.

        What a map makes of latents unlike all that it learned from leads to no image.
        """
        return self

    def strays(self, z: Tensor) -> float:
        """What share of its draws lie far outside of latents z (N, ...), where there is no image.

        Where a density costs little of −log p(z), and yet draws what is broken.
        """
        return 0.0

    def in_base(self, posterior: Any) -> Any:
        """What q(z|x) becomes under `to_base`."""
        return posterior

    def note_training(self) -> None:
        """Called where one with parameters is scored: by train.py, or in a loop of one's own."""
        if self.training:
            self.fitted.fill_(True)

    def warn_unless_fitted(self) -> None:
        """Say so where what is drawn was learned from nothing yet."""
        if not self.fitted:
            warnings.warn(
                "this prior was fitted to no latents yet, so its draws are noise: "
                "model.prior.fit(z) fits a mixture, training on model.prior(z) the others, and "
                "train.py does it all",
                stacklevel=3,
            )

    def defect(self) -> str | None:
        """Why its tensors, all finite, are no distribution, in words; None if they are one."""
        return None

    def fit(self, z: Tensor, seed: int = 0) -> None:
        """Fit one that has no parameters to latents (N, ...), however few they are."""

    def turn(self, z: Tensor, factors: Tensor) -> None:
        """Lay the first axes of the base along what known factors (N, K) change in latents z.

        For one that `turns`, which leaves p as it is.
        """

    def forward(self, z: Tensor) -> Tensor:
        return self.nll(z)


class NoPrior(Prior):
    """What a new autoencoder has: nothing says where its codes lie."""

    samples = False
    words = "nothing: this model has no prior and cannot sample"

    @classmethod
    def of(cls, config: Any, shape: tuple[int, ...]) -> "NoPrior":
        return cls()

    def nll(self, z: Tensor) -> Tensor:
        raise ValueError("there is no prior over these latents, so they have no probability")

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        raise ValueError(
            "this model has no prior over its latents, so there is nothing to draw from: its "
            "latent space has gaps that decode to no image"
        )
