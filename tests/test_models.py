import dataclasses

import pytest
import torch
from torch import nn

from hfvae import VAE, VQVAE, VAEConfig, VQVAEConfig
from hfvae import functional as F

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("size", [8, 9, 28, 31, (112, 92), (9, 40)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_size_and_channel_count_keeps_its_shape(size, channels):
    model = VAE(VAEConfig(image_size=size, channels=channels, widths=(4, 8), latent_dim=3))
    x = torch.rand(2, channels, *model.config.size)
    out = model(x)
    assert out.x_hat.shape == model.reconstruct(x).shape == x.shape
    assert 0 <= out.x_hat.min() <= out.x_hat.max() <= 1
    assert out.z.shape == (2, 3)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "discretized-logistic"])
def test_the_loss_is_the_negative_elbo(config, likelihood, generator):
    model = VAE(VAEConfig(likelihood=likelihood, image_size=10, latent_dim=4, widths=(8,))).eval()
    x = torch.randint(0, 2, (4, 3, 10, 10)).float()
    out = model(x, generator())
    torch.testing.assert_close(out.loss, -model.elbo(x, generator()).mean())
    metrics = out.metrics
    torch.testing.assert_close(out.loss.detach(), metrics["reconstruction"] + metrics["kl"])
    assert not metrics["kl"].requires_grad


def test_beta_weighs_the_kl_and_leaves_the_elbo_alone(model, x, generator):
    elbo = model.elbo(x, generator())
    model.config = dataclasses.replace(model.config, beta=0.0)
    plain = model(x, generator())
    assert plain.loss == plain.metrics["reconstruction"]
    model.config = dataclasses.replace(model.config, beta=4.0)
    weighed = model(x, generator())
    torch.testing.assert_close(weighed.loss, plain.loss + 4 * plain.metrics["kl"])
    assert torch.equal(model.elbo(x, generator()), elbo)


