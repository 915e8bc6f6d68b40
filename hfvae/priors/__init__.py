"""p(z): what latents cost before an image is seen, and where new images come from.

To add one: a class, and a line that registers it in `hfvae.configs.PRIORS`.
"""

from importlib import import_module
from typing import Any

from ..configs import PRIORS, Config
from .base import NoPrior, Prior

__all__ = ["NoPrior", "Prior", "make_prior", "prior_class"]


def prior_class(name: str) -> type[Prior]:
    """The class that a name was registered with."""
    home: Any = PRIORS[name].home
    if isinstance(home, str):
        module, _, kind = home.rpartition(".")
        home = getattr(import_module(f"{__name__}.{module}"), kind)
    return home


def make_prior(config: Config, shape: tuple[int, ...]) -> Prior:
    """The prior that a config names, over latents or codes (B, *shape)."""
    return prior_class(config.prior).of(config, shape)
