"""A prior that is learned together with the model: N(0, I) carried through an invertible map."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional as F
from .base import Prior
from .normal import StandardNormal

UNKNOWN = 8  # times as far out as draws of N(0, I): held-out avatars lie within two
DRAWS = 16  # of a posterior, to tell what the flow makes of it
TRIED, OUTSIDE = 1000, 1.5  # draws, and times as far out as the farthest latent


class Linear(nn.Linear):
    """In float32, whatever is stored: half precision is for the networks, densities need more."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.float(), self.bias.float())


class Coupling(nn.Module):
    """z = (a, b) -> u = (a, b · e^{s(a)} + t(a)): a step of the map from z to its base.

    Dinh et al. 2017 (arXiv:1605.08803), eq. 7. A new one changes nothing.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        kept = dim // 2
        self.sizes = kept, dim - kept
        last = Linear(width, 2 * (dim - kept))
        self.net = nn.Sequential(
            Linear(kept, width), nn.SiLU(), Linear(width, width), nn.SiLU(), last
        )
        if not last.weight.is_meta:  # where a model is built to be loaded
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim) -> u (B, dim) and log |∂u/∂z|, (B,) in nats."""
        a, b = z.split(self.sizes, dim=1)
        b, log_det = F.affine_coupling(b, *self.terms(a))
        return torch.cat([a, b], dim=1), log_det

    def inverse(self, u: Tensor) -> Tensor:
        """(B, dim) -> z (B, dim)."""
        a, b = u.split(self.sizes, dim=1)
        return torch.cat([a, F.inverse_affine_coupling(b, *self.terms(a))], dim=1)

    def terms(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """t(a) and s(a)."""
        shift, scale = self.net(a).chunk(2, dim=1)
        return shift, F.bounded(scale)


class Around(StandardNormal):
    """The prior around what a flow does not know: its base is z itself."""

    entry = "one latent: in its flow's base space, the model knows nothing like this picture"


class Flow(Prior):
    """p(z) = N(f(z); 0, I) · |∂f/∂z| for an invertible f, learned with the model.

    f is couplings, each after a linear map of all of z (Kingma & Dhariwal 2018, arXiv:1807.03039,
    section 3.2). As a VAE's prior: Xu et al. 2019 (arXiv:1905.13452). A new one is N(0, I): it only
    rotates.

    N(0, I) looks the same from all sides. So nothing in images tells what the axes of the base mean
    (Locatello et al. 2019, arXiv:1811.12359, theorem 1), and they may be turned, at no cost, to
    mean what factors that are known say: f ends with these `axes`, (dim, dim).
    """

    share = 0.25
    turns = True
    letter = "u"
    entry = "one number in the base space of the flow, from one likely image to another"
    words = "draws of its flow prior: N(0, I) carried through a learned invertible map"

    axes: Tensor

    def __init__(self, dim: int, layers: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.maps = nn.Parameter(torch.empty(layers, dim, dim))  # z @ map, one for each coupling
        if not self.maps.is_meta:
            for linear in self.maps:
                nn.init.orthogonal_(linear)
        self.layers: Any = nn.ModuleList(Coupling(dim, width) for _ in range(layers))
        self.register_buffer("axes", torch.eye(dim))
        self.register_buffer("fitted", torch.tensor(False))

    @classmethod
    def of(cls, config: Any, shape: tuple[int, ...]) -> "Flow":
        return cls(*shape, config.prior_layers, config.prior_width)

    @property
    def work(self) -> int:
        """Its linear maps are inverted, which takes the cube of their size."""
        return super().work + (len(self.layers) + 1) * self.dim**3

    def defect(self) -> str | None:
        if not self.log_volume().isfinite():
            return "a linear map of the flow has no inverse"
        return None

    def log_volume(self) -> Tensor:
        """log |det| of all linear maps together."""
        # With the axes: once they are stored in half precision, they do not only turn.
        return torch.linalg.slogdet(torch.cat([self.maps, self.axes[None]]).float())[1].sum()

    def nll(self, z: Tensor) -> Tensor:
        self.note_training()
        u, log_det = self.carried(z)
        return F.standard_normal_nll(u) - log_det

    def carried(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """f(z) and log |∂f/∂z|: (B, dim) -> (B, dim), (B,) in nats."""
        with torch.autocast(z.device.type, enabled=False):
            u, log_det = z.float(), self.log_volume()
            for linear, layer in zip(self.maps.float(), self.layers, strict=True):
                u, change = layer(u @ linear)
                log_det = log_det + change
            return u @ self.axes.float(), log_det

    def to_base(self, z: Tensor) -> Tensor:
        return self.carried(z)[0]

    def from_base(self, u: Tensor) -> Tensor:
        with torch.autocast(u.device.type, enabled=False):
            inverses = torch.linalg.inv(F.exact(self.maps))
            u, axes = u.float(), torch.linalg.inv(F.exact(self.axes))
            u = (F.exact(u) @ axes).to(u)
            for inverse, layer in zip(reversed(inverses), reversed(self.layers), strict=True):
                u = (F.exact(layer.inverse(u)) @ inverse).to(u)
            return u

    @torch.no_grad()
    def around(self, z: Tensor) -> Prior:
        length = self.to_base(z).norm(dim=1).max()
        return self if length <= UNKNOWN * self.dim**0.5 else Around(self.dim)

    @torch.no_grad()
    def strays(self, z: Tensor) -> float:
        u = F.noise((TRIED, self.dim), z, torch.Generator().manual_seed(0))
        inside = self.from_base(u).norm(dim=1) <= OUTSIDE * z.norm(dim=1).max()  # NaN is not
        return 1 - inside.float().mean().item()

    @torch.no_grad()
    def turn(self, z: Tensor, factors: Tensor) -> None:
        self.axes.copy_(self.axes.float() @ F.factor_axes(self.to_base(z), factors))

    @torch.no_grad()
    def in_base(self, posterior: Any) -> Any:
        """The Gaussian with the mean and variance of what its draws become."""
        draws = posterior.events(DRAWS, torch.Generator().manual_seed(0))
        u = self.to_base(draws).view(DRAWS, -1, self.dim)
        return dataclasses.replace(posterior, mu=u.mean(0), logvar=u.var(0).log())

    @torch.no_grad()
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        self.warn_unless_fitted()
        return self.from_base(temperature * F.noise((n, self.dim), self.fitted, generator))