def test_the_loss_does_not_depend_on_the_batch_size(model, x, monkeypatch):
    """With the same noise for every image, the mean over a batch is the mean of its images."""
    eps = torch.randn(4, 4)
    monkeypatch.setattr(F, "noise", lambda shape, like, generator=None: eps[: shape[0]])
    whole = model(x).loss
    ones = []
    for i in range(4):
        one = eps[i : i + 1]
        monkeypatch.setattr(F, "noise", lambda shape, like, generator=None, one=one: one)
        ones.append(model(x[i : i + 1]).loss)
    torch.testing.assert_close(whole, torch.stack(ones).mean())


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "discretized-logistic"])
def test_the_reconstruction_term_is_proportional_to_the_number_of_pixels(likelihood):
    """For a constant error per pixel; a mean over pixels would make it independent of them."""

    class Constant(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.value = nn.Parameter(torch.full((1, 1, size, size), 0.4))

        def forward(self, z):
            return self.value.expand(len(z), -1, -1, -1)

    terms = []
    for size in (8, 16):
        config = VAEConfig(image_size=size, channels=1, likelihood=likelihood, latent_dim=2)
        model = VAE(config, decoder=Constant(size)).eval()
        terms.append(model(torch.ones(3, 1, size, size)).metrics["reconstruction"])
    torch.testing.assert_close(terms[1], 4 * terms[0])


def test_z_is_drawn_in_train_and_eval_mode_alike(model, x):
    for mode in (True, False):
        model.train(mode)
        assert not torch.equal(model(x).z, model(x).z)


def test_encode_is_the_posterior_mean_and_the_same_each_time(model, x):
    model.train()  # BatchNorm must not mix the batch here
    z = model.encode(x)
    assert model.training
    assert torch.equal(z, model.encode(x))
    assert torch.equal(z, model.posterior(x)[0])
    torch.testing.assert_close(z[:1], model.encode(x[:1]))


def test_sampling_is_seeded_and_chunks_change_only_rounding(model, generator, monkeypatch):
    images = model.sample(7, generator=generator(3))
    assert torch.equal(images, model.sample(7, generator=generator(3)))
    assert not torch.equal(images, model.sample(7, generator=generator(4)))
    monkeypatch.setattr("hfvae.base.CHUNK", 2 * model.config.dims)
    torch.testing.assert_close(images, model.sample(7, generator=generator(3)))


def test_temperature_multiplies_the_noise_and_zero_is_the_mode(model, generator):
    mode = model.decode(torch.zeros(1, 4))
    torch.testing.assert_close(model.sample(2, temperature=0.0), mode.expand(2, -1, -1, -1))
    z = torch.randn(3, 4, generator=generator(5))
    torch.testing.assert_close(
        model.sample(3, temperature=1.7, generator=generator(5)), model.decode(1.7 * z)
    )


@pytest.mark.parametrize(
    "arguments", [{"n": 0}, {"n": 1, "temperature": -1.0}, {"n": 1, "temperature": float("nan")}]
)
def test_senseless_sampling_is_refused(model, arguments):
    with pytest.raises(ValueError, match="n must be|temperature must be"):
        model.sample(**arguments)


@pytest.mark.parametrize("mode", ["slerp", "lerp"])
def test_interpolation_ends_at_the_reconstructions(model, x, mode):
    way = model.interpolate(x[0], x[1:2], steps=5, mode=mode)
    ends = model.reconstruct(x[:2])
    assert way.shape == (5, 3, 10, 12)
    torch.testing.assert_close(way[[0, -1]], ends, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="steps must be 2"):
        model.interpolate(x[0], x[1], steps=1)
    with pytest.raises(ValueError, match="'slerp' or 'lerp'"):
        model.interpolate(x[0], x[1], mode="spline")


def test_traversal_replaces_one_latent(model, x):
    z = model.encode(x[:1]).detach().clone()
    images = model.traverse(x[0], dim=2, values=[-1.0, z[0, 2].item(), 1.0])
    torch.testing.assert_close(images[1:2], model.decode(z))
    z[0, 2] = 1.0
    torch.testing.assert_close(images[2:], model.decode(z))
    with pytest.raises(ValueError, match="dim must be from 0 to 3"):
        model.traverse(x[0], dim=4, values=[0.0])


def test_bad_images_are_refused_in_words(model, x):
    with pytest.raises(ValueError, match=r"shape \(B, 3, 10, 12\), got \(4, 3, 12, 10\)"):
        model(x.transpose(2, 3))
    with pytest.raises(TypeError, match="got torch.uint8"):
        model((x * 255).to(torch.uint8))
    for method in (model.encode, model.reconstruct, model.elbo, model.posterior):
        with pytest.raises(ValueError, match="values in"):
            method(x * 255)
        with pytest.raises(ValueError, match="values in"):
            method(torch.full_like(x, torch.nan))
    with pytest.raises(ValueError, match=r"latents of shape \(B, 4\)"):
        model.decode(torch.zeros(1, 5))
    bernoulli = VAE(VAEConfig(image_size=10, likelihood="bernoulli", widths=(4,)))
    grey = torch.full((1, 3, 10, 10), 0.5)
    bernoulli.reconstruct(grey)
    with pytest.raises(ValueError, match="grey"):
        bernoulli.elbo(grey)


def test_custom_parts_are_used_and_checked_when_built():
    config = VAEConfig(image_size=8, channels=1, latent_dim=2)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
    model = VAE(config, encoder=encoder, decoder=decoder)
    model(torch.rand(2, 1, 8, 8)).loss.backward()
    assert encoder[1].weight.grad.abs().sum() > 0
    assert decoder[0].weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match=r"encoder must map .* to \(1, 4\), and gives \(1, 5\)"):
        VAE(config, encoder=nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))
    with pytest.raises(ValueError, match="decoder must map"):
        VAE(config, decoder=nn.Linear(2, 64))


