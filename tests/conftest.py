import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test reaches the Hub
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest
import torch

from hfvae import VAE, VAEConfig


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def config():
    return VAEConfig(image_size=(10, 12), channels=3, latent_dim=4, widths=(8, 16))


@pytest.fixture
def model(config):
    """A small model that has seen one batch, so that BatchNorm has statistics."""
    model = VAE(config)
    model(torch.rand(16, 3, 10, 12))
    return model.eval()


@pytest.fixture
def x():
    """Four images on the 256 levels."""
    return torch.randint(0, 256, (4, 3, 10, 12)) / 255


@pytest.fixture
def generator():
    """Generators with a seed: generator(3)."""
    return lambda seed=0: torch.Generator().manual_seed(seed)
