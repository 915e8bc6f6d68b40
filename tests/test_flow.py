"""The flow is invertible, its density is exact, and a new one is N(0, I)."""

import json
import warnings

import pytest
import torch

import hfvae
from hfvae import VAE, VAEConfig
from hfvae import functional as F
from hfvae.demo.explorers import VectorExplorer
from hfvae.latents.gaussian import GaussianPosterior
from hfvae.priors.flow import Flow
from hfvae.priors.normal import StandardNormal

pytestmark = pytest.mark.quick


def trained_flow(dim, layers=4, width=16, size=0.3):
    """A flow that bends space: as new ones do not, with weights as training leaves them."""
    flow = Flow(dim, layers, width)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(size * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    flow.fitted.fill_(True)
    return flow.eval()


def test_what_the_flow_does_it_undoes():
    """For what it draws, and for what a VAE's posteriors draw, which lie where the prior is."""
    flow = trained_flow(32, layers=16, width=64)
    for z in (flow.sample(1000), torch.randn(1000, 32)):
        error = (flow.from_base(flow.to_base(z)) - z).abs()
        assert (error / (1 + z.abs())).max() < 1e-4


def test_draws_that_lie_far_outside_of_all_latents_are_strays():
    flow = trained_flow(6)
    z = flow.sample(5000)
    assert flow.strays(z) < 0.01
    assert flow.strays(z * 1e-3) > 0.99
    with torch.no_grad():
        flow.maps[0, 0] = torch.nan
    assert flow.strays(z) == 1


def test_what_the_flow_does_it_undoes_under_autocast():
    flow, z = trained_flow(6), torch.randn(50, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(flow.from_base(flow.to_base(z)), z, atol=1e-4, rtol=1e-4)


def test_the_change_of_volume_is_that_of_autograd():
    flow, z = trained_flow(5), torch.randn(3, 5)
    u = flow.to_base(z)
    log_det = StandardNormal(5).nll(u) - flow.nll(z)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda x: flow.to_base(x[None])[0], z[i])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[i], atol=1e-4, rtol=0)


def test_the_density_integrates_to_one():
    flow = trained_flow(2)
    side = torch.linspace(-12, 12, 1201)
    z = torch.cartesian_prod(side, side)
    with torch.no_grad():
        mass = torch.cat([torch.exp(-flow.nll(some)) for some in z.split(100_000)]).sum()
    assert mass * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=1e-3)


def test_a_new_flow_is_n01(generator):
    flow, z = Flow(8, 8, 32).eval(), 3 * torch.randn(100, 8)
    torch.testing.assert_close(flow.nll(z), StandardNormal(8).nll(z), atol=1e-4, rtol=0)
    # And its rate averages to the KL: 10,000 draws, 5 standard errors, once in 10^6 by chance.
    posterior = GaussianPosterior(torch.randn(1, 8), torch.randn(1, 8))
    many = posterior.repeat(10_000)
    rate = many.rate(many.sample(generator()), flow)
    exact = posterior.rate(posterior.mode(), StandardNormal(8))
    assert abs(rate.mean() - exact) < 5 * rate.std() / 100


def test_draws_follow_the_density(generator):
    """In the base they are those of N(0, I)."""
    flow = trained_flow(4)
    z = flow.sample(20_000, generator=generator())
    u = flow.to_base(z)
    assert u.mean(0).abs().max() < 5 / 20_000**0.5
    assert (u.var(0) - 1).abs().max() < 5 * (2 / 20_000) ** 0.5
    mode = flow.from_base(torch.zeros(3, 4))
    torch.testing.assert_close(flow.sample(3, 0.0), mode, atol=1e-6, rtol=0)
    half = flow.from_base(0.5 * torch.randn(5, 4, generator=generator(1)))
    torch.testing.assert_close(flow.sample(5, 0.5, generator(1)), half)  # temperature of the base


