"""The peers as they are shipped: their networks, and the loops that train them.

They are installed in a folder of their own, which only the processes of a benchmark see.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hfvae import VQVAE as OurVQVAE
from hfvae.base import BaseAutoencoder

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "runs" / "benchmarks" / "peers"
PACKAGES = ["pythae==0.1.2", "diffusers==0.42.1"]
# What they import beyond what hfvae's own environment has.
THEIRS = ["cloudpickle", "imageio", "importlib_metadata", "regex", "zipp"]
THEIRS += ["requests", "charset_normalizer", "urllib3", "certifi", "idna"]


def install() -> None:
    """Without their dependencies, of which torch alone is several gigabytes and here already."""
    if not (FOLDER / "diffusers").exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(FOLDER)]
        subprocess.run([*pip, *PACKAGES, *THEIRS], check=True)


def worker(script: str, *argv: str) -> dict[str, Any]:
    """One measurement in a fresh process, which prints JSON on its last line."""
    path = os.pathsep.join([str(ROOT), str(FOLDER)])
    done = subprocess.run(
        [sys.executable, script, *argv],
        check=True,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        cwd=ROOT,
    )
    return json.loads(done.stdout.splitlines()[-1])


class TimeUp(Exception):
    """Ends a peer's training from inside."""


class AsEncoder(nn.Module):
    """pythae's encoder with its two answers side by side, as hfvae has them."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        out = self.encoder(x)
        return torch.cat([out.embedding, out.log_covariance], dim=1)


class AsDecoder(nn.Module):
    """pythae's decoder up to its sigmoid, which hfvae's likelihood has."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder
        self.decoder.layers[-1] = decoder.layers[-1][0]

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z).reconstruction


def pythae_model(latent_dim: int = 32, loss: str = "bce") -> Any:
    """Its VAE with its own convolutions for MNIST."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.benchmarks.mnist import Decoder_Conv_AE_MNIST, Encoder_Conv_VAE_MNIST

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=latent_dim, reconstruction_loss=loss)
    return VAE(config, Encoder_Conv_VAE_MNIST(config), Decoder_Conv_AE_MNIST(config))


def pythae_with(model: BaseAutoencoder) -> Any:
    """Its VAE or VQ-VAE around the networks of one of hfvae's."""
    from pythae.models import VAE, VQVAE, VAEConfig, VQVAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            if h.ndim == 4:
                return ModelOutput(embedding=h)
            mu, logvar = h.chunk(2, dim=1)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.body(z))

    config: Any = model.config
    encoder, decoder = Encoder(model.encoder), Decoder(model.decoder)
    size = (config.channels, *config.size)
    if isinstance(model, OurVQVAE):
        latents, codes = config.embedding_dim, config.codebook_size
        settings = VQVAEConfig(input_dim=size, latent_dim=latents, num_embeddings=codes)
        return VQVAE(settings, encoder, decoder)
    return VAE(VAEConfig(input_dim=size, latent_dim=config.latent_dim), encoder, decoder)


def train_pythae(model: Any, x: Tensor, seconds: float, batch: int = 64) -> tuple[int, float]:
    """Its BaseTrainer on images (N, 1, 28, 28): images seen, and the seconds that it took."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class Clock(TrainingCallback):
        steps, start = 0, 0.0

        def on_train_step_begin(self, training_config: Any, **_: Any) -> None:
            self.start = self.start or time.perf_counter()

        def on_train_step_end(self, training_config: Any, **_: Any) -> None:
            self.steps += 1
            if time.perf_counter() - self.start > seconds:
                raise TimeUp

    clock = Clock()
    config = BaseTrainerConfig(
        output_dir=str(FOLDER.parent / "pythae"),
        num_epochs=1000,
        learning_rate=1e-3,  # as in its README; its default is 1e-4
        per_device_train_batch_size=batch,
    )
    data = BaseDataset(x, torch.zeros(len(x)))
    trainer = BaseTrainer(model, data, training_config=config, callbacks=[clock])
    with contextlib.suppress(TimeUp):
        trainer.train()
    return clock.steps * batch, time.perf_counter() - clock.start


def diffusers_model(channels: int = 3, widths: tuple[int, ...] = (32, 64, 128)) -> Any:
    """A small AutoencoderKL: latents of 4 channels, by default a quarter of the image's side."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        latent_channels=4,
    )


class Latents(nn.Module):
    """AutoencoderKL's decoder for latents that come as one vector."""

    def __init__(self, model: Any, side: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Unflatten(1, (4, side, side)), model.post_quant_conv, model.decoder
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z)


def diffusers_networks(model: Any, side: int = 16) -> tuple[nn.Module, nn.Module]:
    """As hfvae takes them, for latents of (4, side, side)."""
    encoder = nn.Sequential(model.encoder, model.quant_conv, nn.Flatten())
    return encoder, Latents(model, side)


def train_diffusers(model: Any, x: Tensor, seconds: float, batch: int = 32) -> tuple[int, float]:
    """The loop of its example trainer without LPIPS and discriminator: accelerate, MSE and KL."""
    from accelerate import Accelerator
    from torch.utils.data import DataLoader, TensorDataset
    from tqdm import tqdm

    accelerator = Accelerator()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loader = DataLoader(TensorDataset(2 * x - 1), batch_size=batch, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    model.train()
    seen, start, bar = 0, time.perf_counter(), tqdm()
    while True:
        for (target,) in loader:
            posterior = model.encode(target).latent_dist
            output = model.decode(posterior.sample()).sample
            loss = nn.functional.mse_loss(output, target) + 1e-6 * posterior.kl().mean()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            bar.update()
            bar.set_postfix(loss=loss.item())
            seen += len(target)
            if time.perf_counter() - start > seconds:
                return seen, time.perf_counter() - start
