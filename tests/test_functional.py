import math

import pytest
import torch
from memory import growth_alone
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from hfvae import functional as F

pytestmark = pytest.mark.quick


def logistic(mean, scale):
    from torch.distributions import (
        AffineTransform,
        SigmoidTransform,
        TransformedDistribution,
        Uniform,
    )

    base = Uniform(torch.zeros_like(mean), torch.ones_like(mean))
    return TransformedDistribution(base, [SigmoidTransform().inv, AffineTransform(mean, scale)])


def test_kl_is_that_of_torch_distributions():
    mu, logvar = torch.randn(5, 7), torch.randn(5, 7)
    q = Independent(Normal(mu, torch.exp(logvar / 2)), 1)
    p = Independent(Normal(torch.zeros(5, 7), torch.ones(5, 7)), 1)
    torch.testing.assert_close(F.gaussian_kl(mu, logvar), kl_divergence(q, p))


def test_gaussian_nll_and_the_prior_are_those_of_torch_distributions():
    x, mean, logvar = torch.randn(3, 5, 2, 2), torch.randn(3, 5, 2, 2), torch.randn(1, 5, 1, 1)
    expected = -Normal(mean, torch.exp(logvar / 2)).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(F.gaussian_nll(x, mean, logvar), expected)
    z = torch.randn(3, 6)
    torch.testing.assert_close(
        F.standard_normal_nll(z), -Normal(torch.zeros(6), torch.ones(6)).log_prob(z).sum(1)
    )


def test_bernoulli_nll_is_that_of_torch_distributions():
    x, logits = torch.randint(0, 2, (3, 4)).float(), 3 * torch.randn(3, 4)
    expected = -torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(1)
    torch.testing.assert_close(F.bernoulli_nll(x, logits), expected)


def test_reparameterized_draws_have_the_moments_of_the_posterior(generator):
    mu, logvar = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, -1.0]])
    n = 100_000
    z = F.reparameterize(mu.expand(n, 2), logvar.expand(n, 2), generator())
    sigma = torch.exp(0.5 * logvar[0])
    # Five standard errors: missed by chance less than once in a million.
    assert ((z.mean(0) - mu[0]).abs() < 5 * sigma / n**0.5).all()
    assert ((z.std(0) - sigma).abs() < 5 * sigma / (2 * n) ** 0.5).all()


def test_gradients_flow_through_the_draw(generator):
    """dz/dμ = 1 and dz/d log σ² = ½ σ ε, so that E[dz²/dμ] = 2μ and E[dz²/d log σ²] = σ²."""
    mu = torch.full((50_000, 1), 0.7, requires_grad=True)
    logvar = torch.full((50_000, 1), -0.4, requires_grad=True)
    z = F.reparameterize(mu, logvar, generator())
    (by_mu,) = torch.autograd.grad(z.sum(), mu, retain_graph=True)
    assert torch.equal(by_mu, torch.ones_like(mu))
    (z**2).sum().backward()
    for gradient, expected in [(mu.grad, 2 * 0.7), (logvar.grad, math.exp(-0.4))]:
        error = gradient.std() / len(gradient) ** 0.5
        assert abs(gradient.mean() - expected) < 5 * error


class LinearGaussian:
    """x = W z + b + noise with z ~ N(0, I): its evidence and posterior are known exactly."""

    def __init__(self):
        self.w = torch.randn(5, 2, dtype=torch.float64)
        self.b = torch.randn(5, dtype=torch.float64)
        self.x = torch.randn(5, dtype=torch.float64)
        precision = torch.eye(2) + self.w.T @ self.w
        covariance = torch.linalg.inv(precision)
        # Rotate z so that the posterior's covariance is diagonal, as q's is.
        values, rotation = torch.linalg.eigh(covariance)
        self.w = self.w @ rotation
        self.mu = (self.w.T @ (self.x - self.b)) * values
        self.logvar = values.log()
        marginal = MultivariateNormal(self.b, self.w @ self.w.T + torch.eye(5))
        self.log_evidence = marginal.log_prob(self.x)

    def elbos(self, mu, logvar, generator, n=20_000):
        mu, logvar = mu.expand(n, 2), logvar.expand(n, 2)
        z = F.reparameterize(mu, logvar, generator)
        nll = F.gaussian_nll(self.x.expand(n, 5), z @ self.w.T + self.b, torch.zeros(5))
        return -nll - F.gaussian_kl(mu, logvar)


def test_the_elbo_is_the_evidence_at_the_true_posterior(generator):
    exact = LinearGaussian()
    elbos = exact.elbos(exact.mu, exact.logvar, generator())
    assert abs(elbos.mean() - exact.log_evidence) < 4 * elbos.std() / len(elbos) ** 0.5


@pytest.mark.parametrize(("shift", "stretch"), [(0.3, 0.0), (0.0, 1.0), (-0.2, -0.8)])
def test_the_elbo_is_below_the_evidence_elsewhere_by_the_kl(shift, stretch, generator):
    exact = LinearGaussian()
    mu, logvar = exact.mu + shift, exact.logvar + stretch
    elbos = exact.elbos(mu, logvar, generator())
    error = elbos.std() / len(elbos) ** 0.5
    gap = kl_divergence(
        Normal(mu, torch.exp(logvar / 2)), Normal(exact.mu, torch.exp(exact.logvar / 2))
    ).sum()
    assert elbos.mean() < exact.log_evidence - 4 * error
    assert abs(exact.log_evidence - gap - elbos.mean()) < 4 * error


