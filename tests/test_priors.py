import itertools
import math

import pytest
import torch
from memory import growth_alone
from torch.distributions import MultivariateNormal

from hfvae import VAE, VQVAE, Autoencoder, AutoencoderConfig, VAEConfig, VQVAEConfig
from hfvae import functional as F
from hfvae.priors.autoregressive import AutoregressiveCodes
from hfvae.priors.mixture import GaussianMixture
from hfvae.priors.normal import StandardNormal
from hfvae.priors.uniform import Uniform

pytestmark = pytest.mark.quick


@pytest.fixture
def transformer():
    prior = AutoregressiveCodes(3, (2, 2), width=16, layers=2)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # far from uniform
    return prior.eval()


EVERY_CODE = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 2, 2)


@pytest.mark.parametrize("kind", ["uniform", "transformer"])
def test_probabilities_of_all_codes_sum_to_one(kind, transformer):
    prior = transformer if kind == "transformer" else Uniform(3, (2, 2))
    total = torch.exp(-prior.nll(EVERY_CODE).double()).sum()
    assert total.item() == pytest.approx(1, abs=1e-5)


def test_the_transformer_draws_what_it_says(transformer, generator):
    n = 20_000
    drawn = transformer.sample(n, generator=generator())
    index = (drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
    observed = torch.bincount(index, minlength=81) / n
    expected = torch.exp(-transformer.nll(EVERY_CODE))
    error = torch.sqrt(expected * (1 - expected) / n)
    # 81 cells at 5 standard errors: missed by chance less than once in 10,000.
    assert ((observed - expected).abs() < 5 * error + 1e-9).all()


def test_a_code_depends_only_on_those_before_it(transformer):
    codes = torch.randint(0, 3, (1, 4))
    logits = transformer.tell(codes)
    for t in range(4):
        changed = codes.clone()
        changed[0, t] = (changed[0, t] + 1) % 3
        differs = (transformer.tell(changed) - logits).abs().amax(-1)[0] > 1e-5
        assert not differs[: t + 1].any()
        assert differs[t + 1 :].all()


def test_cached_sampling_equals_uncached(transformer):
    """The greedy codes, by the cache and by running the whole transformer for every place."""
    cached = transformer.sample(2, temperature=0).flatten(1)
    codes = torch.zeros(2, 4, dtype=torch.int64)
    for t in range(4):
        codes[:, t] = transformer.tell(codes)[:, t].argmax(-1)
    assert torch.equal(cached, codes)
    # And the logits on the way, for codes that are not the greedy ones.
    caches = [layer.cache(1, 4) for layer in transformer.layers]
    h, given = transformer.start, torch.tensor([[2, 0, 1, 1]])
    for t in range(4):
        h = h + transformer.position[:, t : t + 1]
        for layer, cache in zip(transformer.layers, caches, strict=True):
            h = layer.step(h, cache, t)
        torch.testing.assert_close(transformer.say(h)[0, 0], transformer.tell(given)[0, t])
        h = transformer.embedding(given[:, t])[:, None]


def test_half_precision_draws_every_code(generator):
    prior = Uniform(2048, (1, 1))
    assert len(prior.sample(40_000, generator=generator()).unique()) == 2048
    transformer = AutoregressiveCodes(512, (1, 1), width=16, layers=1).to(torch.bfloat16)
    with torch.no_grad():
        transformer.head.weight.zero_()
        transformer.head.bias.zero_()
    # 40 expected draws of each: one is missed with a chance below 512 e⁻⁴⁰.
    assert len(transformer.sample(20_480, generator=generator()).unique()) == 512


def test_temperature_divides_logits(transformer, generator):
    n = 10_000
    first = transformer.sample(n, temperature=0.5, generator=generator())[:, 0, 0]
    expected = torch.softmax(2 * transformer.tell(torch.zeros(1, 4, dtype=int))[0, 0], -1)
    observed = torch.bincount(first, minlength=3) / n
    assert (observed - expected).abs().max() < 5 * 0.5 / n**0.5


def mixture():
    prior = GaussianMixture(2, 3)
    prior.weights.copy_(torch.tensor([0.3, 0.7]))
    prior.means.copy_(torch.tensor([[-4.0, 0, 1], [4, 2, 0]]))
    prior.cholesky.copy_(torch.tril(torch.randn(2, 3, 3), -1) + torch.eye(3))
    prior.fitted.fill_(True)
    return prior


def test_the_mixture_is_that_of_its_components():
    prior, z = mixture(), torch.randn(5, 3)
    normals = [
        MultivariateNormal(m, scale_tril=c).log_prob(z)
        for m, c in zip(prior.means, prior.cholesky, strict=True)
    ]
    expected = -torch.logsumexp(torch.stack(normals) + prior.weights.log()[:, None], 0)
    torch.testing.assert_close(prior.nll(z), expected)


def test_a_fitted_mixture_finds_the_one_it_was_drawn_from(generator):
    z = mixture().sample(4000, generator=generator())
    fitted = GaussianMixture(2, 3)
    fitted.fit(z)
    truth, found = mixture_nll(z), fitted.nll(z).mean()
    assert found < truth + 0.01
    assert sorted(fitted.weights.tolist()) == pytest.approx([0.3, 0.7], abs=0.03)


def mixture_nll(z):
    torch.manual_seed(0)
    return mixture().nll(z).mean()


def test_temperature_multiplies_standard_deviations_and_zero_is_the_mode(generator):
    torch.manual_seed(0)
    prior = mixture()
    for kind in (prior, StandardNormal(3)):
        hot, warm = (kind.sample(500, t, generator(1)) for t in (2.0, 1.0))
        mode = kind.sample(500, 0.0, generator(1))
        assert (mode == mode[0]).all()
        if kind is not prior:
            torch.testing.assert_close(hot, 2 * warm)
            continue
        component = torch.cdist(prior.sample(500, 1e-6, generator(1)), prior.means).argmin(1)
        centre = prior.means[component]
        torch.testing.assert_close(hot - centre, 2 * (warm - centre))
        assert kind.nll(mode[:1]) <= kind.nll(prior.means).min()


# Priors inside models


def models():
    yield Autoencoder(AutoencoderConfig(image_size=8, latent_dim=3, prior="mixture"))
    yield VAE(VAEConfig(image_size=8, latent_dim=3, prior="mixture"))
    for quantizer in ("vq", "fsq"):
        for prior in ("uniform", "autoregressive"):
            yield VQVAE(
                VQVAEConfig(
                    image_size=(8, 12),
                    codebook_size=12,
                    quantizer=quantizer,
                    prior=prior,
                    prior_width=16,
                    prior_layers=2,
                    blocks=0,
                )  # fmt: skip
            )


@pytest.mark.parametrize("index", range(6))
def test_every_family_samples_with_its_prior_and_survives_saving(index, tmp_path, generator):

    model = list(models())[index].eval()
    for parameter in model.prior.parameters():
        torch.nn.init.normal_(parameter)
    if isinstance(model.prior, GaussianMixture):
        model.prior.fit(torch.randn(100, 3))
    images = model.sample(5, generator=generator())
    assert torch.equal(images, model.sample(5, generator=generator()))
    model.save_pretrained(tmp_path / "m")
    again = type(model).from_pretrained(tmp_path / "m")
    assert again.config == model.config
    assert torch.equal(images, again.sample(5, generator=generator()))
    x = torch.rand(1, *images.shape[1:])
    assert torch.equal(model.encode(x), again.encode(x))
    ends = model.interpolate(x, images[:1].clamp(0, 1), steps=3)[[0, -1]]
    expected = model.reconstruct(torch.cat([x, images[:1]]))
    torch.testing.assert_close(ends, expected, rtol=0, atol=1e-5)


def test_a_new_autoencoder_has_nothing_to_draw_from():
    model = Autoencoder(AutoencoderConfig(image_size=8))
    with pytest.raises(ValueError, match="no prior over its latents"):
        model.sample(1)
    with pytest.raises(ValueError, match="has no ELBO"):
        model.elbo(torch.rand(1, 3, 8, 8))


def test_an_autoencoder_pays_nothing_for_its_latent():
    model = Autoencoder(AutoencoderConfig(image_size=8)).eval()
    out = model(torch.rand(2, 3, 8, 8))
    assert out.loss == out.metrics["reconstruction"]
    assert out.metrics.keys() == {"reconstruction"}


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_the_elbo_of_a_vq_vae_counts_its_codes(quantizer):
    config = VQVAEConfig(image_size=8, codebook_size=12, quantizer=quantizer)
    model = VQVAE(config).eval()
    x = torch.randint(0, 256, (4, 3, 8, 8)) / 255
    nll = model(x).metrics["reconstruction"]
    cells = math.prod(model.latent_shape[1:])
    assert model.elbo(x).mean().item() == pytest.approx(
        -nll.item() - cells * math.log(12), rel=1e-5
    )


# Importance sampling


class KnownEvidence:
    """x = W z + b + σ·noise with an approximate posterior: a VAE whose log p(x) is known."""

    def __init__(self, prior="standard-normal"):
        torch.manual_seed(1)
        encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        linear = torch.nn.Linear(2, 64)
        decoder = torch.nn.Sequential(linear, torch.nn.Unflatten(1, (1, 8, 8)))
        with torch.no_grad():
            linear.weight.mul_(0.3)
            linear.bias.fill_(0.5)
        config = VAEConfig(
            image_size=8, channels=1, latent_dim=2, likelihood="gaussian", scale=0.3, prior=prior
        )
        self.model = VAE(config, encoder, decoder).eval()
        w = linear.weight.detach().double()
        self.x = (0.5 + 0.05 * torch.randn(1, 1, 8, 8)).clamp(0, 1)
        marginal = MultivariateNormal(
            torch.full((64,), 0.5).double(), w @ w.T + 0.09 * torch.eye(64).double()
        )
        self.log_evidence = marginal.log_prob(self.x.flatten().double()).item()
        # The posterior, a little off, as an encoder would have it.
        covariance = torch.linalg.inv(torch.eye(2) + w.T @ w / 0.09)
        mu = covariance @ w.T @ (self.x.flatten().double() - 0.5) / 0.09
        with torch.no_grad():
            encoder[1].weight.zero_()
            logvar = covariance.diagonal().log() + 0.8
            encoder[1].bias.copy_(torch.cat([mu + 0.2, logvar]))


def test_more_samples_come_closer_to_the_evidence_from_below(generator):
    """ELBO ≤ IS-10 ≤ IS-1000 ≤ log p(x), in the mean of repeats, within 4 standard errors."""
    known = KnownEvidence()
    noise = generator()
    repeats = {
        "elbo": torch.stack([known.model.elbo(known.x, noise) for _ in range(400)]),
        "is10": torch.stack([known.model.log_likelihood(known.x, 10, noise) for _ in range(400)]),
        "is1000": torch.stack(
            [known.model.log_likelihood(known.x, 1000, noise) for _ in range(40)]
        ),
    }
    mean = {name: values.mean().item() for name, values in repeats.items()}
    error = {name: (v.std() / len(v) ** 0.5).item() for name, v in repeats.items()}
    assert mean["elbo"] < mean["is10"] - 4 * (error["elbo"] + error["is10"])
    assert mean["is10"] < mean["is1000"]
    assert mean["is1000"] < known.log_evidence + 4 * error["is1000"]
    assert known.log_evidence - mean["is1000"] < 0.01


def test_the_better_sample_gets_the_larger_weight():
    """Weights the wrong way round would follow the worst sample."""
    log_weights = torch.tensor([[0.0], [-100.0]])
    assert F.importance_bound(log_weights).item() == pytest.approx(-math.log(2))
    same = torch.full((7, 2), -3.0)
    torch.testing.assert_close(F.importance_bound(same), torch.full((2,), -3.0))


def test_chunks_of_the_importance_samples_do_not_matter(model, x, generator, monkeypatch):
    at_once = model.log_likelihood(x, 30, generator())
    monkeypatch.setattr("hfvae.base.CHUNK", 7 * x.numel())
    torch.testing.assert_close(model.log_likelihood(x, 30, generator()), at_once)
    with pytest.raises(ValueError, match="samples must be 1"):
        model.log_likelihood(x, 0)


def test_one_importance_sample_is_the_elbo_of_its_draw(generator):
    """With a mixture that is N(0, I), both bounds must agree with the standard normal prior's."""
    plain, mixed = KnownEvidence(), KnownEvidence("mixture")
    one = mixed.model.log_likelihood(mixed.x, 1, generator())
    torch.testing.assert_close(one, mixed.model.elbo(mixed.x, generator()))
    torch.testing.assert_close(one, plain.model.log_likelihood(plain.x, 1, generator()))
    elbos = torch.stack([mixed.model.elbo(mixed.x) for _ in range(500)])
    closed = torch.stack([plain.model.elbo(plain.x) for _ in range(500)])
    error = (elbos.var() / 500 + closed.var() / 500).sqrt()
    assert abs(elbos.mean() - closed.mean()) < 5 * error


def test_a_prior_that_no_training_would_reach_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match=r"Forgotten comes after the model, .* give it a `share`"):
        type("Forgotten", (StandardNormal,), {"later": True})
    assert type("Trained", (StandardNormal,), {"later": True, "share": 0.5}).later
    assert type("Fitted", (StandardNormal,), {"later": True, "fit": GaussianMixture.fit}).later


def test_many_draws_of_a_large_mixture_need_little_memory(generator):
    prior = GaussianMixture(1, 1500)
    prior.fitted.fill_(True)
    setting = (
        "from hfvae.priors.mixture import GaussianMixture;"
        "prior = GaussianMixture(1, 1500); prior.fitted.fill_(True)"
    )
    assert growth_alone(setting, "prior.sample(64)") < 300  # MB; their matrices are 600
    z = prior.sample(64, generator=generator())
    assert torch.equal(z[:1], prior.sample(64, generator=generator())[:1])
    assert z.std().item() == pytest.approx(1, abs=0.02)
