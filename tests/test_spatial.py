"""Grids of Gaussian latents, and the transformer over their cells."""

import json
import math

import pytest
import torch
from torch import distributions

import hfvae
from hfvae import VAE, VAEConfig
from hfvae.data import ImageSet
from hfvae.demo.actions import make_actions
from hfvae.demo.menu import Models
from hfvae.evaluate import evaluate
from hfvae.latents.gaussian import Gaussian, GaussianPosterior
from hfvae.priors.autoregressive import AutoregressiveVectors
from hfvae.priors.normal import StandardNormal

pytestmark = pytest.mark.quick


def transformer(components=3, channels=2, grid=(2, 3)):
    prior = AutoregressiveVectors(components, channels, *grid, width=16, layers=2)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # far from N(0, I)
    return prior.eval()


def spatial(size=(24, 20), **settings):
    """A small model with statistics of its BatchNorm, and a transformer that is far from new."""
    small = {"latent_dim": 2, "widths": (4, 8), "blocks": 1, "prior_width": 16, "prior_layers": 1}
    model = VAE(VAEConfig(image_size=size, spatial=True, **small | settings))
    model(torch.rand(8, 3, *model.config.size))
    for parameter in model.prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


# The rate and the density


def test_the_rate_of_a_grid_is_that_of_torch():
    mu, logvar = torch.randn(4, 3, 5, 2), torch.randn(4, 3, 5, 2)
    q = distributions.Independent(distributions.Normal(mu, torch.exp(logvar / 2)), 3)
    p = distributions.Independent(distributions.Normal(torch.zeros_like(mu), 1.0), 3)
    posterior = GaussianPosterior(mu, logvar)
    z = posterior.sample()
    kl = distributions.kl_divergence(q, p)
    torch.testing.assert_close(posterior.rate(z, StandardNormal(3, 5, 2)), kl)
    torch.testing.assert_close(posterior.nll(z), -q.log_prob(z))
    prior = transformer(grid=(5, 2), channels=3)
    torch.testing.assert_close(posterior.rate(z, prior), q.log_prob(z) + prior.nll(z))


def test_the_density_of_a_cell_is_the_mixture_of_torch():
    prior, z = transformer(), torch.randn(4, 2, 2, 3)
    logits, means, log_scales = prior.mixture(prior.tell(prior.cells(z)))
    normals = distributions.Independent(distributions.Normal(means, log_scales.exp()), 1)
    mixture = distributions.MixtureSameFamily(distributions.Categorical(logits=logits), normals)
    torch.testing.assert_close(prior.nll(z), -mixture.log_prob(prior.cells(z)).sum(1))


def test_the_density_of_two_cells_integrates_to_one():
    prior, side = transformer(channels=1, grid=(1, 2)), torch.linspace(-15, 15, 501)
    z = torch.cartesian_prod(side, side).view(-1, 1, 1, 2)
    density = torch.exp(-prior.nll(z).double())
    assert density.sum().item() * 0.06**2 == pytest.approx(1, abs=1e-4)


def test_a_cell_depends_only_on_those_before_it_and_gradients_reach_them():
    prior, cells = transformer(), torch.randn(1, 6, 2, requires_grad=True)
    for t in range(6):
        told = prior.tell(cells)[0, t].square().sum()
        if t == 0:
            assert not torch.autograd.grad(told, cells, allow_unused=True)[0].any()
            continue
        reached = torch.autograd.grad(told, cells)[0][0].abs().sum(1) > 0
        assert reached.tolist() == [s < t for s in range(6)]


# Draws


def test_cached_draws_equal_uncached_ones(generator):
    prior = transformer()
    noise = prior.noise(4, generator())
    for temperature in (0.0, 0.7, 1.0):
        cells = torch.zeros(4, 6, 2)
        for t in range(6):
            cells[:, t] = prior.draw(prior.tell(cells)[:, t], noise[:, t], temperature)
        drawn = prior.sample(4, temperature, generator())
        torch.testing.assert_close(drawn, prior.grids(cells))
        assert drawn.shape == (4, 2, 2, 3)


def test_draws_do_not_depend_on_how_many_are_made_at_once(generator, monkeypatch):
    prior = transformer()
    at_once = prior.sample(5, generator=generator())
    monkeypatch.setattr("hfvae.priors.autoregressive.CACHED", 1)
    torch.testing.assert_close(prior.sample(5, generator=generator()), at_once)


def test_the_transformer_draws_what_it_says(generator):
    """The mean of −log p over its draws is its entropy, here by a sum over a fine grid: within 5
    standard errors, once in 10^6 by chance."""
    prior, side = transformer(channels=1, grid=(1, 2)), torch.linspace(-15, 15, 501)
    z = torch.cartesian_prod(side, side).view(-1, 1, 1, 2)
    nll = prior.nll(z).double()
    entropy = (torch.exp(-nll) * nll).sum() * 0.06**2
    drawn = prior.nll(prior.sample(20_000, generator=generator()))
    assert abs(drawn.mean() - entropy) < 5 * drawn.std() / 20_000**0.5


