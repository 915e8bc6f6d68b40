"""Nothing is lost: killed at any moment and resumed, a run ends with the same weights."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hfvae
from hfvae.training import checkpoint

TRAIN = Path(__file__).parent.parent / "train.py"
FAMILIES = {
    "flow-vae": ["--model", "flow-vae", "--latent_dim", "4"],
    "vae": ["--model", "vae", "--latent_dim", "4", "--use_ema", "--kl_warmup_steps", "9"],
    "vq-vae": ["--model", "vq-vae", "--codebook_size", "16", "--gradient_accumulation_steps", "2"],
    "spatial-vae": ["--model", "spatial-vae", "--latent_dim", "2", "--widths", "4,8"],
}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def command(photos, out, family, *extra, steps=14):
    return [
        "--dataset", photos, "--resolution", "16", "--output_dir", out,
        "--max_train_steps", steps, "--train_batch_size", "8", "--checkpointing_steps", "3",
        "--random_flip", *FAMILIES[family], *extra,
    ]  # fmt: skip


def killed(argv, when):
    """Start a run and kill it once `when` is true; whether it was still running."""
    with subprocess.Popen(
        [sys.executable, TRAIN, *map(str, argv)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and not when():
            time.sleep(0.005)
        if process.poll() is not None:
            return False
        os.kill(process.pid, signal.SIGKILL)
        return True


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def at_checkpoint(out, step):
    return lambda: any(int(p.name[11:]) >= step for p in out.glob("checkpoint-*"))


@pytest.mark.parametrize(
    "family", ["flow-vae", "vae", "vq-vae", pytest.param("spatial-vae", marks=pytest.mark.slow)]
)
def test_killed_in_every_stage_and_resumed_it_ends_the_same(photos, tmp_path, family, train_py):
    whole, out = tmp_path / "whole", tmp_path / "out"
    train_py(*command(photos, whole, family))
    assert not list(whole.glob("checkpoint-*"))  # done with
    again = command(photos, out, family, "--resume_from_checkpoint", "latest")
    assert killed(again, at_checkpoint(out, 3))  # afresh, since there is none
    assert killed(again, at_checkpoint(out, 9))
    if family != "vae":
        assert killed(again, at_checkpoint(out, 17))  # in the training of the prior
    words = train_py(*again)
    assert "resuming from step" in words
    assert weights(out) == weights(whole)
    hfvae.from_pretrained(out)


@pytest.mark.parametrize("family", ["vae", "vq-vae"])
def test_killed_after_its_last_step_a_short_run_is_not_lost(photos, tmp_path, family, train_py):
    """While its prior is fitted or trained, or it is measured: no checkpoint was due before."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    short = ["--checkpointing_steps", "500"]
    train_py(*command(photos, whole, family, *short))
    again = command(photos, out, family, *short, "--resume_from_checkpoint", "latest")
    assert killed(again, lambda: (out / "model.safetensors").exists())
    assert "resuming from step" in train_py(*again)
    assert weights(out) == weights(whole)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", FAMILIES)
def test_killed_twenty_times_at_random_it_ends_the_same(photos, tmp_path, family, train_py):
    whole = tmp_path / "whole"
    start = time.monotonic()
    train_py(*command(photos, whole, family, steps=60))
    seconds = time.monotonic() - start
    draw, kills = random.Random(0), 0
    while kills < 20:
        out = tmp_path / f"out{kills}"
        again = command(photos, out, family, "--resume_from_checkpoint", "latest", steps=60)
        deadline = time.monotonic() + draw.uniform(0.2, 1.0) * seconds
        while killed(again, lambda: time.monotonic() > deadline):  # noqa: B023
            kills += 1
            deadline = time.monotonic() + draw.uniform(0.3, 1.5) * seconds
        assert weights(out) == weights(whole)


def test_what_cannot_be_resumed_is_said(photos, tmp_path, train_py):
    out = tmp_path / "out"
    first = command(photos, out, "vae")
    assert "starting afresh" in train_py(*first, "--resume_from_checkpoint", "latest")
    finished = weights(out)
    words = train_py(*first, "--resume_from_checkpoint", "latest", status=2)
    assert "holds a finished model" in words
    words = train_py(*first, "--resume_from_checkpoint", tmp_path / "none", status=2)
    assert "is no checkpoint" in words
    assert killed(command(photos, tmp_path / "b", "vae"), at_checkpoint(tmp_path / "b", 6))
    latest = sorted((tmp_path / "b").glob("checkpoint-*"))
    assert len(latest) <= 2
    other = command(
        photos, tmp_path / "b", "vae", "--beta", "3", "--resume_from_checkpoint", "latest"
    )
    words = train_py(*other, status=2)
    assert "--beta was None and is 3.0" in words
    data = bytearray((latest[-1] / "state.safetensors").read_bytes())
    data[-5] ^= 1
    (latest[-1] / "state.safetensors").write_bytes(data)
    again = command(photos, tmp_path / "b", "vae", "--resume_from_checkpoint")
    assert "is damaged" in train_py(*again, "latest", status=2)
    # An older one is still there.
    train_py(*again, latest[0])
    assert weights(tmp_path / "b") == finished


@pytest.mark.quick
def test_a_fine_tuning_is_resumed_too_and_old_checkpoints_go(photos, tmp_path, train_py):
    base = hfvae.VAE(hfvae.VAEConfig(image_size=16, latent_dim=4, widths=(4,)))
    base.save_pretrained(tmp_path / "base")
    argv = [
        "--dataset", photos, "--model_name_or_path", tmp_path / "base",
        "--max_train_steps", "12", "--train_batch_size", "8", "--checkpointing_steps", "3",
    ]  # fmt: skip
    out = tmp_path / "out"
    (out / "checkpoint-005000").mkdir(parents=True)  # of another run
    words = train_py(*argv, "--output_dir", out, status=2)
    assert "holds checkpoints of a run that is not finished: go on with --resume_from" in words
    assert (out / "checkpoint-005000").exists()
    replace = [*argv, "--output_dir", out, "--overwrite_output_dir"]
    assert killed(replace, at_step(out, 6))
    assert not (out / "checkpoint-005000").exists()
    train_py(*argv, "--output_dir", out, "--resume_from_checkpoint", "latest")
    train_py(*argv, "--output_dir", tmp_path / "whole")
    assert weights(out) == weights(tmp_path / "whole")


def at_step(out, step):
    return lambda: any(step <= int(p.name[11:]) < 5000 for p in out.glob("checkpoint-*"))


def test_checkpoints_are_sorted_by_number(tmp_path):
    for step in (999_500, 1_000_000):
        (tmp_path / f"checkpoint-{step:06d}").mkdir()
    assert checkpoint.existing(tmp_path)[-1].name == "checkpoint-1000000"


def test_a_checkpoint_holds_no_pickle_and_says_what_it_is(photos, tmp_path):
    out = tmp_path / "out"
    assert killed(command(photos, out, "vae"), at_checkpoint(out, 3))
    folder = sorted(out.glob("checkpoint-*"))[0]
    assert {p.name for p in folder.iterdir()} == {"state.safetensors", "state.json"}
    numbers = json.loads((folder / "state.json").read_text())
    assert numbers["stage"] == "model"
    assert numbers["flags"]["max_train_steps"] == 14
    shutil.rmtree(out)
