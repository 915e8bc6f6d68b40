"""Variational autoencoders as first-class citizens of the Hugging Face Hub.

The names below are imported when they are first used, so that `import hfvae` costs little.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Autoencoder": "models",
    "AutoencoderConfig": "configs",
    "HubError": "errors",
    "Output": "models",
    "PRESETS": "configs",
    "VAE": "models",
    "VAEConfig": "configs",
    "VQVAE": "models",
    "VQVAEConfig": "configs",
    "from_pretrained": "models",
    "grid": "images",
    "to_pil": "images",
}
__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from .configs import PRESETS, AutoencoderConfig, VAEConfig, VQVAEConfig
    from .errors import HubError
    from .images import grid, to_pil
    from .models import VAE, VQVAE, Autoencoder, Output, from_pretrained


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hfvae' has no attribute {name!r}")
    return getattr(import_module(f"hfvae.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