def test_temperature_scales_the_gaussians_and_zero_is_the_likeliest_mean(generator):
    prior = transformer(grid=(1, 1))
    logits, means, _ = (part[0, 0] for part in prior.mixture(prior.tell(torch.zeros(1, 1, 2))))
    cold = prior.sample(3, 0.0, generator()).flatten(1)
    torch.testing.assert_close(cold, means[logits.argmax()].expand(3, -1))
    hot, warm = (prior.sample(300, t, generator()).flatten(1) for t in (2.0, 1.0))
    nearly = prior.sample(300, 1e-6, generator()).flatten(1)
    torch.testing.assert_close(hot - nearly, 2 * (warm - nearly), atol=1e-4, rtol=1e-4)


# The model


@pytest.mark.parametrize("size", [(40, 56), (97, 64), 64, 8, (9, 30)])
def test_any_size_goes_through_the_default_networks(size):
    model = VAE(VAEConfig(image_size=size, spatial=True)).eval()
    x = torch.rand(2, 3, *model.config.size)
    mu, logvar = model.posterior(x)
    assert mu.shape == logvar.shape == (2, *model.latent_shape)
    assert model.decode(mu).shape == x.shape
    assert max(model.latent_shape[1:]) == math.ceil(max(model.config.size) / 8)


@pytest.mark.parametrize(("size", "cells"), [(128, 16), (256, 32), (512, 32)])
def test_a_transformer_has_no_more_cells_to_draw_than_a_thousand(size, cells):
    with torch.device("meta"):
        model = VAE(VAEConfig(image_size=size, spatial=True))
    assert model.latent_shape == (8, cells, cells)


def test_what_is_charged_is_the_negative_elbo_whatever_the_prior(generator):
    x = torch.randint(0, 256, (3, 3, 24, 20)) / 255
    for prior in ("standard-normal", "autoregressive"):
        model = spatial(prior=prior)
        out = model(x, generator())
        torch.testing.assert_close(-model.elbo(x, generator()), out.nll + out.rate)
        out.loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        if prior == "autoregressive":  # no closed form: the rate is that of the same draw
            one = model.log_likelihood(x, 1, generator())
            torch.testing.assert_close(one, model.elbo(x, generator()), rtol=1e-5, atol=0)
        images = ImageSet("noise", "test", (x * 255).round().to(torch.uint8))
        results = evaluate(model, images, seed=3)
        noise = torch.Generator().manual_seed(4)
        again = model(x, noise)
        expected = (again.nll + again.rate).mean().item()
        assert results["elbo"] == pytest.approx(-expected, rel=1e-5)
        assert "nll" not in results


def test_a_unit_is_active_if_its_mean_varies_of_a_grid_on_average_over_its_cells():
    sign = torch.tensor([1.0, -1.0]).repeat_interleave(500)  # varies between the batches alone
    mu = sign[:, None] * torch.tensor([0.0, 0.09, 0.11])  # variances 0, 0.0081, 0.0121
    assert Gaussian(3).summary([mu[:500], mu[500:]])["active_units"] == 1
    grid = sign.view(-1, 1, 1, 1) * torch.tensor([[[0.0, 0.13]], [[0.0, 0.15]]])
    assert Gaussian(2, 1, 2).summary([grid])["active_units"] == 1  # 0.0085 and 0.0113


def test_latents_that_are_kept_are_drawn_afresh_at_every_use(generator):
    posterior = GaussianPosterior(torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4))
    latents, noise = Gaussian(2, 4, 4), generator()
    first, second = (latents.drawn(posterior.kept(), noise) for _ in range(2))
    assert torch.equal(first, posterior.sample(generator()))
    assert not torch.equal(first, second)


def test_a_grid_is_traversed_row_by_row_and_interpolated_whole():
    model = spatial()
    x = torch.rand(3, 24, 20)
    z = model.encode(x[None])
    channels, h, w = model.latent_shape
    assert (channels, h, w) == (2, 6, 5)
    changed = z.clone()
    changed[0, 1, 3, 2] = 2.5
    images = model.traverse(x, 1 * h * w + 3 * w + 2, [2.5])
    torch.testing.assert_close(images, model.decode(changed))
    a, b = torch.rand(2, 3, 24, 20)
    for mode in ("slerp", "lerp"):
        way = model.interpolate(a, b, steps=5, mode=mode)
        torch.testing.assert_close(
            way[[0, -1]], model.reconstruct(torch.stack([a, b])), atol=1e-5, rtol=0
        )
    middle = model.decode((model.encode(a[None]) + model.encode(b[None])) / 2)
    torch.testing.assert_close(way[2:3], middle, atol=1e-5, rtol=0)


def test_networks_of_ones_own_give_the_grid_its_size():
    encoder = torch.nn.Conv2d(3, 4, 5, stride=5)
    decoder = torch.nn.ConvTranspose2d(2, 3, 5, stride=5)
    model = VAE(VAEConfig(image_size=(20, 15), spatial=True, latent_dim=2), encoder, decoder)
    assert model.latent_shape == (2, 4, 3)
    model.set_prior("autoregressive")
    assert model.sample(2).shape == (2, 3, 20, 15)


