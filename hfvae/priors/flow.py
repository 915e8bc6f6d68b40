"""A prior that is learned together with the model: N(0, I) carried through an invertible map."""

from typing import Any

import torch
from torch import Tensor, nn

from .. import functional as F
from .base import Prior


class Coupling(nn.Module):
    """(a, b) = z W, then u = (a, b · e^{s(a)} + t(a)): a step of the map from z to its base.

    Dinh et al. 2017 (arXiv:1605.08803), eq. 7; W as in Kingma & Dhariwal 2018 (arXiv:1807.03039),
    section 3.2. A new one only rotates. Everything is float32, whatever is stored: half precision
    is for the networks, and densities need more.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        kept = dim // 2
        self.sizes = kept, dim - kept
        self.mix = nn.Parameter(torch.empty(dim, dim))
        self.net = nn.Sequential(
            nn.Linear(kept, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2 * (dim - kept)),
        )  # fmt: skip
        if not self.mix.is_meta:  # where a model is built to be loaded
            nn.init.orthogonal_(self.mix)
            last: Any = self.net[-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(B, dim) -> u (B, dim) and log |∂u/∂z|, (B,) in nats."""
        a, b = (z @ self.mix.float()).split(self.sizes, dim=1)
        shift, log_scale = self.terms(a)
        u, log_det = F.affine_coupling(b, shift, log_scale)
        return torch.cat([a, u], dim=1), log_det + torch.linalg.slogdet(self.mix.float())[1]

    def inverse(self, u: Tensor) -> Tensor:
        """(B, dim) -> z (B, dim)."""
        a, b = u.split(self.sizes, dim=1)
        z = torch.cat([a, F.inverse_affine_coupling(b, *self.terms(a))], dim=1)
        return torch.linalg.solve(self.mix.double(), z.double(), left=False).float()

    def terms(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """t(a) and s(a)."""
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                a = nn.functional.linear(a, layer.weight.float(), layer.bias.float())
            else:
                a = layer(a)
        shift, scale = a.chunk(2, dim=1)
        return shift, F.bounded(scale)


class Flow(Prior):
    """p(z) = N(f(z); 0, I) · |∂f/∂z| for an invertible f, learned with the model.

    As a VAE's prior: Xu et al. 2019 (arXiv:1905.13452). A new one is N(0, I).
    """

    words = "draws of its flow prior: N(0, I) carried through a learned invertible map"

    fitted: Tensor

    def __init__(self, dim: int, layers: int, width: int) -> None:
        super().__init__()
        self.dim = dim
        self.layers: Any = nn.ModuleList(Coupling(dim, width) for _ in range(layers))
        self.register_buffer("fitted", torch.tensor(False))

    @classmethod
    def of(cls, config: Any, shape: tuple[int, ...]) -> "Flow":
        return cls(*shape, config.prior_layers, config.prior_width)

    @property
    def work(self) -> int:
        """Its linear maps are solved, which takes the cube of their size."""
        return super().work + len(self.layers) * self.dim**3

    def defect(self) -> str | None:
        maps = torch.stack([layer.mix.float() for layer in self.layers])
        if not torch.linalg.slogdet(maps)[1].isfinite().all():
            return "a linear map of the flow has no inverse"
        return None

    def nll(self, z: Tensor) -> Tensor:
        if self.training:  # by train.py or in a loop of one's own
            self.fitted.fill_(True)
        with torch.autocast(z.device.type, enabled=False):
            u, log_det = z.float(), torch.zeros(len(z), device=z.device)
            for layer in self.layers:
                u, change = layer(u)
                log_det = log_det + change
        return F.standard_normal_nll(u) - log_det

    def to_base(self, z: Tensor) -> Tensor:
        u = z.float()
        for layer in self.layers:
            u, _ = layer(u)
        return u

    def from_base(self, u: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            u = layer.inverse(u)
        return u

    @torch.no_grad()
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        self.warn_unless_fitted()
        return self.from_base(temperature * F.noise((n, self.dim), self.fitted, generator))
