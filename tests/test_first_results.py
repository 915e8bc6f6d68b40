"""What somebody gets who names a folder and a time, and nothing else."""

import io
import math
import os
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import hfvae
from hfvae import report
from hfvae.data import ImageSet
from hfvae.machine import threads_left
from hfvae.training import TrainConfig, budget
from hfvae.training.budget import Budget, batch_size, learning_rate
from hfvae.training.progress import Progress

pytestmark = pytest.mark.quick


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def test_batches_follow_the_number_of_images_and_the_time():
    assert [batch_size(n) for n in (3, 200, 360, 1000, 20_000)] == [16, 16, 32, 64, 128]
    # Of a large set, as many as leave enough steps.
    steps = budget.ENOUGH_STEPS
    assert [batch_size(10**6, steps * size) for size in (1, 40, 64, 1000)] == [16, 32, 64, 128]


@pytest.mark.parametrize("family", ["vae", "vq-vae"])
def test_what_was_chosen_is_said_and_kept_on_the_card(photos, tmp_path, train_py, family):
    out = tmp_path / "out"
    words = train_py(
        "--model", family, "--dataset", photos, "--max_train_minutes", 0.02, "--output_dir", out
    )
    assert "in batches of 16, at about" in words
    assert "steps of 16 images in" in (out / "README.md").read_text()


def test_trying_how_fast_it_is_changes_nothing_of_the_training(photos, tmp_path, train_py):
    """With or without it, the first steps draw the same noise and end with the same weights."""
    argv = ["--dataset", photos, "--max_train_steps", 3, "--prior", "standard-normal"]
    train_py(*argv, "--output_dir", tmp_path / "plain", "--train_batch_size", 16)

    budgets = {"model": Budget(3, None), "prior": Budget(0, None)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hfvae.training.run.make_budgets", lambda *_: (budgets, {}))
        train_py(*argv, "--output_dir", tmp_path / "tried")
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("plain", "tried")]
    assert weights[0] == weights[1]


def test_the_warm_up_takes_at_most_a_tenth_unless_it_was_given():
    def at(step, given=None, steps=40):
        config = TrainConfig(learning_rate=1.0, lr_warmup_steps=given)
        left = 0.02 + 0.49 * (1 + math.cos(math.pi * step / steps))
        return learning_rate(config, Budget(steps, None, step)) / left

    assert at(0) == pytest.approx(0.01)
    assert at(2) == pytest.approx(0.5)
    assert at(4) == at(20) == 1
    assert at(4, given=100) == pytest.approx(0.05)
    assert at(4, given=0) == 1
    assert at(4, steps=10_000) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("busy", "left"), [([100, 100], 1), ([0, 100], 1), ([30, 30], 1), ([0, 9], 2)]
)
def test_a_busy_machine_gets_one_thread_and_who_asks_for_more_gets_it(monkeypatch, busy, left):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr("psutil.cpu_percent", lambda **_: busy)
    assert threads_left() == left
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_left() == 2


@pytest.mark.parametrize("place", ["/proc/none", "a_file/out"])
def test_a_place_that_cannot_be_written_to_is_found_before_the_images_are_read(
    photos, tmp_path, train_py, place
):
    (tmp_path / "a_file").write_text("")
    words = train_py("--dataset", photos, "--output_dir", tmp_path / place, status=2)
    assert f"{place} cannot be written to" in words
    assert "held out" not in words


def test_a_folder_that_cannot_be_written_to_is_named_and_no_hidden_file(
    model, tmp_path, monkeypatch
):
    def refused(prefix, dir):
        raise PermissionError(13, "Permission denied", f"{dir}/{prefix}x7r1")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with pytest.raises(PermissionError) as caught:
        model.save_pretrained(tmp_path)
    assert "cannot write there: Permission denied" in str(caught.value)
    assert caught.value.filename == str(tmp_path)


