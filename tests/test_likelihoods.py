import math

import pytest
import torch

from hfvae.likelihoods import Bernoulli, DiscretizedLogistic, Gaussian, make_likelihood

pytestmark = pytest.mark.quick

NAMES = ["bernoulli", "gaussian", "discretized-logistic"]


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_mean(name, generator):
    likelihood = make_likelihood(name, 2, None if name == "bernoulli" else 0.03)
    params = torch.tensor([0.3, 0.6]).view(1, 2, 1, 1).expand(1, 2, 200, 200)
    error = 5 * 0.5 / 200  # no pixel in [0, 1] has a larger standard deviation than ½
    draws = likelihood.sample(params, generator()).mean(dim=(0, 2, 3))
    assert (draws - likelihood.mean(params)[0, :, 0, 0]).abs().max() < error


@pytest.mark.parametrize("kind", [Gaussian, DiscretizedLogistic])
def test_a_learned_scale_finds_the_spread_of_the_residuals(kind, generator):
    torch.manual_seed(0)
    likelihood = kind(channels=1)
    mean = torch.full((64, 1, 16, 16), 0.5)
    x = likelihood.observe(kind(1, scale=0.03).sample(mean, generator()), generator())
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        likelihood.nll(x, mean).mean().backward()
        optimizer.step()
    assert likelihood.log_scale(mean).exp().item() == pytest.approx(0.03, rel=0.05)


@pytest.mark.parametrize("kind", [Gaussian, DiscretizedLogistic])
def test_the_scale_has_a_floor(kind):
    likelihood = kind(channels=3)
    with torch.no_grad():
        likelihood.raw_scale.fill_(-1e4)
    assert likelihood.log_scale(torch.zeros(1)).exp().min() > 1e-4
    x = torch.full((1, 3, 4, 4), 0.5)
    loss = likelihood.nll(x, torch.zeros_like(x)).sum()
    assert loss.isfinite()


def test_a_fixed_scale_is_no_parameter():
    likelihood = Gaussian(3, scale=0.25)
    assert not list(likelihood.parameters())
    assert likelihood.log_scale(torch.zeros(1)).exp().item() == pytest.approx(0.25)


def test_dequantized_pixels_fill_their_level(generator):
    x = torch.randint(0, 256, (2, 3, 8, 8)) / 255
    y = Gaussian(3).observe(x, generator())
    assert torch.equal((y * 256).floor(), (x * 255).round())
    assert ((y >= 0) & (y < 1)).all()


def test_a_uniform_density_costs_eight_bits_a_pixel():
    """−log p = 0 nats on [0, 1] is 1/256 for each of 256 levels: 8 bits."""
    assert Gaussian(1).bits_per_dim(0.0, 784) == pytest.approx(8)
    assert DiscretizedLogistic(1).bits_per_dim(784 * math.log(256), 784) == pytest.approx(8)


def test_binarized_pixels_keep_the_mean_and_are_checked(generator):
    x = torch.full((1, 1, 300, 300), 0.3)
    y = Bernoulli().observe(x, generator())
    assert set(y.unique().tolist()) == {0, 1}
    assert abs(y.mean() - 0.3) < 5 * 0.5 / 300
    Bernoulli().check(y)
    with pytest.raises(ValueError, match="binarize"):
        Bernoulli().check(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [Gaussian, DiscretizedLogistic])
def test_a_scale_stored_in_half_precision_is_used_in_full(kind, dtype):
    """1 / scale² of a Gaussian near its floor is more than float16 can hold."""
    stored, same = kind(channels=1), kind(channels=1)
    stored.raw_scale.data.fill_(0.3)
    stored.to(dtype)
    same.raw_scale.data.copy_(stored.raw_scale.data)
    x = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    assert torch.equal(stored.nll(x, x + 0.001), same.nll(x, x + 0.001))
    assert torch.equal(stored.mean(x), same.mean(x))