def test_a_custom_part_that_fails_is_named():
    config = VAEConfig(image_size=8, channels=1, latent_dim=2)
    with pytest.raises(ValueError, match=r"the encoder cannot take \(1, 1, 8, 8\): mat1 and mat2"):
        VAE(config, encoder=nn.Linear(3, 4))


def test_codes_are_whole_numbers(generator):
    model = VQVAE(VQVAEConfig(image_size=16, widths=(4,), codebook_size=12)).eval()
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(model.traverse(x, 0, [3.0]), model.traverse(x, 0, [3]))
    for values in ([1.7], [-0.5], [float("nan")]):
        with pytest.raises(ValueError, match="whole numbers"):
            model.traverse(x, 0, values)
    with pytest.raises(TypeError, match=r"codes are integers, not torch\.float32"):
        model.decode_codes(model.codes(x).float())


def test_a_few_steps_of_training_raise_the_elbo():
    torch.manual_seed(0)
    x = (torch.rand(32, 1, 1, 1) > 0.5).float().expand(32, 1, 8, 8)
    model = VAE(VAEConfig(image_size=8, channels=1, latent_dim=2, widths=(8,)))
    before = model.elbo(x).mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        model(x).loss.backward()
        optimizer.step()
    # Black or white is one bit, and a bound on it is what is left.
    assert before < -100 < -30 < model.elbo(x).mean() < 0


def test_a_frozen_part_stays_frozen():
    """Methods that run in eval mode put back what they found, part by part."""
    config = VAEConfig(image_size=8, channels=1, latent_dim=2)
    encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4)).eval()
    model = VAE(config, encoder=encoder)
    model.encode(torch.rand(3, 1, 8, 8))
    assert not encoder.training
    assert model.decoder.training


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "discretized-logistic"])
def test_half_precision_is_for_the_networks_alone(likelihood, generator):
    """A bfloat16 model has the log-probabilities of float32, but for its networks' rounding."""
    config = VAEConfig(image_size=8, channels=1, likelihood=likelihood, scale=0.02, latent_dim=2)
    model = VAE(config).eval()
    x = torch.randint(0, 2, (2, 1, 8, 8)).float()
    exact = model.elbo(model.likelihood.observe(x, generator(1)), generator())
    model.to(torch.bfloat16)
    half = model.likelihood.observe(x.bfloat16(), generator(1))
    assert half.dtype == torch.bfloat16
    elbo = model.elbo(half, generator())
    assert elbo.dtype == torch.float32
    torch.testing.assert_close(elbo, exact, rtol=0.05, atol=1)
    assert model.sample(2).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_codes_in_half_precision_do_all_that_others_do(dtype, generator):
    config = VQVAEConfig(image_size=8, channels=1, codebook_size=8, widths=(4,), prior_width=8)
    model = VQVAE(config).eval()
    model.set_prior("autoregressive")
    model.to(dtype)
    x = model.sample(2, generator=generator())
    steps = model.interpolate(x[0], x[1], steps=3)
    assert x.dtype == steps.dtype == model.traverse(x[0], 0, [1, 2]).dtype == dtype
    torch.testing.assert_close(steps[0], model.reconstruct(x)[0], rtol=0, atol=1e-2)
    assert model.elbo(x).isfinite().all()


def test_numbers_of_another_kind_are_refused_in_words(model, x):
    for n in (2.5, "3", 0):
        with pytest.raises(ValueError, match=f"n must be a whole number from 1, not {n}"):
            model.sample(n)
    x[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\], got some .* \(NaN\)"):
        model.encode(x)


@pytest.mark.parametrize("scale", [lambda x: x * 255, lambda x: 2 * x - 1])
def test_images_of_another_range_are_refused_in_words(model, x, scale):
    for method in (model, model.encode, model.reconstruct, model.elbo, model.posterior):
        with pytest.raises(ValueError, match=r"expected values in \[0, 1\].*\(x \+ 1\) / 2"):
            method(scale(x))
