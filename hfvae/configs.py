"""What a model is made of: flat, frozen, JSON-plain dataclasses that *are* config.json.

Every value is checked when a config is made, before anything is built from it, so that a hostile
or mistyped config.json costs nothing.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, ClassVar, NamedTuple


class PriorEntry(NamedTuple):
    """A prior by its name in a config.

    Attributes:
        home: its class, or where in `hfvae.priors` that is.
        families: the model_types that may have it; "spatial-vae" for a VAE whose latent is a grid.
        settings: the fields of a config that are for it.
    """

    home: Any
    families: tuple[str, ...]
    settings: tuple[str, ...] = ()


PRIORS: dict[str, PriorEntry] = {
    "none": PriorEntry("base.NoPrior", ("autoencoder",)),
    "standard-normal": PriorEntry("normal.StandardNormal", ("vae", "spatial-vae")),
    "mixture": PriorEntry("mixture.GaussianMixture", ("autoencoder", "vae"), ("prior_components",)),
    "flow": PriorEntry("flow.Flow", ("vae",), ("prior_layers", "prior_width")),
    "uniform": PriorEntry("uniform.Uniform", ("vq-vae",)),
    "autoregressive": PriorEntry(
        "autoregressive.Autoregressive",
        ("vq-vae", "spatial-vae"),
        ("prior_layers", "prior_width", "prior_components"),
    ),
}

MAX_DIMS = 2**26  # numbers in an image: 4096x4096 pixels in 4 channels

Check = Callable[[str, Any], Any]  # (name, value) -> the value as it is kept, or an exception


def integer(low: int, high: int) -> Check:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number, not {value!r:.80}")
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low} to {high}, not {value!r:.80}")
        return value

    return check


def number(low: float, high: float) -> Check:
    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, not {value!r:.80}")
        if not low <= value <= high:  # NaN is not
            raise ValueError(f"{name} must be from {low} to {high}, not {value!r:.80}")
        return float(value)

    return check


def one_of(*words: str) -> Check:
    def check(name: str, value: Any) -> str:
        if value not in words:
            raise ValueError(f"{name} must be one of {', '.join(words)}; not {value!r:.80}")
        return value

    return check


def registered(registry: Mapping[str, Any]) -> Check:
    """One of the names in a registry, as it is when the check is made."""
    return lambda name, value: one_of(*registry)(name, value)


def several(check_item: Check, low: int, high: int) -> Check:
    def check(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{name} must be a list, not {value!r:.80}")
        if not low <= len(value) <= high:
            raise ValueError(f"{name} must have {low} to {high} entries, not {len(value)}")
        found = tuple(check_item(name, item) for item in value)
        return value if isinstance(value, Derived) else found

    return check


def size_in_pixels(name: str, value: Any) -> int | tuple[int, ...]:
    side = integer(8, 4096)
    return (
        several(side, 2, 2)(name, value) if isinstance(value, (list, tuple)) else side(name, value)
    )


def optional(check_given: Check) -> Check:
    return lambda name, value: None if value is None else check_given(name, value)


def word(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a name, not {value!r:.80}")
    return value


def switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, not {value!r:.80}")
    return value


def heads(name: str, value: Any) -> int:
    """The width of a transformer, which is shared out among its heads."""
    width = integer(8, 4096)(name, value)
    if width % 8:
        raise ValueError(f"{name} must be a multiple of 8, not {width}")
    return width


LIKELIHOODS = ("discretized-logistic", "gaussian", "bernoulli")


def checked(default: Any, check: Check, *, only_for: Callable[[Any], bool] | None = None) -> Any:
    """A field of a config; `only_for` tells which have one that the first format did not know."""
    return field(default=default, metadata={"check": check, "only_for": only_for})


class Derived:
    """A value that follows from others: `dataclasses.replace` derives it anew when they change."""


class DerivedWidths(Derived, tuple[int, ...]):
    pass


class DerivedNumber(Derived, int):
    pass


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every family shares.

    Args:
        image_size: one number for squares, or (height, width), from 8 up.
        channels: 1 for grey, 3 for colour, 4 with transparency; any number works.
        likelihood: p(x|z), see `hfvae.likelihoods`.
        prior: p(z), see `hfvae.priors`; which there are depends on the family.
        scale: the likelihood's spread (a Gaussian's standard deviation, a logistic's scale) for
            pixels in [0, 1]. None learns it, which balances reconstruction and KL.
        widths: channels after each halving of the image; chosen from its size if empty.
        blocks: residual blocks at the coarsest resolution, in encoder and decoder each.
        hidden: width of a fully connected layer on either side of a latent vector; 0 for none.
            None is 512 for binary pixels and 0 otherwise: measured, not a principle.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a value is out of bounds or not one of the choices.
    """

    model_type: ClassVar[str]
    finest: ClassVar[int] = 16  # default widths start here: the finest map costs the most time
    coarsest: ClassVar[int] = 4  # and halve the image until its longer side is this

    image_size: int | tuple[int, int] = checked(32, size_in_pixels)
    channels: int = checked(3, integer(1, 256))
    likelihood: str = checked(LIKELIHOODS[0], one_of(*LIKELIHOODS))
    prior: str = checked("none", word)
    scale: float | None = checked(None, optional(number(1e-3, 1e3)))
    widths: tuple[int, ...] = checked((), several(integer(1, 4096), 0, 12))
    blocks: int = checked(0, integer(0, 64))
    hidden: int | None = checked(None, optional(integer(0, 65536)))

    def __post_init__(self) -> None:
        for f in fields(self):
            value = f.metadata["check"](f.name, getattr(self, f.name))
            object.__setattr__(self, f.name, value)
        one_of(*self.priors())("prior", self.prior)
        if self.dims > MAX_DIMS:
            raise ValueError(
                f"an image of {self.dims:,} numbers is too large ({MAX_DIMS:,} at most)"
            )
        for name, value in self.defaults().items():
            given = getattr(self, name)
            if given is None or given == () or isinstance(given, Derived):
                kind = DerivedWidths if isinstance(value, tuple) else DerivedNumber
                object.__setattr__(self, name, kind(value))

    def defaults(self) -> dict[str, Any]:
        """The fields that follow from others unless they are given."""
        return {
            "widths": self.halvings(self.finest, 1, self.coarsest),
            "hidden": 512 if self.likelihood == "bernoulli" else 0,
        }

    def halvings(
        self, finest: int, least: int, coarsest: int, widest: int = 256
    ) -> tuple[int, ...]:
        """Widths from `finest` up, halving the image until its longer side is `coarsest`."""
        count = max(least, math.ceil(math.log2(max(self.size) / coarsest)))
        return tuple(min(finest * 2**i, widest) for i in range(count))

    def settings(self) -> dict[str, Any]:
        """config.json: all fields, but for those that mean nothing to this config."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.metadata["only_for"] is None or f.metadata["only_for"](self)
        }

    @property
    def format_version(self) -> int:
        """2 for what the first format did not know."""
        return 1 + any(f.metadata["only_for"] and f.name in self.settings() for f in fields(self))

    @property
    def kind(self) -> str:
        """What the registry of priors calls such a model."""
        return self.model_type

    @property
    def words(self) -> str:
        """What the family is called on a card."""
        return self.model_type

    @property
    def trained_prior(self) -> str:
        """What train.py gives such a model unless told otherwise."""
        return self.prior

    def priors(self) -> list[str]:
        """The priors that such a model may have."""
        return [name for name, entry in PRIORS.items() if self.kind in entry.families]

    @property
    def rate_weight(self) -> float:
        """What the loss multiplies the rate by."""
        return 1.0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        size = self.image_size
        return size if isinstance(size, tuple) else (size, size)

    @property
    def dims(self) -> int:
        """C·H·W, how many numbers an image has."""
        return self.channels * self.size[0] * self.size[1]


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(Config):
    """An autoencoder: latents without a price, and so without a shape to draw new ones from.

    Args:
        latent_dim: how many numbers z has.
        prior: "none" for a new model; "mixture" once one was fitted to its codes.
        prior_components: Gaussians in a mixture.
    """

    model_type = "autoencoder"
    words: ClassVar[str] = "An autoencoder"
    trained_prior: ClassVar[str] = "mixture"

    latent_dim: int = checked(32, integer(1, 65536))
    prior_components: int = checked(10, integer(1, 1000))


def layered(config: "VAEConfig") -> bool:
    """Whether the prior is a network."""
    return config.prior in PRIORS and "prior_layers" in PRIORS[config.prior].settings


@dataclass(frozen=True, kw_only=True)
class VAEConfig(Config):
    """A VAE (Kingma & Welling 2014); with beta ≠ 1 a β-VAE (Higgins et al. 2017).

    Args:
        latent_dim: how many numbers z has; of a grid, each of its cells. None is 32, or 8.
        spatial: whether z is a grid (latent_dim, h, w), for images that one vector cannot hold.
        beta: weight of KL(q(z|x) ‖ p(z)), in nats per image; 1 makes the loss the negative ELBO.
        prior: "standard-normal"; "flow", learned with the model; or "mixture" once one was fitted
            to posterior samples. Of a grid "standard-normal", or "autoregressive" once a
            transformer was trained on its cells.
        prior_components: Gaussians in a mixture, of latents or for each cell.
        prior_layers, prior_width: couplings of a flow and the width of their networks; or the size
            of a transformer.
    """

    model_type = "vae"

    spatial: bool = checked(False, switch, only_for=lambda config: config.spatial)
    latent_dim: int = checked(None, optional(integer(1, 65536)))
    blocks: int = checked(None, optional(integer(0, 64)))
    beta: float = checked(1.0, number(0, 1e6))
    prior: str = checked("standard-normal", word)
    prior_components: int = checked(10, integer(1, 1000))
    prior_layers: int = checked(None, optional(integer(1, 64)), only_for=layered)
    prior_width: int = checked(None, optional(integer(1, 4096)), only_for=layered)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spatial and self.hidden:
            raise ValueError(f"hidden must be 0 for a grid of latents, not {self.hidden}")
        if self.prior == "autoregressive":
            heads("prior_width", self.prior_width)

    def defaults(self) -> dict[str, Any]:
        if not self.spatial:
            more = {"latent_dim": 32, "blocks": 0, "prior_layers": 8, "prior_width": 128}
            return super().defaults() | more
        # A cell for 8 pixels a side or more (Rombach et al. 2022, arXiv:2112.10752, section 4.1),
        # and at most 32 a side, because a transformer has to draw them one by one.
        return {
            "widths": self.halvings(32, 3, 32, widest=128),
            "hidden": 0,
            "latent_dim": 8,
            "blocks": 2,
            "prior_layers": 4,
            "prior_width": 128,
        }

    @property
    def kind(self) -> str:
        return "spatial-vae" if self.spatial else self.model_type

    @property
    def words(self) -> str:
        return f"A {'spatial ' * self.spatial}variational autoencoder (VAE)"

    @property
    def trained_prior(self) -> str:
        return "autoregressive" if self.spatial else "mixture"

    @property
    def rate_weight(self) -> float:
        return self.beta


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig(Config):
    """A VQ-VAE (van den Oord et al. 2017): latents are a grid of codes.

    Args:
        quantizer: "vq", the nearest vector of a codebook; or "fsq", every channel rounded to a few
            levels (Mentzer et al. 2024), a codebook that cannot collapse.
        codebook_size: how many codes; for fsq a product of numbers from 3 to 8.
        embedding_dim: length of the codebook's vectors; fsq has its own.
        commitment: weight of the commitment term, in nats per image.
        ema_decay: of the moving averages that are the codebook; 0 learns it by gradient instead.
        prior: "uniform" for a new model; "autoregressive" once a transformer was trained on codes.
        prior_width, prior_layers: size of that transformer.
    """

    model_type = "vq-vae"
    words: ClassVar[str] = "A vector-quantized variational autoencoder (VQ-VAE)"
    trained_prior: ClassVar[str] = "autoregressive"
    finest = 32
    coarsest = 8

    blocks: int = checked(2, integer(0, 64))
    hidden: int | None = checked(0, integer(0, 0))  # a grid has no place for it
    quantizer: str = checked("vq", one_of("vq", "fsq"))
    codebook_size: int = checked(512, integer(3, 65536))
    embedding_dim: int = checked(16, integer(1, 4096))
    commitment: float = checked(0.25, number(0, 1e6))
    ema_decay: float = checked(0.99, number(0, 0.99999))
    prior: str = checked("uniform", word)
    prior_width: int = checked(128, heads)
    prior_layers: int = checked(4, integer(1, 64))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantizer == "fsq":
            fsq_levels(self.codebook_size)


def fsq_levels(codebook_size: int) -> tuple[int, ...]:
    """The levels of each channel, 3 to 8, whose product is the codebook: as few as will do.

    Raises:
        ValueError: the size is no such product.
    """
    for count in range(1, 11):  # eleven of them make 3¹¹ codes or more, which is too many
        for levels in combinations_with_replacement(range(8, 2, -1), count):
            if math.prod(levels) == codebook_size:
                return levels
    raise ValueError(
        f"an fsq codebook_size is a product of numbers from 3 to 8, such as 256 or 1000, "
        f"not {codebook_size}"
    )


# What `train.py --model` offers. The beta-VAE's scale is fixed because a learned one would shrink
# until the reconstruction drowns beta again. Its hidden layer (as in Burgess et al. 2018) keeps
# factors apart: a nearly linear encoder codes the place of a thing times its size.
PRESETS: dict[str, partial[Config]] = {
    "autoencoder": partial(AutoencoderConfig),
    "vae": partial(VAEConfig),
    "flow-vae": partial(VAEConfig, prior="flow"),
    "beta-vae": partial(VAEConfig, beta=4.0, latent_dim=10, scale=0.1, hidden=256),
    "spatial-vae": partial(VAEConfig, spatial=True),
    "vq-vae": partial(VQVAEConfig),
    "fsq-vae": partial(VQVAEConfig, quantizer="fsq"),
}
