"""The latents of a whole data set, in one file."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from memory import growth_alone
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import hfvae
from hfvae import encode
from hfvae.data import ImageSet, load_images

SIZE = 16
MODELS = {
    "vector": hfvae.VAEConfig(image_size=SIZE, latent_dim=4, widths=(8,)),
    "grid": hfvae.VAEConfig(image_size=SIZE, latent_dim=3, widths=(4, 8), spatial=True),
    "point": hfvae.AutoencoderConfig(image_size=SIZE, latent_dim=4, widths=(8,)),
    "codes": hfvae.VQVAEConfig(image_size=SIZE, codebook_size=12, widths=(8,)),
    "binary": hfvae.VAEConfig(image_size=SIZE, widths=(8,), likelihood="bernoulli", channels=1),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(30):
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


def made(kind, folder, seed=0):
    torch.manual_seed(seed)
    config = MODELS[kind]
    model = hfvae.models.FAMILIES[config.model_type](config)
    model(torch.rand(16, config.channels, SIZE, SIZE).round())
    model.eval().save_pretrained(folder)
    return model


@pytest.mark.quick
@pytest.mark.parametrize("kind", MODELS)
def test_the_file_holds_what_encode_gives_and_what_it_says_as_a_set(kind, photos, tmp_path):
    model, file = made(kind, tmp_path / "m"), tmp_path / "z.safetensors"
    encode.main([str(tmp_path / "m"), "--dataset", str(photos), "--output", str(file)])
    images = load_images(str(photos), "train", size=(SIZE, SIZE), channels=model.config.channels)
    x = model.likelihood.nearest(images.batch(slice(None)))
    found = load_file(file)
    with safe_open(file, "pt") as f:
        assert f.metadata()["model"] == str(tmp_path / "m")
        assert f.metadata()["dataset"] == str(photos)
        assert f.metadata()["split"] == "train"
    assert [p.name for p in tmp_path.iterdir() if "safetensors" in p.name] == [file.name]
    if kind == "codes":
        assert found.keys() == {"codes", "counts"}
        assert found["codes"].dtype == torch.int64
        assert torch.equal(found["codes"], model.codes(x))
        assert torch.equal(found["counts"], found["codes"].flatten().bincount(minlength=12))
        return
    z = found["latents"]
    assert z.dtype == torch.float32
    model.to(memory_format=torch.channels_last)  # as it is there, and bit for bit
    assert torch.equal(z, model.encode(x))
    torch.testing.assert_close(model.decode(z), model.reconstruct(x))
    torch.testing.assert_close(found["mean"], z.mean(0))
    torch.testing.assert_close(found["std"], z.std(0))
    if kind == "grid":
        torch.testing.assert_close(found["channel_mean"], z.mean((0, 2, 3)))
        channels = z.movedim(1, 0).flatten(1)
        torch.testing.assert_close(found["channel_std"], channels.std(1))
    else:
        assert found.keys() == {"latents", "mean", "std"}


def test_killed_and_run_again_it_goes_on(photos, tmp_path, monkeypatch):
    made("grid", tmp_path / "m")
    argv = [str(tmp_path / "m"), "--dataset", str(photos), "--output"]
    monkeypatch.setattr(encode, "batch_size", lambda model: 4)
    encode.main([*argv, str(tmp_path / "whole.safetensors")])
    slow = (
        "import sys, time; from hfvae import encode; encode.batch_size = lambda model: 4;"
        "row = encode.ImageSet.batch;"
        "encode.ImageSet.batch = lambda *a: time.sleep(0.2) or row(*a);"
        "encode.main(sys.argv[1:])"
    )
    file = tmp_path / "z.safetensors"
    partial = tmp_path / "z.safetensors.partial"
    with subprocess.Popen(
        [sys.executable, "-c", slow, *argv, str(file)], stderr=subprocess.DEVNULL
    ) as process:
        length = 3 * 4 * 4 * 4
        while process.poll() is None and not (
            partial.exists() and partial.stat().st_size > 2000 + 9 * length
        ):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not file.exists()
    with partial.open("ab") as f:
        f.write(b"half a row")
    batch, seen = ImageSet.batch, []
    monkeypatch.setattr(ImageSet, "batch", lambda self, i, *a: seen.append(i) or batch(self, i, *a))
    encode.main([*argv, str(file)])
    assert 1 < len(seen) < 8  # of seven batches, those that were missing, and one to look at
    assert file.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not partial.exists()


@pytest.mark.quick
def test_what_another_model_began_is_begun_afresh(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "batch_size", lambda model: 4)  # else no whole batch is kept
    file = tmp_path / "z.safetensors"
    argv = [str(tmp_path / "m"), "--dataset", str(photos), "--output", str(file)]
    made("grid", tmp_path / "m", seed=1)
    encode.main(argv)
    begun = file.read_bytes()[:-1000]  # most of its rows
    made("grid", tmp_path / "m")
    encode.main(argv)
    whole = file.read_bytes()
    (tmp_path / "z.safetensors.partial").write_bytes(begun)
    encode.main(argv)
    assert file.read_bytes() == whole


@pytest.mark.quick
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no/model", "--dataset", "sprites", "--output", "z"], "no/model"),
        (["m", "--dataset", "nowhere/at-all/x", "--output", "z"], "nowhere/at-all"),
        (["m", "--dataset", "sprites", "--output", "nowhere/z"], "there is no folder nowhere"),
        (["m", "--dataset", "sprites", "--output", "."], "is a folder"),
    ],
)
def test_what_cannot_be_written_is_said_in_words(argv, words, tmp_path, monkeypatch, capsys, hub):
    monkeypatch.chdir(tmp_path)
    made("vector", tmp_path / "m")
    with pytest.raises(SystemExit) as stopped:
        encode.main(["./m" if a == "m" else a for a in argv])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("encode: ")
    assert words in said


def test_many_images_need_little_memory():
    """20,000 images: their latents are 61 MB, and twice that in the passes over them."""
    setting = (
        "import torch, tempfile; from pathlib import Path; import hfvae; from hfvae import encode;"
        "from hfvae.data import ImageSet;"
        "model = hfvae.VAE(hfvae.VAEConfig(image_size=16, latent_dim=48, widths=(2, 2),"
        " blocks=0, spatial=True)).eval();"
        "images = lambda n: ImageSet('x', 'train', torch.zeros(n, 3, 16, 16, dtype=torch.uint8));"
        "file = Path(tempfile.mkdtemp()) / 'z.safetensors';"
        "encode.encode(model, images(600), file); many = images(20_000)"
    )
    assert growth_alone(setting, "encode.encode(model, many, file)") < 20  # MB
