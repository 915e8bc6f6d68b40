"""The whole way of a user, from a folder of images to a model and a demo on the Hub, and on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.utils import get_session
from PIL import Image

import hfvae
from hfvae.hub.card import is_edited

ROOT = Path(__file__).parent.parent
QUICK = [
    "--resolution", "16", "--max_train_steps", "4", "--train_batch_size", "8", "--latent_dim", "4",
]  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    def make(name, size=(24, 20), seed=0):
        (tmp_path / name).mkdir()
        for i in range(20):
            pixels = np.random.default_rng((seed, i)).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
        return tmp_path / name

    return make


def python(*argv, cwd):
    """A command in a process of its own: what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, argv)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "hf_me" not in done.stdout
    return done.stdout


@pytest.fixture
def trained(train_py, tmp_path, monkeypatch):
    """train.py in the folder of the test, without a process of its own: what it printed."""

    def run(*argv, status=0):
        monkeypatch.chdir(tmp_path)
        words = train_py(*argv, status=status)
        assert "hf_me" not in words
        return words

    return run


def card_of(hub, name):
    text = hub.repos[f"models/{name}"].files()["README.md"].decode()
    said = get_session().post(
        f"{hub.url}/api/validate-yaml", json={"repoType": "model", "content": text}
    )
    assert said.status_code == 200, said.text
    assert not is_edited(text)
    return ModelCard(text)


def snippet(card):
    return str(card).split("```python\n")[1].split("```")[0]


@pytest.mark.quick
def test_from_a_folder_to_the_hub_and_from_there_to_another_model(hub, photos, tmp_path):
    words = python(
        ROOT / "train.py", "--dataset", photos("cats"), *QUICK, "--push_to_hub",
        "--hub_model_id", "me/cats", "--space_id", "me/demo", cwd=tmp_path,
    )  # fmt: skip
    assert f"{hub.url}/me/cats/commit/" in words
    assert f"{hub.url}/spaces/me/demo" in words
    repo = hub.repos["models/me/cats"]
    assert repo.log == ["initial commit", "Upload model"]  # one commit for all of it
    assert repo.files().keys() == {
        ".gitattributes", "config.json", "model.safetensors", "README.md", "evaluation.json",
        "train_config.json", "samples.png", "reconstructions.png",
    }  # fmt: skip
    assert not [n for n, d in repo.files().items() if str(tmp_path).encode() in d]
    card = card_of(hub, "me/cats")
    assert card.data.library_name == "hfvae"
    assert card.data.base_model is None
    measured = json.loads(repo.files()["evaluation.json"])
    shown = {result.metric_type: result for result in card.data.eval_results}
    assert shown["elbo"].metric_value == pytest.approx(measured["elbo"], abs=1e-4)
    assert "nats" in shown["elbo"].metric_name
    assert "--dataset cats" in str(card)
    (tmp_path / "snippet.py").write_text(snippet(card))
    python("snippet.py", cwd=tmp_path)
    assert Image.open(tmp_path / "new.png").size == (70, 70)

    space = hub.repos["spaces/me/demo"]
    assert space.hardware == "zero-a10g"
    assert space.variables == {"HFVAE_MODELS": "me/cats"}
    front = yaml.safe_load(space.files()["README.md"].decode().split("---\n")[1])
    assert front["models"] == ["me/cats"]

    # Edited by a person, fine-tuned by another, on other images.
    words = python(
        ROOT / "train.py", "--dataset", photos("dogs", seed=1), "--model_name_or_path", "me/cats",
        "--max_train_steps", "2", "--train_batch_size", "8", "--push_to_hub", cwd=tmp_path,
    )  # fmt: skip
    assert "start afresh" not in words
    tuned = card_of(hub, "me/dogs-vae")
    assert tuned.data.base_model == "me/cats"
    assert "fine-tuned from [me/cats]" in str(tuned)
    model = hfvae.from_pretrained("me/dogs-vae", cache_dir=tmp_path / "cache")
    base = hfvae.from_pretrained("me/cats", cache_dir=tmp_path / "cache")
    assert model.config == base.config
    distance = [
        (a - b).abs().mean() for a, b in zip(model.parameters(), base.parameters(), strict=True)
    ]
    assert 0 < max(distance) < 0.01  # it went on from there


