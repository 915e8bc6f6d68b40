"""Every equation of the package, as pure functions of tensors.

B is the batch. Log-probabilities are in nats and *summed* over pixels and latents, one number per
image: the scale at which reconstruction and KL balance without hand-tuned weights.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nn

DISTANCES = 2**24  # between vectors and codes, held at once


def per_image(x: Tensor) -> Tensor:
    """(B, ...) -> (B,): the sum over everything but the batch."""
    return x.flatten(1).sum(1)


def exact(x: Tensor) -> Tensor:
    """x in float64; on the CPU where its device has none (Apple's GPUs)."""
    return (x.cpu() if x.device.type == "mps" else x).double()


# The evidence lower bound


class Shard(torch.Generator):
    """A generator of one process among several that each hold every `world`-th row of a batch.

    All processes draw the same numbers for the whole batch and keep their own rows, so that several
    processes see the noise that one would.
    """

    rank: int = 0
    world: int = 1


def noise(
    shape: Sequence[int], like: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """ε ~ N(0, I) in float32, on the device of `like`, or on the CPU.

    A generator keeps its own device, so one CPU seed gives the same noise on every device.
    """
    return _draw(torch.randn, shape, like, generator)


def uniform(
    shape: Sequence[int],
    like: Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: bool = True,
) -> Tensor:
    """U[0, 1) in float32, on the device of `like`, or on the CPU; see `noise`.

    Without `rows`, the shape is not that of a batch, and all processes get the same numbers.
    """
    return _draw(torch.rand, shape, like, generator, rows)


def _draw(
    kind: Callable[..., Tensor],
    shape: Sequence[int],
    like: Tensor | None,
    generator: Any,
    by_rows: bool = True,
) -> Tensor:
    target = torch.device("cpu") if like is None else like.device
    device = target if generator is None else generator.device
    rank, world = 0, 1
    if by_rows and isinstance(generator, Shard):
        rank, world = generator.rank, generator.world
    rows, *rest = shape
    drawn = kind((rows * world, *rest), generator=generator, device=device)
    return drawn[rank::world].to(target)


def reparameterize(mu: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """z = μ + σ·ε with ε ~ N(0, I): a draw from N(μ, σ²) that gradients flow through.

    Kingma & Welling 2014 (arXiv:1312.6114), section 2.4. `logvar` is log σ².
    """
    return mu + torch.exp(0.5 * logvar) * noise(mu.shape, mu, generator).to(mu.dtype)


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1 − log σ²), (B,) in nats.

    Kingma & Welling 2014, appendix B.
    """
    return per_image(gaussian_kl_by_latent(mu, logvar))


def gaussian_kl_by_latent(mu: Tensor, logvar: Tensor) -> Tensor:
    """The terms of `gaussian_kl`, (B, latent_dim) in nats: what each latent carries."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def gaussian_nll(x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """−log N(x; mean, e^logvar), (B,) in nats. `logvar` broadcasts against `x`."""
    return per_image(
        0.5 * ((x - mean).square() * torch.exp(-logvar) + logvar + math.log(2 * math.pi))
    )


def standard_normal_nll(z: Tensor) -> Tensor:
    """−log N(z; 0, I), (B,) in nats: the price of z under the prior."""
    return gaussian_nll(z, torch.zeros_like(z), torch.zeros_like(z))


# What the pixels cost


def bernoulli_nll(x: Tensor, logits: Tensor) -> Tensor:
    """−Σ x log p + (1−x) log(1−p) with p = sigmoid(logits), (B,) in nats. x holds 0 and 1."""
    return per_image(nn.binary_cross_entropy_with_logits(logits, x, reduction="none"))


def discretized_logistic_nll(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """−log P(x) for pixels on the 256 levels k/255, (B,) in nats.

    A logistic variable is rounded to its nearest level, everything beyond the ends to the ends:
    P(x) = F(x + ½/255) − F(x − ½/255) with F the logistic CDF, F = 0 below black and 1 above white.
    Kingma et al. 2016 (arXiv:1606.04934), section 5.3; Salimans et al. 2017 (arXiv:1701.05517).
    """
    x = torch.round(x * 255) / 255
    inverse_scale = torch.exp(-log_scale)
    upper = ((x + 0.5 / 255 - mean) * inverse_scale).masked_fill(x >= 1, torch.inf)
    lower = ((x - 0.5 / 255 - mean) * inverse_scale).masked_fill(x <= 0, -torch.inf)
    # log(σ(u) − σ(l)) = log σ(u) + log σ(−l) + log(1 − e^{l−u}), exact where the bare difference
    # of two sigmoids would round to zero; u − l is the same for all pixels but the ends.
    between = torch.log(-torch.expm1(-inverse_scale / 255))
    inside = ((x > 0) & (x < 1)).to(x.dtype)
    return per_image(nn.softplus(-upper) + nn.softplus(lower) - inside * between)


def clipped_logistic_mean(mean: Tensor, log_scale: Tensor) -> Tensor:
    """E[min(max(X, 0), 1)] for a logistic X: ∫₀¹ P(X > t) dt, in [0, 1].

    The mean of the discretized logistic, up to the rounding within one level.
    """
    scale = torch.exp(log_scale)
    mass = scale * (nn.softplus(mean / scale) - nn.softplus((mean - 1) / scale))
    return mass.clamp(0, 1)  # rounding only


def bits_per_dim(nll: Tensor | float, dims: int) -> Tensor | float:
    """Nats per image -> bits per pixel and channel; `dims` is C·H·W."""
    return nll / (dims * math.log(2))


def psnr(x: Tensor, x_hat: Tensor) -> Tensor:
    """−10 log₁₀ of the mean squared error of images in [0, 1], (B,) in dB, at most 100."""
    error = (x - x_hat).square().flatten(1).mean(1)
    return -10 * torch.log10(error.clamp_min(1e-10))


# Ways between two latents


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(1−t)·a + t·b. `t` broadcasts against `a` and `b`."""
    return (1 - t) * a + t * b


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation, (sin((1−t)ω)·a + sin(tω)·b) / sin ω, ω the angle between a and b.

    Samples of N(0, I) lie near a sphere, which the chord leaves: halfway, `lerp` has lost half of
    the squared norm. Shoemake 1985; White 2016 (arXiv:1609.04468). Where it is undefined, a zero
    vector or (anti)parallel ones, it is `lerp`. a and b have one shape; the angle is between them
    as whole vectors.
    """
    cosine = nn.cosine_similarity(a.flatten(), b.flatten(), dim=0)
    omega = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(omega)
    if sine < 1e-3 or a.norm() == 0 or b.norm() == 0:
        return lerp(a, b, t)
    return (torch.sin((1 - t) * omega) * a + torch.sin(t * omega) * b) / sine


# Many samples instead of one


def importance_bound(log_weights: Tensor) -> Tensor:
    """log (1/K) Σ_k w_k, (K, B) -> (B,) in nats; w_k = p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q(z|x).

    A lower bound on log p(x) that K = 1 makes the ELBO and K → ∞ makes exact. Burda et al. 2016
    (arXiv:1509.00519), eq. 8 and theorem 1.
    """
    return torch.logsumexp(log_weights, dim=0) - math.log(len(log_weights))


# Discrete latents


def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest codebook vector: (..., D), (K, D) -> int64 (...).

    van den Oord et al. 2017 (arXiv:1711.00937), eq. 1. ‖z − e‖² = ‖z‖² − 2 z·e + ‖e‖², and ‖z‖² is
    the same for all codes. The distances of a few vectors are held at a time: those of all may be
    more than any memory has.
    """
    norms, flat = codebook.square().sum(1), z.reshape(-1, z.shape[-1])
    some = flat.split(max(1, DISTANCES // len(codebook)))
    return torch.cat([(norms - 2 * v @ codebook.T).argmin(-1) for v in some]).view(z.shape[:-1])


def straight_through(z: Tensor, z_q: Tensor) -> Tensor:
    """z_q in the forward pass; in the backward pass its gradient goes to z unchanged."""
    return z + (z_q - z).detach()


def commitment_term(z: Tensor, z_q: Tensor) -> Tensor:
    """‖z − sg[z_q]‖², (B,): moves the encoder towards its codes. van den Oord et al., eq. 3."""
    return per_image((z - z_q.detach()).square())


def codebook_term(z: Tensor, z_q: Tensor) -> Tensor:
    """‖sg[z] − z_q‖², (B,): moves the codes towards the encoder. van den Oord et al., eq. 3."""
    return per_image((z.detach() - z_q).square())


def ema_codebook(
    counts: Tensor, sums: Tensor, batch_counts: Tensor, batch_sums: Tensor, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of the moving averages that replace the codebook term.

    N_i ← γ N_i + (1−γ) n_i,  m_i ← γ m_i + (1−γ) Σ z,  e_i = m_i / N_i; van den Oord et al.,
    appendix A.1. Shapes (K,), (K, D), (K,), (K, D) -> new counts, sums and codebook (K, D).
    """
    counts = decay * counts + (1 - decay) * batch_counts
    sums = decay * sums + (1 - decay) * batch_sums
    return counts, sums, sums / counts.clamp_min(1e-5)[:, None]


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of the codes' use, (K,) -> (): K if all alike, 1 if there is only one."""
    p = counts / counts.sum()
    return torch.exp(-torch.xlogy(p, p).sum())


def round_to_levels(z: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Finite scalar quantization: squash each channel and round it to one of its levels.

    Mentzer et al. 2024 (arXiv:2309.15505), section 3.1, with bins of equal width, so that the
    outermost levels are used as often as the others. (..., D), (D,) -> the values in [−1, 1],
    through which gradients pass straight, and int64 indices from 0, both (..., D).
    """
    squashed = torch.sigmoid(z) * levels - 0.5
    index = squashed.round().clamp(min=torch.zeros_like(levels), max=levels - 1)
    return level_values(straight_through(squashed, index), levels), index.long()


def level_values(index: Tensor, levels: Tensor) -> Tensor:
    """Levels counted from 0 to L−1, spread evenly over [−1, 1]."""
    return 2 * index / (levels - 1) - 1


def uniform_codes_nll(codes: Tensor, codebook_size: int) -> Tensor:
    """T·log K for T codes that are all alike: int64 (B, ...) -> (B,) in nats."""
    nats = codes[0].numel() * math.log(codebook_size)
    return torch.full((len(codes),), nats, device=codes.device)


def categorical_nll(codes: Tensor, logits: Tensor) -> Tensor:
    """−Σ_t log p(code_t), int64 (B, T) and (B, T, K) -> (B,) in nats."""
    return per_image(nn.cross_entropy(logits.transpose(1, 2), codes, reduction="none"))


def mixture_nll(z: Tensor, logits: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """−Σ_t log Σ_k π_tk N(z_t; m_tk, s_tk²), a mixture of Gaussians for each of T vectors.

    (B, T, C); (B, T, K), whose softmax is π; (B, T, K, C) twice -> (B,) in nats.
    """
    scaled = (z[:, :, None] - means) * torch.exp(-log_scales)
    log_p = -(0.5 * scaled.square() + log_scales + 0.5 * math.log(2 * math.pi)).sum(-1)
    return -per_image(torch.logsumexp(log_p + torch.log_softmax(logits, -1), -1))


def inverse_cdf(p: Tensor, u: Tensor) -> Tensor:
    """Draws from probabilities (..., K) by uniform numbers (..., m): int64 (..., m)."""
    cdf = p.cumsum(-1)
    return torch.searchsorted(cdf, u * cdf[..., -1:], right=True).clamp(max=p.shape[-1] - 1)


# Flows


def affine_coupling(x: Tensor, shift: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """x · e^s + t and the log-determinant of its Jacobian, Σ s, (B,) in nats. All (B, D).

    Dinh et al. 2017 (arXiv:1605.08803), eqs. 7 and 8.
    """
    return x * torch.exp(log_scale) + shift, log_scale.sum(1)


def inverse_affine_coupling(y: Tensor, shift: Tensor, log_scale: Tensor) -> Tensor:
    """(y − t) · e^{−s}: what `affine_coupling` made y of."""
    return (y - shift) * torch.exp(-log_scale)


def bounded(s: Tensor, most: float = 2) -> Tensor:
    """m · tanh(s/m): s where it is small, never beyond ±m, so that nothing explodes."""
    return most * torch.tanh(s / most)


# Factors that are known


def means_by_value(z: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of z at each value of a factor, less that of all, (V, D), and its share, (V,).

    z is (N, D), values int64 (N,).
    """
    _, which, counts = values.unique(return_inverse=True, return_counts=True)
    sums = z.new_zeros(len(counts), z.shape[1]).index_add(0, which, z - z.mean(0))
    return sums / counts[:, None], counts.to(z) / len(z)


def correlation_ratio(z: Tensor, values: Tensor) -> Tensor:
    """What share of the variance of each entry of z a factor explains, η², (D,) in [0, 1].

    The variance of the means at each value over that of all: Pearson 1905, one-way ANOVA.
    """
    z = exact(z)
    means, shares = means_by_value(z, values.to(z.device))
    return shares @ means.square() / z.var(0, correction=0).clamp(min=1e-12)


def factor_axes(z: Tensor, factors: Tensor) -> Tensor:
    """Orthogonal (D, D), whose first columns are the ways on which factors move z.

    For each of the factors, int64 (N, K), the first principal component of the mean of z (N, D) at
    its values; that of the largest variance first, each at right angles to those before.
    """
    found, exactly = [], exact(z)
    for values in factors.T:
        means, shares = means_by_value(exactly, values.to(exactly.device))
        _, spread, ways = torch.linalg.svd(shares.sqrt()[:, None] * means, full_matrices=False)
        found.append((spread[0].item(), ways[0]))
    found.sort(key=lambda pair: -pair[0])
    ways = torch.stack([way for _, way in found[: z.shape[1]]], dim=1)
    return torch.linalg.qr(ways, mode="complete")[0].to(z)
