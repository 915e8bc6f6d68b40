"""A new prior and a new kind of latent are a class and a line each: nothing else knows of them."""

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import Tensor, distributions

import hfvae
from hfvae import VAE, VQVAE, VAEConfig, VQVAEConfig
from hfvae.base import FAMILIES, BaseAutoencoder
from hfvae.configs import PRESETS, PRIORS, Config, PriorEntry, checked, integer, word
from hfvae.data import ImageSet
from hfvae.demo.actions import make_actions
from hfvae.demo.menu import Models
from hfvae.evaluate import evaluate
from hfvae.latents import Latents, Posterior
from hfvae.latents.gaussian import GaussianPosterior
from hfvae.priors import Prior
from hfvae.priors.mixture import GaussianMixture
from hfvae.priors.normal import StandardNormal
from hfvae.training import TrainConfig, train


class Laplace(Prior):
    """p(z) = Π ½ e^{−|z|}."""

    words = "draws of a Laplace distribution"

    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    @classmethod
    def of(cls, config, shape):
        return cls(*shape)

    def nll(self, z):
        return -distributions.Laplace(0.0, 1.0).log_prob(z).flatten(1).sum(1)

    def sample(self, n, temperature=1.0, generator=None):
        u = torch.rand((n, *self.shape), generator=generator).clamp(1e-6, 1 - 1e-6) - 0.5
        return -temperature * u.sign() * torch.log1p(-2 * u.abs())


@dataclass
class Box(Posterior):
    """q(z|x) uniform around h, one wide: its entropy is 0."""

    h: Tensor

    def sample(self, generator=None):
        return self.h + torch.rand(self.h.shape, generator=generator) - 0.5

    def mode(self):
        return self.h

    def rate(self, z, prior):
        return prior.nll(z)

    def metrics(self, rate):
        return {"kl": rate.mean()}

    def events(self, times=1, generator=None):
        return Box(self.h.repeat(times, 1)).sample(generator)


class Boxes(Latents):
    def __init__(self, dim):
        super().__init__()
        self.in_features, self.shape = dim, (dim,)

    def forward(self, h, generator=None):
        return Box(h)

    def summary(self, tallies, rate=None):
        return {} if rate is None else {"kl": float(rate.mean())}


@dataclass(frozen=True, kw_only=True)
class BoxConfig(Config):
    model_type: ClassVar[str] = "box-vae"
    words: ClassVar[str] = "An autoencoder of boxes"
    trained_prior: ClassVar[str] = "laplace"

    latent_dim: int = checked(4, integer(1, 100))
    prior: str = checked("laplace", word)


class BoxVAE(BaseAutoencoder):
    config_class = BoxConfig

    def __init__(self, config, encoder=None, decoder=None):
        super().__init__(config, Boxes(config.latent_dim), encoder, decoder)


@pytest.fixture
def toys(monkeypatch):
    """The toys, registered: a line each, and one in the presets for train.py."""
    monkeypatch.setitem(PRIORS, "laplace", PriorEntry(Laplace, ("vae", "box-vae")))
    monkeypatch.setitem(FAMILIES, "box-vae", BoxVAE)
    monkeypatch.setitem(PRESETS, "box-vae", partial(BoxConfig))


@pytest.mark.parametrize("model", ["vae", "box-vae"])
def test_a_toy_trains_saves_loads_samples_evaluates_and_opens_in_the_demo(toys, tmp_path, model):
    trained = train(
        TrainConfig(
            model=model, prior="laplace", dataset="sprites", resolution=16, latent_dim=4,
            max_train_steps=3, train_batch_size=8, max_train_samples=None,
            output_dir=tmp_path / "toy",
        )
    )  # fmt: skip
    again = hfvae.from_pretrained(tmp_path / "toy")
    assert type(again) is FAMILIES[model]
    assert again.config.prior == "laplace"
    assert isinstance(again.prior, Laplace)
    drawn = [m.sample(3, generator=torch.Generator().manual_seed(1)) for m in (trained, again)]
    assert torch.equal(*drawn)
    results = json.loads((tmp_path / "toy" / "evaluation.json").read_text())
    assert results["elbo"] == pytest.approx(-results["reconstruction"] - results["kl"], rel=1e-6)
    assert "draws of a Laplace distribution" in (tmp_path / "toy" / "README.md").read_text()
    images = ImageSet("few", "test", (again.sample(8) * 255).to(torch.uint8))
    assert evaluate(again, images)["images"] == 8
    menu = Models([str(tmp_path / "toy")])
    act = make_actions(menu)
    files, seed = act.generate(None, 2, 5, 1.0)
    assert (len(files), seed) == (2, 5)
    picture = hfvae.to_pil(again.sample(1))[0]
    assert "PSNR" in act.reconstruct(None, picture)[2]
    assert len(act.interpolate(None, picture, picture, 3, "slerp")[0]) == 3
    assert act.explore(None, picture, 1, 0.5)
    assert act.show_latents(None, picture)


# The rate of every latent under every prior


def priors_of(family):
    return [name for name, entry in PRIORS.items() if family in entry.families]