def test_a_training_that_diverges_is_refused_in_words(photos, tmp_path, train_py):
    words = train_py(
        "--dataset", photos, "--max_train_steps", 30, "--learning_rate", 3,
        "--lr_warmup_steps", 0, "--prior", "standard-normal", "--output_dir", tmp_path / "out",
        status=2,
    )  # fmt: skip
    assert "diverged" in words
    assert "try a --learning_rate below 3" in words
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_held_out_images_are_shown_from_all_over_the_set():
    """Forty grey levels in order, as a sorted set: the first and the last are there."""
    levels = torch.arange(40, dtype=torch.uint8)
    held_out = ImageSet("levels", "test", levels.view(40, 1, 1, 1).repeat(1, 3, 8, 8))
    model = hfvae.Autoencoder(hfvae.AutoencoderConfig(image_size=8)).eval()
    sheet = np.asarray(Image.open(io.BytesIO(report.reconstructions_png(model, held_out))))
    side = (8 + 2) * (500 // (8 * (8 + 2) - 2))  # with its gap, enlarged
    shown = [int(sheet[row * side, column * side, 0]) for row in (0, 2) for column in range(8)]
    assert (shown[0], shown[-1]) == (0, 39)
    assert {b - a for a, b in zip(shown, shown[1:], strict=False)} == {2, 3}


def test_a_mixture_is_fitted_after_one_look_at_each_image(photos, tmp_path, monkeypatch, train_py):
    seen = []
    infer = hfvae.VAE.infer
    monkeypatch.setattr(
        hfvae.VAE, "infer", lambda self, x: (seen.append(len(x)), infer(self, x))[1]
    )
    monkeypatch.setattr("hfvae.training.run.evaluate", lambda *_: {"split": "test"})
    argv = ["--dataset", photos, "--max_train_steps", 2, "--latent_dim", 4]
    words = train_py(*argv, "--output_dir", tmp_path / "out")
    assert seen == [22, 2]  # and the two that are held out, for the picture of reconstructions
    assert "fitted the mixture to 19,998 latents in" in words


def test_a_resumed_run_knows_how_far_it_is(monkeypatch):
    accelerator = SimpleNamespace(is_main_process=True)
    bar = Progress(16, accelerator, Budget(200, None, step=50)).bar
    assert bar.initial == bar.n == 25
    bar.close()


def test_the_card_says_how_to_make_the_model_from_scratch():
    config = TrainConfig(
        dataset="photos", resume_from_checkpoint="latest", seed=1, use_ema=True, resolution="48x64"
    )
    flags = "--dataset photos --resolution 48x64 --seed 1 --use_ema"
    assert config.command() == f"python train.py {flags}"
    elsewhere = TrainConfig(output_dir="/somewhere/else")
    assert elsewhere.command() == "python train.py --output_dir else"


def test_a_prior_of_codes_that_hardly_began_is_called_so():
    """64 codes that cost ln 100 each on their own: a trained prior needs well under that."""
    config = hfvae.VQVAEConfig(image_size=32)
    model = hfvae.VQVAE(config)
    apart = 64 * math.log(100)
    results = {"perplexity": 100, "reconstruction": 1000.0}
    hardly = report.advice(results | {"elbo": -1000 - 0.8 * apart}, model)["prior"]
    assert "hardly begun" in hardly
    assert "--max_train_minutes" in hardly
    assert "--prior_fraction" in hardly
    assert "prior" not in report.advice(results | {"elbo": -1000 - 0.5 * apart}, model)


def test_files_that_are_not_ours_are_not_replaced_unasked(photos, tmp_path, train_py):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("my notes")
    argv = ["--dataset", photos, "--max_train_steps", 2, "--output_dir", tmp_path / "notes"]
    words = train_py(*argv, status=2)
    assert "holds README.md, which the model's would replace" in words
    assert (tmp_path / "notes" / "README.md").read_text() == "my notes"


def test_a_flag_that_is_mistyped_is_guessed(train_py):
    words = train_py("--resoluton", 64, status=2)
    assert "unrecognized arguments: --resoluton 64: did you mean --resolution?" in words