@pytest.mark.parametrize(
    ("config", "extra", "message"),
    [
        (hfvae.VAEConfig(image_size=16, widths=(4,)), ["--model", "beta-vae"], "its beta is 1.0"),
        (hfvae.VAEConfig(image_size=16, widths=(4,)), ["--model", "vq-vae"], "is a vae, not a vq-"),
        (
            hfvae.VQVAEConfig(image_size=16, widths=(4,), codebook_size=64),
            ["--model", "fsq-vae"],
            "is no fsq-vae: its quantizer is vq, not fsq",
        ),
        (
            hfvae.VQVAEConfig(image_size=16, widths=(4,), quantizer="fsq", codebook_size=64),
            ["--codebook_size", "40"],
            None,
        ),
    ],
)
def test_what_a_model_can_be_fine_tuned_to(photos, tmp_path, config, extra, message, trained):
    family = hfvae.VAE if isinstance(config, hfvae.VAEConfig) else hfvae.VQVAE
    family(config).save_pretrained(tmp_path / "base")
    words = trained(
        f"--dataset={photos('cats')}", "--model_name_or_path", "base",
        "--max_train_steps", "1", "--train_batch_size", "8", "--output_dir", tmp_path / "out",
        *extra, status=2 if message else 0,
    )  # fmt: skip
    if message:
        assert message in words.strip().splitlines()[-1]
    else:
        tuned = hfvae.from_pretrained(tmp_path / "out")
        assert tuned.config.codebook_size == 40
        assert tuned.sample(2).shape == (2, 3, 16, 16)
        card = (tmp_path / "out" / "README.md").read_text()
        assert "--dataset cats" in card
        assert "--output_dir out" in card


def test_fine_tuning_adapts_to_another_size_and_says_what_starts_afresh(
    hub, photos, tmp_path, trained
):
    model = hfvae.VAE(hfvae.VAEConfig(image_size=16, latent_dim=4, widths=(8, 8)))
    model.save_pretrained(tmp_path / "base")
    words = trained(
        "--dataset", photos("grey"), "--model_name_or_path", tmp_path / "base",
        "--resolution", "24x32", "--channels", "1", "--max_train_steps", "1", "--output_dir", "o",
    )  # fmt: skip
    assert "tensors start afresh, because the shapes" in words
    tuned = hfvae.VAE.from_pretrained(tmp_path / "o")
    assert tuned.config.size == (24, 32)
    assert tuned.config.channels == 1
    ours, base = tuned.state_dict(), model.state_dict()
    assert "encoder.body.3.weight" not in words  # its shape is the same: carried over
    assert (ours["encoder.body.3.weight"] - base["encoder.body.3.weight"]).abs().max() < 0.01
    assert "base_model" not in (tmp_path / "o" / "README.md").read_text()


@pytest.mark.parametrize(
    ("extra", "token", "message"),
    [
        (["--push_to_hub"], "", "no Hub token here: run hf auth login"),
        (["--push_to_hub"], "hf_wrong", "does not know this token"),
        (["--push_to_hub", "--hub_model_id", "you/x"], "hf_me", "may not write to you/x"),
        (["--push_to_hub", "--hub_model_id", "you/there"], "hf_me", "may not write to you/there"),
        (["--space_id", "you/x"], "hf_me", "may not write to you/x"),
        (["--hub_model_id", "me/x"], "hf_me", "needs push_to_hub"),
        (["--push_to_hub", "--dataset", "/no/where"], "hf_me", "no folder or file /no/where"),
        (["--model_name_or_path", "me/none"], "hf_me", "no Hub repository me/none"),
    ],
)
def test_what_hinders_publishing_is_said_before_the_training(
    hub, photos, monkeypatch, extra, token, message, trained
):
    hub.add("models/you/there")
    monkeypatch.setenv("HF_TOKEN", token)
    words = trained("--dataset", photos("cats"), *QUICK, *extra, status=2)
    last = words.strip().splitlines()[-1]
    assert message in last
    assert last.startswith("train.py: ")
    assert "held out" not in words  # before the images are read, even
    assert hub.repos.keys() == {"models/you/there"}


def test_a_space_that_costs_money_is_explained_before_the_training(hub, photos, tmp_path, trained):
    hub.spaces_cost_money = True
    words = trained("--dataset", photos("cats"), *QUICK, "--space_id", "me/demo", status=2)
    assert "paid plan (402) for me/demo" in words
    assert "images/s" not in words


def test_a_failed_push_keeps_all_and_says_the_command_that_retries(hub, photos, tmp_path, trained):
    hub.fail("POST .*/commit/", 500)
    words = trained(
        "--dataset", photos("cats"), *QUICK, "--push_to_hub", "--output_dir", "out", status=2
    )  # fmt: skip
    assert "saved in out, but not published" in words
    assert "answered 500" in words
    command = words.strip().rpartition("python ")[2]
    assert command == "-m hfvae.hub out me/out"
    hub.faults.clear()
    python(*command.split(), cwd=tmp_path)
    theirs = hfvae.from_pretrained("me/out", cache_dir=tmp_path / "cache").state_dict()
    ours = hfvae.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.slow
def test_a_demo_without_a_model_on_the_hub_carries_it(hub, photos, tmp_path, trained):
    trained(
        "--dataset", photos("cats"), *QUICK, "--space_id", "demo",
        "--output_dir", "out",
    )  # fmt: skip
    space = hub.repos["spaces/me/demo"]
    assert space.variables == {"HFVAE_MODELS": "pretrained/out"}
    assert (
        space.files()["pretrained/out/model.safetensors"]
        == (tmp_path / "out" / "model.safetensors").read_bytes()
    )
    assert not any(key.startswith("models/") for key in hub.repos)
