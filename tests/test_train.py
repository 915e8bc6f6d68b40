"""train.py through its command line, on data made here."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import trackio
from PIL import Image
from safetensors.torch import load_file
from trackio.sqlite_storage import SQLiteStorage

import hfvae
from hfvae import evaluate
from hfvae.data import ImageSet, load_images, sprites
from hfvae.disentanglement import factor_vae_score
from hfvae.priors.mixture import GaussianMixture
from hfvae.report import advice
from hfvae.training import checkpoint, train
from hfvae.training.budget import Budget, beta
from hfvae.training.config import TrainConfig, parse, without_folder
from hfvae.training.loop import index_batches, moving_average
from hfvae.training.prior import ENOUGH_LATENTS
from hfvae.training.progress import Progress

ROOT = Path(__file__).parent.parent


QUICK = ["--max_train_steps", "4", "--train_batch_size", "8", "--latent_dim", "4"]


@pytest.fixture
def photos(tmp_path):
    """Pictures as people have them: sizes, modes, formats and rotations mixed, one cut short."""
    random = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    modes = ["RGB", "L", "P", "RGBA", "I;16", "CMYK", "1"]
    for i in range(42):
        h, w = random.integers(20, 90, 2)
        image = Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8))
        mode = modes[i % len(modes)]
        if mode == "I;16":
            image = Image.fromarray(random.integers(0, 65536, (h, w), dtype=np.uint16))
        else:
            image = image.convert(mode)
        exif = Image.Exif()
        exif[274] = 1 + i % 8
        suffix = "jpg" if mode in ("CMYK", "L") else "png"
        where = folder / ("deep/er" if i % 2 else ".")
        image.save(where / f"{i}.{suffix}", exif=exif)
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.mark.parametrize(("resolution", "size"), [("48", (48, 48)), ("40x56", (40, 56))])
def test_a_folder_of_photos_becomes_a_model(photos, tmp_path, train_py, resolution, size):
    out = tmp_path / "out"
    words = train_py(
        "--dataset", photos, "--resolution", resolution,
        "--output-dir", out, "--random-flip", *QUICK,
    )  # fmt: skip
    assert "cut.png" in words
    assert "skipped 1 image that" in words
    assert f"python app.py --model {out}" in words
    model = hfvae.VAE.from_pretrained(out)
    assert model.config.size == size
    assert model.config.channels == 3
    results = json.loads((out / "evaluation.json").read_text())
    assert results["images"] == 4
    assert results["nll"] < -results["elbo"]
    assert results["elbo"] == pytest.approx(-results["reconstruction"] - results["kl"], rel=1e-5)
    assert 0 < results["bits_per_dim"] < 100
    assert f"{results['psnr']:.4f}" in words
    assert json.loads((out / "train_config.json").read_text())["max_train_steps"] == 4
    for name in ("samples.png", "reconstructions.png"):
        Image.open(out / name).verify()
    card = (out / "README.md").read_text()
    assert card.startswith("---\n")
    assert "model-index" in card
    assert f'from_pretrained("{out}")' in card
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # no staging left


@pytest.mark.parametrize(
    "extra",
    [
        [
            "--model",
            "beta-vae",
            "--likelihood",
            "gaussian",
            "--beta",
            "3",
            "--kl_warmup_steps",
            "3",
        ],
        ["--likelihood", "bernoulli", "--channels", "1", "--use_ema"],
        ["--gradient_accumulation_steps", "2", "--mixed_precision", "bf16", "--widths", "4,8"],
    ],
)
def test_options_reach_the_model(photos, tmp_path, train_py, extra):
    out = tmp_path / "out"
    words = train_py(
        "--dataset", photos, "--resolution", "16", "--output_dir", out, *QUICK, *extra,
    )  # fmt: skip
    model = hfvae.from_pretrained(out)
    given = dict(zip(extra[::2], extra[1::2], strict=False))
    assert model.config.likelihood == given.get("--likelihood", "discretized-logistic")
    assert model.config.beta == float(given.get("--beta", 1))
    if "--widths" in given:
        assert model.config.widths == (4, 8)
    if "bernoulli" in extra:
        assert "binarized" in words
        assert "binarized" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "extra",
    [["--use_ema"], ["--kl_warmup_steps", "100"], ["--beta_start", "100"], ["--random_flip"]],
    ids=lambda extra: extra[0],
)
def test_what_changes_the_training_changes_the_weights(photos, tmp_path, train_py, extra):
    found = []
    for out, more in [("without", []), ("with", extra)]:
        train_py(
            "--dataset", photos, "--resolution", "16", "--prior", "standard-normal",
            "--output_dir", tmp_path / out, *QUICK, *more,
        )  # fmt: skip
        found.append(load_file(tmp_path / out / "model.safetensors"))
    assert any(not torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_a_later_prior_leaves_encoder_and_decoder_as_they_are(photos, tmp_path, train_py):
    found = []
    for prior in ("standard-normal", "mixture"):
        train_py(
            "--dataset", photos, "--resolution", "16", "--prior", prior,
            "--output_dir", tmp_path / prior, *QUICK,
        )  # fmt: skip
        tensors = load_file(tmp_path / prior / "model.safetensors")
        found.append({n: t for n, t in tensors.items() if not n.startswith("prior.")})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_every_held_out_image_counts_once(monkeypatch):
    """Those of the last batch too, which is short."""
    model = hfvae.VQVAE(hfvae.VQVAEConfig(image_size=16, widths=(8,), codebook_size=8)).eval()
    images = ImageSet("noise", "test", torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8))
    monkeypatch.setattr(evaluate, "batch_size", lambda model: 2)
    found = evaluate.evaluate(model, images)
    with torch.no_grad():
        out = model(images.batch(slice(None)))
    elbos = -(out.nll + out.rate).double()
    assert found["elbo"] == pytest.approx(elbos.mean().item(), rel=1e-5)
    assert found["elbo_se"] == pytest.approx(elbos.std().item() / 5**0.5, rel=1e-2)


@pytest.mark.parametrize("name", ["autoencoder", "vae", "beta-vae", "vq-vae", "fsq-vae"])
@pytest.mark.parametrize(
    "dataset",
    [
        pytest.param("sprites", marks=pytest.mark.quick),
        pytest.param("photos", marks=pytest.mark.slow),
    ],
)
def test_every_family_from_training_to_the_evaluation(
    name, dataset, photos, tmp_path, monkeypatch, train_py
):
    monkeypatch.setattr(sprites, "COUNTS", {"train": 40, "test": 10})
    monkeypatch.setattr(evaluate, "FACTOR_SAMPLES", 400)
    monkeypatch.setattr(evaluate, "factor_vae_score", partial(factor_vae_score, votes=24, batch=4))
    out = tmp_path / "out"
    where = photos if dataset == "photos" else dataset
    codes = ["--codebook_size", "24"] if name in ("vq-vae", "fsq-vae") else ["--latent_dim", "4"]
    train_py(
        "--model", name, "--dataset", where, "--resolution", "16",
        "--max_train_steps", "4", "--train_batch_size", "8", "--output_dir", out, *codes,
    )  # fmt: skip
    model = hfvae.from_pretrained(out)
    expected = {"vq-vae": "autoregressive", "fsq-vae": "autoregressive"}
    assert model.config.prior == expected.get(name, "mixture")
    images = model.sample(3)
    assert model.reconstruct(images).shape == (3, 3, 16, 16)
    assert model.interpolate(images[0], images[1], steps=4).shape == (4, 3, 16, 16)
    assert model.traverse(images[0], 1, [0, 1]).shape == (2, 3, 16, 16)

    measured = json.loads((out / "evaluation.json").read_text())
    evaluate.main([str(out), "--dataset", str(where), "--samples", "10",
                   "--output", str(tmp_path / "again.json")])  # fmt: skip
    again = json.loads((tmp_path / "again.json").read_text())
    assert again.keys() == measured.keys()
    for key, value in measured.items():
        expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-3, abs=1e-6)
        assert again[key] == expected, key
    generative = {"elbo", "elbo_se", "bits_per_dim"}
    own = {
        "autoencoder": set(),
        "vae": {"kl", "nll", "nll_se", "nll_bits_per_dim", "samples", "active_units"} | generative,
        "vq-vae": {"perplexity", "codebook_usage"} | generative,
    }
    known = {"beta-vae": "vae", "fsq-vae": "vq-vae"}.get(name, name)
    dci = {"dci_disentanglement", "dci_completeness", "dci_informativeness"}
    scores = {"mig", "sap", "factor_vae_score"} | dci
    scores = scores if dataset == "sprites" and known != "vq-vae" else set()
    always = {"reconstruction", "psnr", "ssim", "images", "seed", "split", "likelihood"}
    named = {f"latent_{name}" for name in sprites.Sprites.values} if scores else set()
    assert measured.keys() - named == own[known] | scores | always


def test_a_vae_can_have_a_mixture(photos, tmp_path, train_py):
    out = tmp_path / "out"
    train_py(
        "--dataset", photos, "--resolution", "16", "--prior", "mixture", "--output_dir", out, *QUICK
    )
    model = hfvae.from_pretrained(out)
    assert model.config.prior == "mixture"
    assert model.sample(2).shape == (2, 3, 16, 16)
    assert model.config.prior_components == 10
    assert "mixture" in (out / "README.md").read_text()
    results = json.loads((out / "evaluation.json").read_text())
    # Not the KL from N(0, I): the price of z under the mixture that the model has.
    assert results["elbo"] == pytest.approx(-results["reconstruction"] - results["kl"], rel=1e-6)


def test_a_mixture_of_few_images_sees_the_whole_width_of_their_posteriors(
    photos, tmp_path, monkeypatch, train_py
):
    seen, out = [], tmp_path / "out"
    fit = GaussianMixture.fit
    monkeypatch.setattr(GaussianMixture, "fit", lambda *a: (seen.append(a[1]), fit(*a))[1])
    argv = ["--dataset", photos, "--resolution", 16, "--output_dir", out, "--random_flip", *QUICK]
    argv += ["--prior", "mixture", "--prior_components", 3, "--license", "cc0-1.0"]
    train_py(*argv)
    model = hfvae.from_pretrained(out)
    assert model.config.prior_components == len(model.prior.weights) == 3
    images = load_images(str(photos), "train", size=(16, 16), channels=3)
    x = images.pixels.float() / 255
    z = seen[0].view(-1, len(x), 4)
    assert z.numel() / 4 == pytest.approx(ENOUGH_LATENTS, rel=0.01)
    with torch.inference_mode():
        for draws, pixels in ((z[0::2], x), (z[1::2], x.flip(3))):  # as they are, and mirrored
            mu, logvar = model.posterior(pixels)
            sigma = torch.exp(logvar / 2)
            assert torch.allclose(
                draws.mean(0), mu, atol=5 * float(sigma.max()) / len(draws) ** 0.5
            )
            assert draws.std(0).mean() == pytest.approx(float(sigma.mean()), rel=0.02)
    assert "license: cc0-1.0" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "extra",
    [
        ["--model", "autoencoder", "--dataset", "few"],  # fewer images than a mixture has parts
        ["--model", "vq-vae", "--prior_fraction", "0", "--codebook_size", "8"],
    ],
)
def test_odd_settings_train_too(extra, photos, tmp_path, monkeypatch, train_py):
    few = tmp_path / "few"
    few.mkdir()
    for file in sorted(photos.glob("*.png"))[:6]:
        (few / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    given = extra if "--dataset" in extra else ["--dataset", photos, *extra]
    train_py(
        *given, "--resolution", "16", "--output_dir", "out",
        "--max_train_steps", "2", "--train_batch_size", "4",
    )  # fmt: skip
    assert hfvae.from_pretrained(tmp_path / "out").sample(2).shape == (2, 3, 16, 16)


def test_a_step_is_an_update_of_the_weights(photos, tmp_path, train_py):
    """One step of three batches moves the weights, and says so in the card."""
    out = tmp_path / "out"
    train_py(
        "--dataset", photos, "--resolution", "16", "--output_dir", out,
        "--max_train_steps", "1", "--gradient_accumulation_steps", "3", "--train_batch_size", "8",
    )  # fmt: skip
    trained = hfvae.from_pretrained(out).state_dict()
    counted = {n: t for n, t in trained.items() if n.endswith("num_batches_tracked")}
    assert {int(t) for t in counted.values()} == {3}
    torch.manual_seed(0)
    fresh = hfvae.VAE(hfvae.from_pretrained(out).config).state_dict()
    assert not torch.equal(fresh["encoder.body.0.weight"], trained["encoder.body.0.weight"])
    assert "1 steps of 8 images" in (out / "README.md").read_text()


def test_the_moving_average_forgets_its_start():
    kept, new = [torch.zeros(2), torch.tensor(0)], [torch.ones(2), torch.tensor(7)]
    for n in range(1, 601):
        moving_average(kept, new, torch.tensor(n))
    assert kept[0].min() > 0.99
    assert kept[1] == 7


def test_the_same_seed_trains_the_same_model(photos, tmp_path, train_py):
    weights = []
    for out in ("a", "b"):
        train_py("--dataset", photos, "--resolution", "16", "--output_dir", tmp_path / out, *QUICK)
        weights.append((tmp_path / out / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_a_finished_model_is_not_overwritten_unasked(photos, tmp_path, train_py):
    arguments = [
        "--dataset",
        photos,
        "--resolution",
        "16",
        "--output_dir",
        tmp_path / "out",
        *QUICK,
    ]
    train_py(*arguments)
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    words = train_py(*arguments, "--seed", "1", status=2)
    assert "holds a finished model" in words
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    train_py(*arguments, "--seed", "1", "--overwrite_output_dir")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dataset", "nowhere"], "no data set of that name"),
        (["--resolution", "big"], "neither N nor HxW"),
        (["--resolution", "0"], "--resolution must be from 8"),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--seed", "5000000000"], "--seed must be from 0 to 4294967295"),
        (["--max_train_samples", "1"], "is not enough to train on"),
        (["--kl_warmup_steps", "-5"], "--kl_warmup_steps must be 0 or more"),
        (["--train_batch_size", "1"], "--train_batch_size must be 2 or more"),
        (["--dataset", "sprites", "--channels", "2"], "sprites come in 1, 3 or 4 channels"),
        (["--model", "gan"], "--model must be one of autoencoder, vae"),
        (["--prior_fraction", "0.3"], "--prior_fraction means nothing to --prior mixture"),
        (["--train_batch_size", "0"], "--train_batch_size must be 2 or more"),
        (
            ["--max_train_steps", "5", "--max_train_minutes", "5"],
            "--max_train_steps does not go with max_train_minutes",
        ),
        (["--beta", "-1"], "beta must be from 0"),
        (["--likelihood", "mse"], "likelihood must be one of"),
        (
            ["--model", "vq-vae", "--latent_dim", "4"],
            "--latent_dim means nothing to --model vq-vae",
        ),
        (["--model", "fsq-vae", "--codebook_size", "11"], "product of numbers from 3 to 8"),
        (
            ["--model", "autoencoder", "--kl_warmup_steps", "4"],
            "means nothing to --model autoencoder",
        ),
        (
            ["--prior", "standard-normal", "--prior_components", "50"],
            "--prior_components needs prior mixture",
        ),
        (["--prior", "mixture", "--prior_components", "0"], "prior_components must be from 1"),
        (["--license", "mit\ntags: x"], "--license takes a name such as cc-by-4.0"),
        (["--output_dir", "/proc/none"], "/proc"),
    ],
)
def test_mistakes_get_one_line_and_status_2(photos, tmp_path, monkeypatch, train_py, argv, message):
    monkeypatch.chdir(tmp_path)
    given = argv if "--dataset" in argv else ["--dataset", photos, *argv]
    words = train_py(*given, status=2)
    last = words.strip().splitlines()[-1]
    assert last.startswith("train.py: ")
    assert message in last
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_explodes_saves_nothing(photos, tmp_path, train_py):
    words = train_py(
        "--dataset", photos, "--resolution", "16", "--learning_rate", "1e30",
        "--lr_warmup_steps", "0", "--output_dir", tmp_path / "out", *QUICK, status=2,
    )  # fmt: skip
    assert "no longer a number" in words
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_checkpoint_never_holds_what_is_no_number(photos, tmp_path, monkeypatch, train_py):
    argv = [*QUICK, "--dataset", photos, "--resolution", 16, "--output_dir", tmp_path / "out"]
    monkeypatch.setattr(Progress, "show", lambda *_, **__: None)  # looks once a second
    words = train_py(*argv, "--learning_rate", "1e30", "--checkpointing_steps", 1, status=2)
    assert "no longer a number" in words
    for found in checkpoint.existing(tmp_path / "out"):
        weights = checkpoint.read(found).part("model")
        assert all(t.isfinite().all() for t in weights.values())


@pytest.mark.quick
def test_curves_pictures_and_a_watch_while_it_trains(photos, tmp_path, monkeypatch, train_py):
    monkeypatch.setattr("hfvae.training.loop.APART", 0)
    words = train_py(
        "--dataset", photos, "--resolution", 16, "--latent_dim", 4,
        "--train_batch_size", 8, "--max_train_steps", 60, "--lr_warmup_steps", 0,
        "--beta", 1e5, "--report_to", "trackio", "--output_dir", tmp_path / "out",
    )  # fmt: skip
    assert words.count("watch: after") == 1  # once, not at every look
    assert "of the way, only 0 of 4 latents carry information: add --max_train_minutes" in words
    assert "--model_name_or_path" in words.split("now try:")[1]
    [run_id] = trackio.Api().runs("hfvae")
    kept = SQLiteStorage.get_logs("hfvae", run_id.name)
    assert any("kl" in row and "images/s" in row for row in kept)
    pictures = [row["samples"]["file_path"] for row in kept if "samples" in row]
    assert pictures
    with Image.open(Path(os.environ["TRACKIO_DIR"], "media", pictures[-1])) as picture:
        assert picture.width > 8 * 16
    trackio.finish()  # else it speaks after the last line of pytest


def test_beta_grows_from_zero_or_falls_by_equal_factors():
    def at(step, **flags):
        return beta(TrainConfig(**flags), Budget(100, None, step), 4.0)

    assert [at(step, kl_warmup_steps=10) for step in (0, 4, 9, 50)] == [0.4, 2.0, 4.0, 4.0]
    assert at(0) == at(100) == 4
    fall = [at(step, beta_start=64.0) for step in range(0, 71)]
    assert fall[0] == 64
    assert fall[-1] == pytest.approx(4)
    assert fall[35] == pytest.approx(16)  # half of the way, in factors
    assert at(100, beta_start=64.0) == 4


def test_half_the_bytes_are_what_was_measured(photos, tmp_path, train_py):
    out = tmp_path / "out"
    argv = ["--dataset", photos, "--resolution", 16, "--output_dir", out, "--save_fp16", *QUICK]
    train_py(*argv)
    assert load_file(out / "model.safetensors")["encoder.body.0.weight"].dtype == torch.float16
    model = hfvae.from_pretrained(out)
    held_out = load_images(str(photos), "test", size=(16, 16), channels=3)
    written = json.loads((out / "evaluation.json").read_text())
    assert evaluate.evaluate(model, held_out)["elbo"] == pytest.approx(written["elbo"], rel=1e-5)


def test_the_watch_knows_a_kl_and_a_scale_that_run_away():
    model = hfvae.VAE(hfvae.VAEConfig(image_size=8, channels=1, latent_dim=4))
    fine = {"active_units": 4, "kl": 20.0}
    assert advice(fine, model) == {}
    assert "raise --beta" in advice(fine | {"kl": 500.0}, model)["kl"]
    with torch.no_grad():
        model.likelihood.raw_scale.fill_(-9)
    assert "shrunk to its floor" in advice(fine, model)["scale"]
    codes = hfvae.VQVAE(hfvae.VQVAEConfig(image_size=8, channels=1, codebook_size=64))
    assert "like 3 of 64" in advice({"perplexity": 3.1}, codes)["codes"]


def test_what_is_worse_than_guessing_is_said(model):
    found = {"active_units": 4, "kl": 1.0, "bits_per_dim": 8.1}
    assert "more than guessing every pixel (8)" in advice(found, model)["bits"]
    assert "bits" not in advice(found | {"bits_per_dim": 7.9}, model)


def test_the_file_of_an_evaluation_is_checked_before_measuring(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "m")
    argv = [str(tmp_path / "m"), "--dataset", "sprites", "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(argv)
    said = capsys.readouterr()
    assert "is a folder; give a file to write to" in said.err
    assert not said.out


def test_samples_that_play_no_part_are_said(photos, tmp_path, capsys):
    config = hfvae.VQVAEConfig(image_size=16, widths=(8,), codebook_size=8)
    hfvae.VQVAE(config).save_pretrained(tmp_path / "m")
    evaluate.main([str(tmp_path / "m"), "--dataset", str(photos), "--samples", "5"])
    assert "--samples plays no part" in capsys.readouterr().err


def test_what_is_published_names_no_folder_of_this_machine():
    config = TrainConfig(dataset="/home/me/year=2024/cats", learning_rate=1e-3)
    assert config.command() == "python train.py --dataset cats --learning_rate 0.001"
    assert config.public()["dataset"] == "cats"
    assert without_folder("/home/me/cats") == without_folder("~/cats") == "cats"
    assert without_folder("../cats") == "cats"
    assert without_folder("runs/cats-vae") == "runs/cats-vae"


def test_ctrl_c_saves(photos, tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable,
        ROOT / "train.py",
        "--dataset",
        photos,
        "--resolution",
        "16",
        "--output_dir",
        out,
        "--max_train_minutes",
        "10",
        "--train_batch_size",
        "8",
        "--checkpointing_steps",
        "1",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        deadline = time.monotonic() + 120
        while not list(out.glob("checkpoint-*")) and time.monotonic() < deadline:  # in the loop
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        words = process.communicate(timeout=180)[0].decode()
    assert process.returncode == 0, words
    assert "saved to" in words
    hfvae.from_pretrained(out)
    assert re.search(
        r"It was stopped after \d+% of the way", (out / "README.md").read_text("utf-8")
    )


def test_batches_hold_every_image_once_an_epoch():
    batches = index_batches(10, 4, seed=0)
    drawn = torch.cat([next(batches) for _ in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


@pytest.mark.quick
@pytest.mark.parametrize("family", ["vae", "vq-vae"])
def test_training_from_python_leaves_the_same_bytes(photos, tmp_path, train_py, family):
    flags = {"model": family, "dataset": photos, "resolution": 16, "train_batch_size": 8}
    flags |= {"max_train_steps": 4, "random_flip": True, "use_ema": True}
    argv = [w for k, v in flags.items() for w in ([f"--{k}"] if v is True else [f"--{k}", v])]
    train_py(*argv, "--output_dir", tmp_path / "flags")
    model = train(TrainConfig(**flags, output_dir=tmp_path / "python"))
    for name in ("config.json", "model.safetensors", "evaluation.json"):
        ours, theirs = ((tmp_path / way / name).read_bytes() for way in ("python", "flags"))
        assert ours == theirs
    assert not model.training
    again = hfvae.from_pretrained(tmp_path / "python")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_notebook_trains_again_with_other_settings(photos, tmp_path):
    for precision in ("bf16", "no"):
        settings = TrainConfig(
            dataset=photos, resolution="16", max_train_steps=2, mixed_precision=precision,
            output_dir=str(tmp_path / precision),
        )  # fmt: skip
        train(settings)
        assert (tmp_path / precision / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"resolution": "64x"}, "resolution is neither N nor HxW"),
        ({"resolution": (64, 48, 3)}, "resolution is neither N nor HxW"),
        ({"widths": 5}, "^widths must be a list"),
        ({"seed": "1"}, "seed must be a whole number"),
        ({"random_flip": 1}, "random_flip must be true or false"),
        ({"learning_rate": float("nan")}, "learning_rate must be more than 0"),
        ({"max_train_steps": 3, "num_train_epochs": 1}, "does not go with"),
        ({"dataset": ""}, "dataset takes words"),
    ],
)
def test_a_training_that_cannot_be_is_refused_when_it_is_described(bad, words):
    with pytest.raises((TypeError, ValueError), match=words):
        TrainConfig(**bad)


def test_a_resolution_is_said_in_three_ways():
    for given in (64, "64", "64x64", (64, 64)):
        assert TrainConfig(resolution=given).resolution == (64, 64)
    assert TrainConfig(resolution="64x48").resolution == (64, 48)


def test_every_field_is_a_flag(capsys):
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    flags = set(re.findall(r"--(\w+)", capsys.readouterr().out))
    assert flags - {"help"} == {f.name for f in dataclasses.fields(TrainConfig)}