def test_only_a_grid_is_of_format_2_and_only_it_has_a_transformer(tmp_path):
    plain = VAEConfig()
    assert plain.format_version == 1
    assert plain.settings().keys().isdisjoint({"spatial", "prior_layers"})
    model = spatial(prior="autoregressive", prior_components=4)
    assert model.config.format_version == 2
    model.save_pretrained(tmp_path / "m")
    saved = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (saved["spatial"], saved["latent_dim"], saved["prior_layers"]) == (True, 2, 1)
    again = hfvae.from_pretrained(tmp_path / "m")
    assert again.config == model.config
    assert torch.equal(*[m.sample(2, generator=torch.Generator()) for m in (model, again)])
    for prior, kind in [("autoregressive", False), ("mixture", True), ("flow", True)]:
        with pytest.raises(ValueError, match="prior must be one of standard-normal"):
            VAEConfig(spatial=kind, prior=prior)
    with pytest.raises(ValueError, match="hidden must be 0 for a grid"):
        VAEConfig(spatial=True, hidden=64)
    with pytest.raises(ValueError, match="multiple of 8"):
        VAEConfig(spatial=True, prior="autoregressive", prior_width=12)


def test_the_mean_and_spread_of_half_precision_are_close(generator):
    model = spatial(prior="autoregressive")
    images = model.sample(32, generator=generator())
    half = model.to(torch.bfloat16).sample(32, generator=generator())
    assert half.dtype == torch.bfloat16
    for of in (torch.mean, torch.std):
        torch.testing.assert_close(of(half.float()), of(images), atol=0.05, rtol=0)


# Training


def test_it_is_trained_with_its_prior_and_fine_tuned_at_another_size(tmp_path, train_py):
    argv = ["--dataset", "sprites", "--max_train_samples", "1000", "--train_batch_size", "8"]
    steps = ["--max_train_steps", "3", "--prior_fraction", "0.5", "--learning_rate", "1e-3"]
    first = ["--model", "spatial-vae", "--resolution", "32x24", "--widths", "4,8"]
    words = train_py(*argv, *steps, *first, "--output_dir", tmp_path / "a")
    assert "training the prior" in words
    model = hfvae.from_pretrained(tmp_path / "a")
    assert model.config.prior == "autoregressive"
    results = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    assert results["elbo"] == pytest.approx(-results["reconstruction"] - results["kl"], rel=1e-6)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "decoded from what its transformer prior drew, cell by cell" in card
    assert "A spatial variational autoencoder (VAE) of 32x24 images" in card
    other = ["--model_name_or_path", tmp_path / "a", "--resolution", "48", "--learning_rate", "0.1"]
    words = train_py(*argv, "--max_train_steps", "2", *other, "--output_dir", tmp_path / "b")
    assert "start afresh" not in words  # convolutions fit any size
    tuned = hfvae.from_pretrained(tmp_path / "b")
    assert tuned.latent_shape == (8, 12, 12)
    assert json.loads((tmp_path / "b" / "train_config.json").read_text())["model"] == "spatial-vae"


# The demo


def test_a_click_on_a_cell_changes_the_picture_there(tmp_path, monkeypatch):
    spatial(size=32, prior="autoregressive").save_pretrained(tmp_path / "grid")
    menu = Models([str(tmp_path / "grid")])
    act, model = make_actions(menu), menu[None].model
    picture = hfvae.to_pil(model.sample(1))[0]
    shown = menu[None].explorer.show(picture)["codes"]
    assert shown["grid"] == (8, 8)
    assert set(shown["codes"]) == {0}
    x = model.preprocess(picture)
    explorer = menu[None].explorer
    own = explorer.content(picture, torch.zeros(1, 8, 8, dtype=torch.int64))
    torch.testing.assert_close(own, model.encode(x))
    other = explorer.content(picture, torch.full((1, 8, 8), 3))
    assert torch.equal(other[0], explorer.others[2])
    monkeypatch.setattr("hfvae.demo.explorers.secrets.randbelow", lambda most: 3)
    moved = explorer.move(picture, {"kind": "codes", "codes": shown["codes"], "cell": 9})
    assert moved["codes"] == [0] * 9 + [3] + [0] * 54
    z = model.encode(x).clone()
    z[0, :, 1, 1] = explorer.others[2, :, 1, 1]
    numbers = torch.tensor(moved["codes"]).view(1, 8, 8)
    torch.testing.assert_close(explorer.content(picture, numbers), z)
    with pytest.raises(Exception, match="a grid of cells: press Explore"):
        explorer.move(picture, {"kind": "plane"})
    for wrong in ([0] * 63, [16] * 64, "codes"):
        with pytest.raises(Exception, match="list of 64|Value"):
            explorer.move(picture, {"kind": "codes", "codes": wrong, "cell": 0})
    assert act.explore(None, picture, 2 * 64 - 1, 1.5)
    assert len(act.interpolate(None, picture, picture, 3, "slerp")[0]) == 3
    assert math.isfinite(model.elbo(x)[0].item())
