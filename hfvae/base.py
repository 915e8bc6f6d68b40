"""What the families share: an encoder, latents, a decoder, a likelihood and a prior.

x ──encoder──▶ h ──latents──▶ q(z|x) ──draw──▶ z ──decoder──▶ p(x|z)          p(z) = prior
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from . import functional as F
from . import hub
from .configs import Config
from .images import preprocess
from .latents import Latents, Posterior
from .likelihoods import Likelihood, make_likelihood
from .networks import Decoder, Encoder
from .priors import Prior, make_prior

CHUNK = 2**19  # numbers in the images decoded at once: bounds memory, and stays in the cache


class Output(NamedTuple):
    """What `model(x)` returns.

    mean(nll + rate) estimates the negative ELBO, whatever the prior; an autoencoder has none.

    Attributes:
        loss: to call `.backward()` on: mean(nll + beta·rate + penalty), nats per image.
        nll: (B,), −log p(x|z) in nats.
        rate: (B,), what z costs under the model's prior in nats: the KL, or −log p(codes).
        penalty: (B,), what training adds that is no part of the bound, in nats.
        x_hat: (B, C, H, W), the mean of p(x|z).
        z: the latent drawn.
        metrics: `reconstruction` and what the latents report: unweighted, detached means.
    """

    loss: Tensor
    nll: Tensor
    rate: Tensor
    penalty: Tensor
    x_hat: Tensor
    z: Tensor
    metrics: dict[str, Tensor]


def in_eval_mode(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method in eval mode: in training, BatchNorm would mix the images of a batch."""

    @functools.wraps(method)
    def wrapper(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            return method(self, *args, **kwargs)
        finally:
            for module in training:
                module.training = True

    return wrapper


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision is for the networks; latents and log-probabilities need more."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class BaseAutoencoder(nn.Module):
    """What the families share.

    Args:
        config: the sizes, and the names of the parts.
        bottleneck: h -> q(z|x).
        encoder: (B, C, H, W) in [0, 1] -> (B, bottleneck.in_features[, h, w]); the default if None.
        decoder: z -> (B, likelihood.params·C, H, W); the default if None.

    Raises:
        ValueError: a custom encoder or decoder gives another shape than the model needs.
    """

    config_class: ClassVar[type[Config]]
    config: Config
    encoder: nn.Module
    bottleneck: Latents
    decoder: nn.Module
    likelihood: Likelihood
    prior: Prior

    def __init__(
        self,
        config: Config,
        bottleneck: Latents,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.custom_parts = [
            name for name, part in [("encoder", encoder), ("decoder", decoder)] if part is not None
        ]
        self.likelihood = make_likelihood(config.likelihood, config.channels, config.scale)
        self.bottleneck = bottleneck
        layout = (config.widths, config.blocks, config.hidden or 0)
        spatial = len(bottleneck.shape) > 1
        if encoder is None:
            features = bottleneck.in_features
            encoder = Encoder(config.size, config.channels, *layout, features, spatial)
        if decoder is None:
            params = config.channels * self.likelihood.params
            decoder = Decoder(config.size, params, *layout, bottleneck.shape[0], spatial)
        self.encoder, self.decoder = encoder, decoder
        if self.custom_parts:
            self._check_parts()
        self.prior = make_prior(config, bottleneck.event_shape)

    # The objective

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Output:
        """Encode, draw, decode, score: every family minimises

            loss = mean over the batch of  −log p(x|z) + beta · rate + penalty

        With beta = 1 and no penalty it is the negative ELBO, an upper bound on −log p(x): by
        Jensen's inequality, log p(x) = log E_q[p(x|z) p(z) / q(z|x)] ≥ E_q[log p(x|z) − rate].
        z is drawn in training and in eval mode alike.

        Args:
            x: (B, C, H, W) in [0, 1].
            generator: where the noise comes from.

        Raises:
            ValueError, TypeError: x has another shape or dtype than the model, or, on a CPU, values
                outside [0, 1]: a GPU would have to wait for that answer.
        """
        self._check_shape(x)
        if x.device.type == "cpu":
            self._check_range(x)
        return self.score(x, self.bottleneck(self._features(x), generator), generator)

    def score(
        self, x: Tensor, posterior: Posterior, generator: torch.Generator | None = None
    ) -> Output:
        """What `forward` does of images whose posterior is known."""
        z = posterior.sample(generator)
        params = self._params(z)
        nll = self.likelihood.nll(at_least_float32(x), params)
        rate = posterior.rate(z, self.prior)
        penalty = torch.zeros_like(nll) + posterior.penalty()
        metrics = {"reconstruction": nll.mean(), **posterior.metrics(rate)}
        return Output(
            loss=(nll + self.config.rate_weight * rate + penalty).mean(),
            nll=nll,
            rate=rate,
            penalty=penalty,
            x_hat=self.likelihood.mean(params),
            z=z,
            metrics={name: value.detach() for name, value in metrics.items()},
        )

    @in_eval_mode
    def elbo(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A one-sample estimate of the ELBO, (B,) in nats, whatever `beta` is.

        Its mean is a lower bound on log p(x).

        Raises:
            ValueError: the model has no p(x), or the pixels are not what its likelihood is over.
        """
        if not self.bottleneck.random:
            raise ValueError(f"a plain {type(self).__name__} defines no p(x), so it has no ELBO")
        self.likelihood.check(x)
        out = self.score(x, self.infer(x), generator)
        return -(out.nll + out.rate)

    def importance_bound(
        self, x: Tensor, posterior: Any, samples: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """log [(1/K) Σ p(x|z_k) p(z_k) / q(z_k|x)], (B,) in nats, for posteriors with a density.

        The K·B latents are drawn and decoded a few at a time.
        """
        log_weights = []
        for start in range(0, samples, few := max(1, CHUNK // x.numel())):
            q = posterior.repeat(k := min(few, samples - start))
            z = q.sample(generator)
            many = at_least_float32(x).repeat(k, *[1] * (x.ndim - 1))
            nll = self.likelihood.nll(many, self._params(z))
            log_weights.append(q.nll(z) - self.prior.nll(z) - nll)
        return F.importance_bound(torch.cat(log_weights).view(samples, len(x)))

    # Images to latents and back

    @in_eval_mode
    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the latent that `decode` takes; no noise."""
        return self.bottleneck.quantize(self._mode(x))

    @in_eval_mode
    def decode(self, z: Tensor) -> Tensor:
        """A batch of latents -> the mean of p(x|z), (B, C, H, W) in [0, 1]."""
        if tuple(z.shape[1:]) != self.latent_shape:
            raise ValueError(
                f"expected latents of shape (B, {', '.join(map(str, self.latent_shape))}), "
                f"got {tuple(z.shape)}"
            )
        return self.likelihood.mean(self._params(z)).to(self.dtype)

    def reconstruct(self, x: Tensor) -> Tensor:
        """decode(encode(x)): (B, C, H, W) in [0, 1] -> the same shape."""
        return self.decode(self.encode(x))

    # New images

    @torch.no_grad()
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """n images, (n, C, H, W) in [0, 1]: means of p(x|z) with z from the prior.

        Args:
            n: how many, from 1.
            temperature: multiplies the prior's standard deviations; 0 leaves out all chance.
            generator: the same seed gives the same images.

        Raises:
            ValueError: n or the temperature is out of range, or the model has no prior.
        """
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n must be a whole number from 1, not {n}")
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, not {temperature}")
        drawn = self.prior.sample(n, temperature, generator).to(self.device)
        return self._decode_in_chunks(self.bottleneck.lookup(drawn))

    @torch.no_grad()
    def interpolate(self, a: Tensor, b: Tensor, steps: int = 8, mode: str = "slerp") -> Tensor:
        """A way from image a to image b through the latents, (steps, C, H, W) in [0, 1].

        Args:
            a, b: (C, H, W) or (1, C, H, W) in [0, 1]; the ends are their reconstructions.
            steps: how many images, the ends included, from 2.
            mode: "slerp", along the sphere, or "lerp", straight.

        Raises:
            ValueError: steps, mode or an image is not as described.
        """
        if steps < 2:
            raise ValueError(f"steps must be 2 or more, not {steps}")
        return self.between(a, b, torch.linspace(0, 1, steps), mode)

    @torch.no_grad()
    def between(
        self, a: Tensor, b: Tensor, t: Sequence[float] | Tensor, mode: str = "slerp"
    ) -> Tensor:
        """Places on the way of `interpolate`: (len(t), C, H, W) for t from 0 (a) to 1 (b)."""
        if mode not in ("slerp", "lerp"):
            raise ValueError(f"mode must be 'slerp' or 'lerp', not {mode!r}")
        start, end = self._mode(one_image(a)), self._mode(one_image(b))
        path = F.slerp if mode == "slerp" else F.lerp
        places = torch.as_tensor(t).to(start).view(-1, *[1] * (start.ndim - 1))
        prior = self.prior.around(torch.cat([start, end]))
        z = prior.from_base(path(prior.to_base(start), prior.to_base(end), places))
        z = torch.where(places == 0, start, torch.where(places == 1, end, z))  # no round trip
        return self._decode_in_chunks(self.bottleneck.quantize(z))

    @torch.no_grad()
    def traverse(self, x: Tensor, dim: int, values: Sequence[float] | Tensor) -> Tensor:
        """What one latent does: encode(x) with its entry `dim` replaced by each of `values`.

        Args:
            x: one image, (C, H, W) or (1, C, H, W) in [0, 1].
            dim: which latent, counted channel by channel and row by row; of a VQ-VAE, which cell of
                the code grid.
            values: what it is set to; of a VQ-VAE, codes.

        Returns:
            (len(values), C, H, W) in [0, 1].

        Raises:
            ValueError: the model has no such latent, or no such code.
        """
        z = self.bottleneck.replace(self._mode(one_image(x)), dim, values)
        return self._decode_in_chunks(z)

    def set_prior(self, name: str, **settings: Any) -> None:
        """Give the model a new, untrained prior: another of those that its config may name."""
        self.config = dataclasses.replace(self.config, prior=name, **settings)
        self.prior = make_prior(self.config, self.bottleneck.event_shape).to(self.device)

    def preprocess(self, images: Any) -> Tensor:
        """PIL image, path, array, tensor, batches or a list of them -> what the model takes.

        (B, C, H, W) in [0, 1] of the model's size, on its device and in its dtype.

        See `hfvae.images.preprocess`.
        """
        x = preprocess(images, self.config.size, self.config.channels)
        return x.to(self.device, self.dtype)

    # The Hub

    save_pretrained = hub.save_pretrained
    push_to_hub = hub.push_to_hub

    @classmethod
    def from_pretrained(cls, repo_or_dir: str | Path, **kwargs: Any) -> Any:
        """`hfvae.from_pretrained`, refusing a model of another family before it is fetched."""
        return from_pretrained(repo_or_dir, family=cls, **kwargs)

    # The steps between images, features, latents and the likelihood's parameters

    def _features(self, x: Tensor) -> Tensor:
        """What the encoder makes of images, for the latents."""
        return at_least_float32(self.encoder(x))

    def _params(self, z: Tensor) -> Tensor:
        """What the decoder makes of latents, for the likelihood."""
        return at_least_float32(self.decoder(z.to(self.dtype)))

    @in_eval_mode
    def infer(self, x: Tensor) -> Posterior:
        """q(z|x) for images (B, C, H, W) in [0, 1]."""
        self._check_shape(x)
        self._check_range(x)
        return self.bottleneck(self._features(x))

    def _mode(self, x: Tensor) -> Tensor:
        """The latent without noise and before any rounding."""
        return self.infer(x).mode()

    # Housekeeping

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one z as `decode` takes it."""
        return self.bottleneck.shape

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def _decode_in_chunks(self, z: Tensor) -> Tensor:
        size = max(1, CHUNK // self.config.dims)
        return torch.cat([self.decode(chunk) for chunk in z.split(size)])

    def _check_shape(self, x: Tensor) -> None:
        expected = (self.config.channels, *self.config.size)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"expected images of shape (B, {', '.join(map(str, expected))}), "
                f"got {tuple(x.shape)}; model.preprocess(...) makes them fit"
            )
        if x.dtype != self.dtype:
            raise TypeError(
                f"expected {self.dtype} images in [0, 1], got {x.dtype}; "
                "model.preprocess(...) makes them fit"
            )

    def _check_range(self, x: Tensor) -> None:
        low, high = torch.aminmax(x.detach()) if x.numel() else (x.new_zeros(()), x.new_zeros(()))
        if low.isnan():
            raise ValueError("expected values in [0, 1], got some that are no number (NaN)")
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"expected values in [0, 1], got {low:.4g} to {high:.4g}; "
                "8-bit images are divided by 255, and images in [-1, 1] are (x + 1) / 2"
            )

    @in_eval_mode
    @torch.no_grad()
    def _check_parts(self) -> None:
        """Send one empty image through a custom encoder and decoder."""
        config = self.config
        # Loading builds models on the meta device; a custom part has its own.
        with _device_of(self.encoder):
            x = torch.zeros(1, config.channels, *config.size)
            h = _tried("encoder", self.encoder, x)
        grid = len(self.latent_shape) - 1
        if h.ndim != 2 + grid or h.shape[:2] != (1, self.bottleneck.in_features):
            raise ValueError(
                f"the encoder must map {tuple(x.shape)} to (1, {self.bottleneck.in_features}"
                f"{', h, w' if grid else ''}), and gives {tuple(h.shape)}"
            )
        self.bottleneck.shape = (self.latent_shape[0], *h.shape[2:])
        with _device_of(self.decoder):
            params = _tried("decoder", self.decoder, torch.zeros(1, *self.latent_shape))
        expected = (1, self.likelihood.params * config.channels, *config.size)
        if tuple(params.shape) != expected:
            raise ValueError(
                f"the decoder must map {(1, *self.latent_shape)} to {expected}, "
                f"and gives {tuple(params.shape)}"
            )


def one_image(x: Tensor) -> Tensor:
    """(C, H, W) or (1, C, H, W) -> (1, C, H, W)."""
    x = x[None] if x.ndim == 3 else x
    if len(x) != 1:
        raise ValueError(f"expected one image, got a batch of {len(x)}")
    return x


def _tried(name: str, part: nn.Module, x: Tensor) -> Tensor:
    """What a custom part makes of a batch of one."""
    try:
        return part(x)
    except RuntimeError as error:
        raise ValueError(f"the {name} cannot take {tuple(x.shape)}: {error}") from error


def _device_of(module: nn.Module) -> torch.device:
    tensor = next(module.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device


FAMILIES: dict[str, type[Any]] = {}  # by model_type; `hfvae.models` fills it


def from_pretrained(
    repo_or_dir: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    family: type[BaseAutoencoder] | None = None,
) -> Any:
    """The model in a folder or a Hub repository, of the right family, in eval mode.

    Args:
        repo_or_dir: a folder, or `owner/name` on the Hub. An existing folder wins.
        revision: branch, tag or commit of the repository.
        token: Hub token; by default the one that `hf auth login` saved.
        cache_dir: where downloads are kept.
        force_download: fetch again what is in the cache.
        local_files_only: make no request, use the cache.
        device: where the model goes; the CPU by default.
        dtype: what its floats become; float32 by default, in whatever they are stored.
        encoder, decoder: the custom parts that the model was made with, if it was.
        family: the class that is wanted, where another is to be refused.

    Raises:
        HubError: what was found is no model, or not a sound one; the message says which.
        FileNotFoundError: no such folder or repository, or a file is missing there.
    """
    source = hub.source_of(
        repo_or_dir,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        force_download=force_download,
        local_files_only=local_files_only,
    )
    return hub.load(
        source,
        FAMILIES,
        family=family,
        device=device,
        dtype=dtype,
        encoder=encoder,
        decoder=decoder,
    )