@pytest.mark.parametrize("prior", priors_of("vae"))
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_a_vae_is_charged_the_negative_elbo_whatever_its_prior(prior, beta, x, generator):
    model = VAE(VAEConfig(image_size=(10, 12), latent_dim=4, widths=(8,), prior=prior, beta=beta))
    model(x)
    model.eval()
    model.prior.fit(torch.randn(200, 4) * 2)
    out = model(x, generator())
    elbo = model.elbo(x, generator())
    torch.testing.assert_close(-elbo, out.nll + out.rate, rtol=1e-5, atol=0)
    torch.testing.assert_close(out.loss, (out.nll + beta * out.rate + out.penalty).mean())
    assert out.nll.shape == out.rate.shape == out.penalty.shape == (len(x),)


@pytest.mark.parametrize("prior", priors_of("vq-vae"))
@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_codes_are_charged_the_negative_elbo_whatever_their_prior(prior, quantizer, x, generator):
    config = VQVAEConfig(
        image_size=(10, 12), widths=(8,), codebook_size=12, quantizer=quantizer, prior=prior,
        prior_width=16, prior_layers=1,
    )  # fmt: skip
    model = VQVAE(config).eval()
    out = model(x, generator())
    torch.testing.assert_close(-model.elbo(x), out.nll + out.rate, rtol=1e-5, atol=0)
    torch.testing.assert_close(out.loss - out.penalty.mean(), -model.elbo(x).mean())
    torch.testing.assert_close(out.rate, model.prior.nll(model.codes(x)))
    out.rate.sum().backward() if out.rate.requires_grad else None
    assert all(p.grad is None for p in model.encoder.parameters())


def test_the_rate_of_a_gaussian_under_n01_is_the_kl_of_torch():
    mu, logvar = torch.randn(6, 5), torch.randn(6, 5)
    q = distributions.Normal(mu, torch.exp(logvar / 2))
    kl = distributions.kl_divergence(q, distributions.Normal(0.0, 1.0)).sum(1)
    posterior = GaussianPosterior(mu, logvar)
    torch.testing.assert_close(posterior.rate(posterior.sample(), StandardNormal(5)), kl)


def test_the_rate_of_a_gaussian_under_a_mixture_is_log_q_minus_log_p(generator):
    mu, logvar = torch.randn(6, 5), torch.randn(6, 5)
    posterior, prior = GaussianPosterior(mu, logvar), GaussianMixture(3, 5)
    prior.fit(torch.randn(300, 5) + 1)
    z = posterior.sample(generator())
    log_q = distributions.Normal(mu, torch.exp(logvar / 2)).log_prob(z).sum(1)
    parts = distributions.MultivariateNormal(prior.means, scale_tril=prior.cholesky)
    log_p = torch.logsumexp(parts.log_prob(z[:, None]) + prior.weights.log(), 1)
    torch.testing.assert_close(posterior.rate(z, prior), log_q - log_p)


def test_the_rate_of_a_mixture_that_is_n01_averages_to_the_closed_form(generator):
    """10,000 draws of one posterior: within 5 standard errors, once in 10^6 by chance."""
    posterior = GaussianPosterior(torch.tensor([[0.5, -1.0]]), torch.tensor([[0.3, -0.7]]))
    many = posterior.repeat(10_000)
    rate = many.rate(many.sample(generator()), GaussianMixture(3, 2))
    exact = posterior.rate(posterior.mode(), StandardNormal(2))
    assert abs(rate.mean() - exact) < 5 * rate.std() / 100


def test_a_point_is_free_and_has_no_elbo(x):
    config = hfvae.AutoencoderConfig(image_size=(10, 12), latent_dim=3, prior="mixture")
    model = hfvae.Autoencoder(config).eval()
    out = model(x)
    assert not out.rate.any()
    torch.testing.assert_close(out.loss, out.nll.mean())
    with pytest.raises(ValueError, match="no ELBO"):
        model.elbo(x)


def test_uniform_codes_cost_the_log_of_the_codebook_each():
    model = VQVAE(VQVAEConfig(image_size=16, codebook_size=12))
    cells = math.prod(model.latent_shape[1:])
    rate = model(torch.rand(2, 3, 16, 16)).rate
    torch.testing.assert_close(rate, torch.full((2,), cells * math.log(12)))


def test_a_config_that_is_changed_derives_its_widths_anew():
    assert dataclasses.replace(VAEConfig(), image_size=128) == VAEConfig(image_size=128)
    assert dataclasses.replace(VAEConfig(), likelihood="bernoulli").hidden == 512
    assert dataclasses.replace(VAEConfig(widths=(8,)), image_size=128).widths == (8,)


def test_another_family_is_refused_before_its_weights_are_read(tmp_path):
    VQVAE(VQVAEConfig(image_size=16, codebook_size=12)).save_pretrained(tmp_path / "codes")
    (tmp_path / "codes" / "model.safetensors").unlink()
    with pytest.raises(hfvae.HubError, match=r"holds a VQVAE \(vq-vae\), not a VAE"):
        VAE.from_pretrained(tmp_path / "codes")