def test_factors_that_are_known_become_axes_of_the_base():
    """At no cost: the density stays. Before, no axis means anything."""
    flow, directions = trained_flow(8), torch.linalg.qr(torch.randn(8, 8))[0]
    z = flow.sample(5000)
    along = flow.to_base(z) @ directions[:, :3]
    values = torch.bucketize(along, torch.tensor([-1.0, -0.3, 0.3, 1.0]))
    factors = torch.cat([values, torch.zeros_like(values[:, :1])], dim=1)  # the last never changes

    def explained():
        return torch.stack([F.correlation_ratio(flow.to_base(z), v) for v in factors.T])

    def way():
        return flow.from_base(F.slerp(*flow.to_base(z[:2]).split(1), torch.tensor([[0.3], [0.7]])))

    before, nats, stays = explained(), flow.nll(z), way()
    flow.turn(z, factors)
    torch.testing.assert_close(way(), stays, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(flow.nll(z), nats, atol=1e-3, rtol=0)
    torch.testing.assert_close(flow.from_base(flow.to_base(z)), z, atol=1e-3, rtol=1e-3)
    after = explained()
    assert (after[:3].max(1).values > 0.8).all()
    assert (before[:3].max(1).values < 0.8).any()
    assert sorted(after[:3].argmax(1).tolist()) == [0, 1, 2]
    assert (after[3] < 1e-9).all()


def test_the_axes_of_factors_come_by_how_far_they_move():
    along, across = torch.tensor([0.0, 0, 1, 0]), torch.tensor([0.6, 0.8, 0, 0])
    factors = torch.cartesian_prod(torch.arange(2), torch.arange(3))  # the second moves z more
    axes = F.factor_axes(factors[:, :1] * across + 4.0 * factors[:, 1:] * along, factors)
    torch.testing.assert_close(axes.T @ axes, torch.eye(4))
    torch.testing.assert_close(
        (axes[:, :2].T @ torch.stack([along, across], 1)).abs(), torch.eye(2)
    )


def test_a_factor_explains_what_does_not_vary_within_its_values():
    values = torch.randint(3, (300,))
    z = torch.randn(300, 2) + torch.stack([values, 0 * values], 1)
    within = torch.stack([z[values == v].var(0, correction=0) for v in range(3)])
    left = torch.bincount(values) / 300 @ within / z.var(0, correction=0)
    torch.testing.assert_close(F.correlation_ratio(z, values), 1 - left.double(), atol=1e-5, rtol=0)


def test_a_flow_saved_before_its_base_could_turn_loads_unturned(tmp_path):
    model = VAE(VAEConfig(image_size=8, latent_dim=3, prior="flow")).eval()
    del model.prior._buffers["axes"]
    model.save_pretrained(tmp_path)
    assert torch.equal(hfvae.from_pretrained(tmp_path).prior.axes, torch.eye(3))


def test_half_precision_keeps_its_densities():
    flow, z = trained_flow(8), torch.randn(20, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = flow.nll(z)
    assert torch.equal(inside, flow.nll(z))
    exact = flow.nll(z)
    assert flow.half().nll(z).dtype == torch.float32
    torch.testing.assert_close(flow.nll(z), exact, atol=0.1, rtol=0)  # of the rounded weights


def test_ways_run_through_the_base_and_end_where_the_images_are():
    model = VAE(VAEConfig(image_size=16, latent_dim=4, widths=(8,), prior="flow")).eval()
    model.prior = trained_flow(4)
    a, b = torch.rand(2, 3, 16, 16)
    way = model.interpolate(a, b, steps=5)
    torch.testing.assert_close(way[[0, -1]], model.reconstruct(torch.stack([a, b])))
    base = model.prior.to_base(model.encode(torch.stack([a, b])))
    halfway = model.interpolate(a, b, steps=3, mode="lerp")[1:2]
    torch.testing.assert_close(halfway, model.decode(model.prior.from_base(base.mean(0)[None])))


def test_ways_of_what_the_flow_does_not_know_are_those_of_z():
    """It stretches a picture unlike all that it learned, and what lies between is no image."""
    model = VAE(VAEConfig(image_size=16, latent_dim=4, widths=(8,), prior="flow")).eval()
    model.prior, (a, b) = trained_flow(4), torch.rand(2, 3, 16, 16)
    z = model.encode(torch.stack([a, b]))
    assert model.prior.around(z) is model.prior
    with torch.no_grad():
        model.prior.maps[0] *= 1000  # as if it had learned from latents that are far smaller
    assert model.prior.around(z).letter == "z"
    assert model.prior.around(torch.cat([z * 1e-3, z[:1]])).letter == "z"  # one is enough
    assert model.prior.around(z * torch.nan).letter == "z"
    halfway = model.between(a, b, [0.5], mode="lerp")
    torch.testing.assert_close(halfway, model.decode(z.mean(0)[None]))
    explorer = VectorExplorer(model, {"hair": 2})
    with torch.inference_mode():
        shown = explorer.show(hfvae.to_pil(a[None])[0])["sliders"]
    assert "knows nothing like this picture" in shown["hint"]
    assert all(label.startswith("z") and "hair" not in label for label in shown["labels"])


def test_gradients_reach_encoder_and_flow_and_training_counts_as_fitted():
    model = VAE(VAEConfig(image_size=16, latent_dim=4, widths=(8,), prior="flow"))
    with pytest.warns(UserWarning, match="fitted to no latents"):
        model.prior.sample(1)
    out = model(torch.rand(4, 3, 16, 16))
    out.rate.sum().backward()
    assert all(p.grad is not None for p in model.prior.parameters())
    assert model.encoder.body[0].weight.grad is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.prior.sample(1)


def test_only_a_flow_needs_the_second_format(tmp_path):
    for prior, version in [("flow", 2), ("standard-normal", 1), ("mixture", 1)]:
        model = VAE(VAEConfig(image_size=8, latent_dim=3, prior=prior)).eval()
        model.save_pretrained(tmp_path / prior)
        settings = json.loads((tmp_path / prior / "config.json").read_text())
        assert settings["format_version"] == version
        assert ("prior_layers" in settings) == (prior == "flow")
        again = hfvae.from_pretrained(tmp_path / prior)
        assert again.config == model.config
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_flow_is_learned_with_the_model(tmp_path, train_py):
    """And not afterwards: N(0, I) is far from where latents of one in four dimensions end."""
    out = tmp_path / "out"
    words = train_py(
        "--model", "flow-vae", "--dataset", "sprites", "--resolution", 16, "--latent_dim", 4,
        "--max_train_steps", 30, "--train_batch_size", 16, "--output_dir", out,
    )  # fmt: skip
    model = hfvae.from_pretrained(out)
    assert model.config.prior == "flow"
    assert model.prior.fitted
    assert "fitted the" not in words
    assert "turned the base of the flow towards the factors" in words
    assert not torch.allclose(model.prior.axes, torch.eye(4))
    results = json.loads((out / "evaluation.json").read_text())
    assert results["elbo"] == pytest.approx(-results["reconstruction"] - results["kl"], rel=1e-6)
    assert "flow prior" in (out / "README.md").read_text()
    z = torch.randn(200, 4)
    assert not torch.allclose(model.prior.nll(z), StandardNormal(4).nll(z), atol=0.1)
    assert model.prior.nll(z).isfinite().all()


def test_a_flow_goes_on_when_its_model_is_fine_tuned(tmp_path, train_py):
    """With no word of --model: under N(0, I) its latents would be far from where they may be."""
    base = VAE(VAEConfig(image_size=16, latent_dim=4, widths=(8,), prior="flow", hidden=8))
    base.prior.fitted.fill_(True)
    base.save_pretrained(tmp_path / "base")
    train_py(
        "--model_name_or_path", tmp_path / "base", "--dataset", "sprites",
        "--max_train_steps", 1, "--train_batch_size", 8, "--output_dir", tmp_path / "out",
    )  # fmt: skip
    tuned = hfvae.from_pretrained(tmp_path / "out")
    assert tuned.config == base.config
    assert (tuned.prior.maps - base.prior.maps).abs().max() < 0.01


def test_explore_moves_in_the_base_and_says_so():
    """Where every place is a likely image: in z single numbers lead out of all of them."""
    model = VAE(VAEConfig(image_size=16, latent_dim=4, widths=(8,), prior="flow")).eval()
    model.prior = trained_flow(4)
    explorer = VectorExplorer(model, {})
    picture = hfvae.to_pil(torch.rand(1, 3, 16, 16))[0]
    with torch.inference_mode():
        sliders = explorer.show(picture)["sliders"]
        u, telling = explorer.read(picture)
        x = model.preprocess(picture)
        decoded = explorer.decoded(u, model.prior)
        torch.testing.assert_close(decoded, model.reconstruct(x), atol=1e-4, rtol=0)
        torch.testing.assert_close(u, model.prior.to_base(model.encode(x)))
        assert telling is explorer.compared(model.prior)
    assert "base space" in sliders["hint"]
    assert all(label.startswith("u") for label in telling.labels)
