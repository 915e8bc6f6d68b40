"""p(z): what latents cost before an image is seen, and where new images come from."""

import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from . import functional as F


class Prior(nn.Module, ABC):
    """A distribution over latents: vectors (B, dim), or codes int64 (B, h, w)."""

    @abstractmethod
    def nll(self, z: Tensor) -> Tensor:
        """−log p(z): (B, ...) -> (B,) in nats."""

    @abstractmethod
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """n draws. Temperature multiplies standard deviations or divides logits; 0 is the mode."""

    def forward(self, z: Tensor) -> Tensor:
        return self.nll(z)


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def nll(self, z: Tensor) -> Tensor:
        return F.standard_normal_nll(z)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        return temperature * F.noise((n, self.dim), torch.empty(0), generator)


class GaussianMixture(Prior):
    """p(z) = Σ_k π_k N(m_k, L_k L_kᵀ), fitted to latents after training; N(0, I) until then.

    What gives a plain autoencoder something to draw from (Ghosh et al. 2020, arXiv:1903.12436).
    """

    weights: Tensor
    means: Tensor
    cholesky: Tensor
    fitted: Tensor

    def __init__(self, components: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("weights", torch.full((components,), 1 / components))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("cholesky", torch.zeros(components, dim, dim))
        self.cholesky.diagonal(dim1=1, dim2=2).fill_(1)

    def fit(self, z: Tensor, seed: int = 0) -> None:
        """Expectation maximization by scikit-learn on latents (N, dim)."""
        from sklearn.mixture import GaussianMixture as Fit

        floor = max(1e-4 * float(z.var()), 1e-6)
        fit = Fit(len(self.weights), random_state=seed, reg_covar=floor)
        fit.fit(z.cpu().double().numpy())
        self.weights.copy_(torch.from_numpy(fit.weights_))
        self.means.copy_(torch.from_numpy(fit.means_))
        self.cholesky.copy_(torch.linalg.cholesky(torch.from_numpy(fit.covariances_)))
        self.fitted.fill_(True)

    def nll(self, z: Tensor) -> Tensor:
        # In float32 whatever is stored: triangular solves know no half precision.
        weights, means, cholesky = (t.float() for t in (self.weights, self.means, self.cholesky))
        normals = MultivariateNormal(means, scale_tril=cholesky, validate_args=False)
        mixture = MixtureSameFamily(Categorical(weights), normals, validate_args=False)
        return -mixture.log_prob(z.float())

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        if not self.fitted:
            warnings.warn(
                "this mixture was fitted to no latents yet, so its draws are those of N(0, I): "
                "model.prior.fit(z) fits it, and train.py does so",
                stacklevel=2,
            )
        u = F.uniform((n, 1), self.means, generator)
        eps = F.noise((n, self.means.shape[1]), self.means, generator)
        component = _inverse_cdf(self.weights.float(), u)[:, 0]
        if temperature == 0:
            component = self.nll(self.means).argmin().expand(n)
        spread = torch.einsum("nij,nj->ni", self.cholesky[component].float(), eps)
        return self.means[component] + temperature * spread


class Uniform(Prior):
    """Every grid of codes alike: T·log K nats. What a VQ-VAE is trained with."""

    def __init__(self, codebook_size: int, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.grid = grid

    def nll(self, z: Tensor) -> Tensor:
        return F.uniform_codes_nll(z, self.codebook_size)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        u = F.uniform((n, *self.grid), torch.empty(0), generator)
        codes = (u.double() * self.codebook_size).long()
        return codes if temperature else torch.zeros_like(codes)  # all are modes: take the first


class Autoregressive(Prior):
    """p(codes) = Π_t p(code_t | codes before it), a causal transformer in row-major order.

    The second stage of van den Oord et al. 2017, section 4.2, with attention for their PixelCNN.
    """

    def __init__(self, codebook_size: int, grid: tuple[int, ...], width: int, layers: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.grid = grid
        length = grid[0] * grid[1]
        self.start = nn.Parameter(torch.zeros(1, 1, width))
        embedding = torch.randn(codebook_size, width)
        self.embedding = nn.Embedding.from_pretrained(embedding, freeze=False)
        self.position = nn.Parameter(torch.randn(1, length, width).mul_(0.02))
        self.layers: Any = nn.ModuleList(TransformerLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, codebook_size)

    def logits(self, codes: Tensor) -> Tensor:
        """int64 (B, T) -> (B, T, K): for every place, given the codes before it."""
        before = self.embedding(codes[:, :-1])
        h = torch.cat([self.start.expand(len(codes), -1, -1), before], dim=1) + self.position
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h))

    def nll(self, z: Tensor) -> Tensor:
        codes = z.flatten(1)
        return F.categorical_nll(codes, self.logits(codes).float())

    @torch.no_grad()
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        length = self.grid[0] * self.grid[1]
        u = F.uniform((n, length), self.start, generator)
        rows = [self._sample(chunk, temperature) for chunk in u.split(256)]
        return torch.cat(rows).view(n, *self.grid)

    def _sample(self, u: Tensor, temperature: float) -> Tensor:
        """Codes (B, T) from uniform numbers (B, T); keys and values of the past are kept."""
        caches: list[Cache] = [None] * len(self.layers)
        codes: list[Tensor] = []
        h = self.start.expand(len(u), -1, -1)
        for t in range(u.shape[1]):
            h = h + self.position[:, t : t + 1]
            for i, layer in enumerate(self.layers):
                h, caches[i] = layer.step(h, caches[i])
            logits = self.head(self.norm(h))[:, 0].float()
            if temperature == 0:
                code = logits.argmax(-1)
            else:
                code = _inverse_cdf(torch.softmax(logits / temperature, -1), u[:, t : t + 1])[:, 0]
            codes.append(code)
            h = self.embedding(code)[:, None]
        return torch.stack(codes, dim=1)


Cache = tuple[Tensor, Tensor] | None  # keys and values of the places so far, (B, heads, t, D)


class TransformerLayer(nn.Module):
    """Causal attention and a two-layer perceptron, each normalized first and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = 8 if width >= 256 else 4
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self._heads(h)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._rest(h, attended)

    def step(self, h: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """`forward` for one more place, (B, 1, width), given the keys and values before it."""
        q, k, v = self._heads(h)
        if cache is not None:
            k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self._rest(h, attended), (k, v)

    def _heads(self, h: Tensor) -> tuple[Tensor, ...]:
        b, t, width = h.shape
        qkv = self.qkv(self.norm1(h)).view(b, t, 3, self.heads, width // self.heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def _rest(self, h: Tensor, attended: Tensor) -> Tensor:
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm2(h))


def _inverse_cdf(p: Tensor, u: Tensor) -> Tensor:
    """Draws from probabilities (..., K) by uniform numbers (..., m): int64 (..., m)."""
    cdf = p.cumsum(-1)
    return torch.searchsorted(cdf, u * cdf[..., -1:], right=True).clamp(max=p.shape[-1] - 1)


def make_prior(config: Any, grid: tuple[int, ...] = ()) -> Any:
    """The prior that a config names; codes have a grid (h, w)."""
    if config.prior == "standard-normal":
        return StandardNormal(config.latent_dim)
    if config.prior == "mixture":
        return GaussianMixture(config.prior_components, config.latent_dim)
    if config.prior == "uniform":
        return Uniform(config.codebook_size, grid)
    if config.prior == "autoregressive":
        return Autoregressive(config.codebook_size, grid, config.prior_width, config.prior_layers)
    return None
