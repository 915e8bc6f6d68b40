import fcntl
import os
import tempfile

from loopback import Hub

CORES, PROCESSES = os.cpu_count() or 1, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
# A worker finds in its environment what pytest set for itself alone.
THREADS = min(int(os.environ.get("OMP_NUM_THREADS", CORES)), max(1, CORES // PROCESSES))
HUB = Hub()
HOME = tempfile.TemporaryDirectory(prefix="hfvae-tests-")
# The client reads these when it is imported. No test reaches the real Hub.
os.environ |= {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": HOME.name,
    "TRACKIO_DIR": f"{HOME.name}/trackio",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    # As many as there are for a process, the same for all runs: they are compared bit for bit.
    "OMP_NUM_THREADS": str(THREADS),
}
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
    os.environ.pop(name, None)

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

import hfvae
from hfvae import VAE, VAEConfig
from hfvae.data import ImageSet
from hfvae.hub.card import render_card
from hfvae.report import reconstructions_png, samples_png

sys.path.insert(0, str(Path(__file__).parent.parent))  # train.py and app.py


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Tests share a lock that one which measures time has for itself."""
    with (item.config.rootpath / "pyproject.toml").open() as file:
        alone = item.get_closest_marker("alone")
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


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


def with_pictures(model, folder):
    """Its card and pictures beside a model; returns the held-out images in them, (16, C, H, W)."""
    shape = (16, model.config.channels, *model.config.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    (folder / "samples.png").write_bytes(samples_png(model))
    held_out = ImageSet("noise", "test", pixels)
    (folder / "reconstructions.png").write_bytes(reconstructions_png(model, held_out))
    card = render_card(model.config, name=folder.name, pictures=True)
    (folder / "README.md").write_text(card, "utf-8")
    return held_out.batch(slice(None))


DEMO_MODELS = ["colour", "binary", "codes", "plain", "fitted"]


@pytest.fixture(scope="session")
def demo_models(tmp_path_factory):
    """Small models of every family: VAEs, one of them of binary pixels, a VQ-VAE, two AEs."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    shape = {"image_size": (16, 20), "widths": (8,)}
    plain = {"latent_dim": 4, **shape}
    models = {
        "colour": hfvae.VAE(hfvae.VAEConfig(latent_dim=4, **shape)),
        "binary": hfvae.VAE(hfvae.VAEConfig(channels=1, likelihood="bernoulli", **shape)),
        "codes": hfvae.VQVAE(hfvae.VQVAEConfig(codebook_size=12, **shape)),
        "plain": hfvae.Autoencoder(hfvae.AutoencoderConfig(**plain)),
        "fitted": hfvae.Autoencoder(hfvae.AutoencoderConfig(**plain, prior="mixture")),
    }
    models["fitted"].prior.fit(torch.randn(200, 4), seed=0)
    for name, model in models.items():
        model(torch.rand(8, model.config.channels, 16, 20).round())
        model.save_pretrained(folder / name)
    (folder / "colour" / "evaluation.json").write_text('{"latent_x": 2, "latent_colour": 2}')
    with_pictures(models["colour"], folder / "colour")
    return folder


@pytest.fixture(scope="session")
def demo_url(demo_models, tmp_path_factory):
    """The demo of these models, on a port of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        import app

        app.give_back_large_memory()  # as main does
        sources = [str(demo_models / name) for name in DEMO_MODELS]
        demo = app.build(app.Models(sources, allow_hub=True))
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
        yield url
        demo.close()


@pytest.fixture
def train_py(monkeypatch, capsys):
    """train.py in this process, which saves the imports: what it printed, ending with a status."""
    import train

    def run(*argv, status=0):
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, argv)])
        ended = 0
        try:
            train.main()
        except SystemExit as stop:
            ended = stop.code
        finally:
            AcceleratorState._reset_state(True)  # it keeps what the first run in a process chose
        printed = capsys.readouterr()
        words = printed.out + printed.err
        assert ended in (status if isinstance(status, tuple) else (status,)), words
        return words

    return run


@pytest.fixture(scope="module")
def client(demo_url):
    """A client of that demo, in a session of its own."""
    from gradio_client import Client

    return Client(demo_url, verbose=False)


@pytest.fixture
def picture(tmp_path):
    """A file of noise as the client takes it: picture("b.png", seed=1)."""
    from gradio_client import handle_file

    def make(name="a.png", size=(50, 40), seed=0, **kwargs):
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name, **kwargs)
        return handle_file(str(tmp_path / name))

    return make