@pytest.mark.parametrize("mean", [-0.3, 0.0, 0.2, 0.9999, 1.4])
@pytest.mark.parametrize("log_scale", [-8.0, -4.0, 0.0])
def test_discretized_logistic_sums_to_one_over_its_levels(mean, log_scale):
    levels = torch.arange(256, dtype=torch.float64).view(256, 1) / 255
    mean = torch.full_like(levels, mean)
    nll = F.discretized_logistic_nll(levels, mean, torch.tensor(log_scale, dtype=torch.float64))
    assert torch.exp(-nll).sum() == pytest.approx(1, abs=1e-9)


def test_discretized_logistic_is_the_mass_of_a_logistic_between_half_levels():
    x = torch.tensor([[0.0], [17 / 255], [1.0]], dtype=torch.float64)
    mean, scale = torch.full_like(x, 0.1), torch.tensor(0.05, dtype=torch.float64)
    cdf = logistic(mean, scale).cdf
    upper, lower = cdf(x + 0.5 / 255), cdf(x - 0.5 / 255)
    upper[2], lower[0] = 1, 0
    nll = F.discretized_logistic_nll(x, mean, scale.log())
    torch.testing.assert_close(nll, -torch.log(upper - lower)[:, 0])


def test_discretized_logistic_stays_finite_far_from_the_mean():
    x = torch.tensor([[0.0], [0.5], [1.0]])
    mean = torch.tensor([[30.0], [30.0], [-30.0]], requires_grad=True)
    nll = F.discretized_logistic_nll(x, mean, torch.tensor(-7.0))
    nll.sum().backward()
    assert nll.isfinite().all()
    assert mean.grad.isfinite().all()
    assert (mean.grad.flatten().sign() == torch.tensor([1.0, 1.0, -1.0])).all()


@pytest.mark.parametrize("mean", [-0.2, 0.05, 0.5, 1.1])
@pytest.mark.parametrize("log_scale", [-6.0, -3.0, 0.0])
def test_mean_of_the_logistic_is_that_of_its_levels(mean, log_scale):
    levels = torch.arange(256, dtype=torch.float64).view(256, 1) / 255
    mean, log_scale = torch.tensor([mean], dtype=torch.float64), torch.tensor(log_scale).double()
    p = torch.exp(-F.discretized_logistic_nll(levels, mean.expand(256, 1), log_scale))
    expected = (p * levels[:, 0]).sum()
    assert F.clipped_logistic_mean(mean, log_scale).item() == pytest.approx(
        expected.item(), abs=0.5 / 255
    )


def test_bits_per_dim_of_a_fair_coin_a_pixel_is_one():
    nll = F.bernoulli_nll(torch.ones(1, 28 * 28), torch.zeros(1, 28 * 28))
    assert F.bits_per_dim(nll, 28 * 28).item() == pytest.approx(1)


def test_slerp_keeps_the_norm_that_lerp_loses():
    a, b = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    t = torch.linspace(0, 1, 9).view(-1, 1)
    torch.testing.assert_close(F.slerp(a, b, t).norm(dim=1), torch.full((9,), 3.0))
    assert F.lerp(a, b, t)[4].norm() == pytest.approx(3 / 2**0.5)
    angles = torch.atan2(F.slerp(a, b, t)[:, 1], F.slerp(a, b, t)[:, 0])
    torch.testing.assert_close(angles, torch.linspace(0, math.pi / 2, 9))


@pytest.mark.parametrize("b", [[2.0, 4.0], [-1.0, -2.0], [0.0, 0.0], [1.0, 2.0]])
def test_slerp_is_lerp_where_no_angle_is_defined(b):
    a, b, t = torch.tensor([[1.0, 2.0]]), torch.tensor([b]), torch.linspace(0, 1, 5).view(-1, 1)
    torch.testing.assert_close(F.slerp(a, b, t), F.lerp(a, b, t))


def test_the_nearest_codes_are_found_in_little_memory():
    z, codebook = torch.randn(16, 1024, 2), torch.randn(32768, 2)
    setting = (
        "import torch; from hfvae import functional as F;"
        "z, codebook = torch.randn(16, 1024, 2), torch.randn(32768, 2)"
    )
    assert growth_alone(setting, "F.nearest(z, codebook)") < 400  # MB; all distances are 2 GB
    found = F.nearest(z, codebook)
    assert found.shape == (16, 1024)
    assert torch.equal(found[3, 5:9], torch.cdist(z[3, 5:9], codebook).argmin(-1))
    assert F.nearest(z[:0], codebook).shape == (0, 1024)


def test_the_angle_of_slerp_is_between_whole_vectors():
    a, b = torch.randn(2, 1, 3, 4, 5)
    t = torch.linspace(0, 1, 5).view(-1, 1, 1, 1)
    flat = F.slerp(a.flatten(1), b.flatten(1), t.flatten(1))
    torch.testing.assert_close(F.slerp(a, b, t), flat.view(5, 3, 4, 5))


def test_psnr_and_bounds_of_known_numbers():
    x, y = torch.zeros(3, 1, 4, 4), torch.tensor([0.0, 0.1, 1.0]).view(3, 1, 1, 1)
    torch.testing.assert_close(F.psnr(x, y.expand_as(x)), torch.tensor([100.0, 20.0, 0.0]))
    s = torch.tensor([-1e4, -1e-3, 0.0, 1e-3, 1e4])
    torch.testing.assert_close(F.bounded(s, 7), s.clamp(-7, 7))
