"""A prior that is fitted to where latents are."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from .. import functional as F
from .base import Prior

MATRICES = 2**24  # numbers in the matrices of draws made at once


class GaussianMixture(Prior):
    """p(z) = Σ_k π_k N(m_k, L_k L_kᵀ), fitted to latents after training; N(0, I) until then.

    What gives a plain autoencoder something to draw from (Ghosh et al. 2020, arXiv:1903.12436).
    """

    later = True
    words = "draws of the Gaussian mixture that was fitted to its latents"

    weights: Tensor
    means: Tensor
    cholesky: Tensor

    def __init__(self, components: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("weights", torch.full((components,), 1 / components))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("cholesky", torch.zeros(components, dim, dim))
        self.cholesky.diagonal(dim1=1, dim2=2).fill_(1)

    @classmethod
    def of(cls, config: Any, shape: tuple[int, ...]) -> "GaussianMixture":
        return cls(config.prior_components, *shape)

    def fit(self, z: Tensor, seed: int = 0) -> None:
        """Expectation maximization by scikit-learn on latents (N, dim), N components or more."""
        from sklearn.mixture import GaussianMixture as Fit

        floor = max(1e-4 * float(z.var()), 1e-6)
        fit = Fit(len(self.weights), random_state=seed, reg_covar=floor)
        fit.fit(z.cpu().double().numpy())
        self.weights.copy_(torch.from_numpy(fit.weights_))
        self.means.copy_(torch.from_numpy(fit.means_))
        self.cholesky.copy_(torch.linalg.cholesky(torch.from_numpy(fit.covariances_)))
        self.fitted.fill_(True)

    def defect(self) -> str | None:
        if (self.weights < 0).any() or not self.weights.any():
            return "its weights must be 0 or more, and some of them more"
        for factor in self.cholesky:  # one by one, to take no memory for a second copy
            if factor.triu(1).any() or not (factor.diagonal() > 0).all():
                return "its Cholesky factors must be lower triangles with a positive diagonal"
        return None

    def nll(self, z: Tensor) -> Tensor:
        # In float32 whatever is stored: triangular solves know no half precision.
        weights, means, cholesky = (t.float() for t in (self.weights, self.means, self.cholesky))
        normals = MultivariateNormal(means, scale_tril=cholesky, validate_args=False)
        mixture = MixtureSameFamily(Categorical(weights), normals, validate_args=False)
        return -mixture.log_prob(z.float())

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        self.warn_unless_fitted()
        u = F.uniform((n, 1), self.means, generator)
        eps = F.noise((n, self.means.shape[1]), self.means, generator)
        component = F.inverse_cdf(self.weights.float(), u)[:, 0]
        if temperature == 0:
            component = self.nll(self.means).argmin().expand(n)
        # A few draws at a time: each has a matrix of its own.
        few = max(1, MATRICES // self.cholesky[0].numel())
        spread = torch.cat(
            [
                torch.einsum("nij,nj->ni", self.cholesky[c].float(), e)
                for c, e in zip(component.split(few), eps.split(few), strict=True)
            ]
        )
        return self.means[component] + temperature * spread
