import os
import tempfile

from loopback import Hub

HUB = Hub()
HOME = tempfile.TemporaryDirectory(prefix="hfvae-tests-")
# The client reads these when it is imported. No test reaches the real Hub.
os.environ |= {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": HOME.name,
    "HF_HUB_DISABLE_XET": "1",  # another protocol for large files, in a binary of its own
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
    os.environ.pop(name, None)

import pytest
import torch

from hfvae import VAE, VAEConfig


@pytest.fixture
def hub(monkeypatch):
    """An empty Hub, and the token of one who may write as "me"."""
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    HUB.reset()
    return HUB


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
