"""Several processes train what one would: noise, order, codebook and gradients are the same."""

import json
import os
import socket
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn

sys.path.insert(0, sys.argv[1])
from hfvae import VAE, VAEConfig, VQVAE, VQVAEConfig
from hfvae.data import ImageSet
from hfvae.training.budget import Budget
from hfvae.training import TrainConfig
from hfvae.training.loop import Run
from hfvae.training.progress import Progress, StopOnInterrupt
from hfvae.training.model import ModelStage

family, out = sys.argv[2:4]
accelerator = Accelerator(
    cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)]
)
assert accelerator.num_processes == int(sys.argv.pop())
torch.manual_seed(0)
if family == "vae":
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.SiLU(), nn.Linear(16, 8))
    decoder = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)))
    model = VAE(VAEConfig(image_size=8, channels=1, latent_dim=4), encoder, decoder)
else:
    encoder, decoder = nn.Conv2d(1, 4, 4, 4), nn.ConvTranspose2d(4, 1, 4, 4)
    config = VQVAEConfig(image_size=8, channels=1, codebook_size=12, embedding_dim=4)
    model = VQVAE(config, encoder, decoder)
pixels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
config = TrainConfig(random_flip=True, checkpointing_steps=0)
losses = []

def show(self, budget, metrics, last):
    found = torch.stack([metrics[k] for k in sorted(metrics) if k != "perplexity"])
    losses.append(accelerator.reduce(found, "mean").tolist())
    if "perplexity" in metrics:
        losses[-1].append(metrics["perplexity"].item())

Progress.show = show
images = ImageSet("x", "train", pixels)
run = Run(
    config, model, images, {"model": Budget(12, None)}, {"model": 8}, accelerator,
    Path(out).parent,
)
with StopOnInterrupt() as stop:
    run.train(ModelStage(run), stop)
if accelerator.is_main_process:
    weights = {n: t.double().sum().item() for n, t in run.model.state_dict().items()}
    Path(out).write_text(json.dumps([losses, weights]))
"""


def launched(processes, *argv, cwd=None):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", processes]
    return subprocess.run(
        [str(word) for word in (*launch, "--master_port", free_port(), *argv)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.parametrize(
    "family",
    [pytest.param("vae", marks=pytest.mark.slow), pytest.param("vq-vae", marks=pytest.mark.quick)],
)
def test_two_processes_train_as_one(family, tmp_path, request):
    (tmp_path / "script.py").write_text(SCRIPT)
    found = []
    for n in (1, 2):
        out = tmp_path / f"{n}.json"
        done = launched(n, tmp_path / "script.py", request.config.rootpath, family, out, n)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(out.read_text()))
    (one, weights), (two, weights_of_two) = found
    assert len(one) == 12
    assert one[0] != one[-1]
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=1e-4)
    assert weights_of_two == pytest.approx(weights, rel=1e-3, abs=1e-4)


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path, request):
    done = launched(2, request.config.rootpath / "train.py", "--train_batch_size", 9, cwd=tmp_path)
    assert done.returncode != 0
    assert "--train_batch_size must be a multiple of the 2 processes" in done.stderr
