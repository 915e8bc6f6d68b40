"""The demo as its visitors' programs see it: a real server, a real client."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hfvae

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

gradio_client = pytest.importorskip("gradio_client")


FAMILIES = ["colour", "binary", "codes", "plain"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Small models of every family: two VAEs, one of them of binary pixels, a VQ-VAE, an AE."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    shape = {"image_size": (16, 20), "widths": (8,)}
    for name, model in {
        "colour": hfvae.VAE(hfvae.VAEConfig(latent_dim=4, **shape)),
        "binary": hfvae.VAE(hfvae.VAEConfig(channels=1, likelihood="bernoulli", **shape)),
        "codes": hfvae.VQVAE(hfvae.VQVAEConfig(codebook_size=12, **shape)),
        "plain": hfvae.Autoencoder(hfvae.AutoencoderConfig(latent_dim=4, **shape)),
    }.items():
        model(torch.rand(8, model.config.channels, 16, 20).round())
        model.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def client(models, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        import app

        demo = app.build(app.Models([str(models / name) for name in FAMILIES]))
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.LAUNCH)
        yield gradio_client.Client(url, verbose=False)
        demo.close()


@pytest.fixture
def picture(tmp_path):
    def make(name="a.png", size=(50, 40), seed=0, **kwargs):
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name, **kwargs)
        return gradio_client.handle_file(str(tmp_path / name))

    return make


def pixels(file):
    return np.asarray(Image.open(file["image"] if isinstance(file, dict) else file))


def test_generate_gives_the_images_of_its_seed(client, models):
    images, seed = client.predict(None, 3, 7, 0.5, api_name="/generate")
    assert seed == 7
    model = hfvae.from_pretrained(models / "colour")
    expected = model.sample(3, temperature=0.5, generator=torch.Generator().manual_seed(7))
    for file, image in zip(images, hfvae.to_pil(expected), strict=True):
        assert file["image"].endswith(".png")
        assert np.array_equal(pixels(file), np.asarray(image))


def test_everything_but_images_has_a_default(client, picture):
    images, seed = client.predict(api_name="/generate")
    again, _ = client.predict(seed=seed, api_name="/generate")
    assert len(images) > 0
    assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(images, again, strict=True))
    assert client.predict(api_name="/generate")[1] != seed
    client.predict(image=picture(), api_name="/reconstruct")
    client.predict(first=picture(), second=picture("b.png", seed=1), api_name="/interpolate")


@pytest.mark.parametrize("name", FAMILIES)
def test_reconstruct_is_that_of_the_model(client, models, picture, name):
    file = picture()
    original, copy, text = client.predict(name, file, api_name="/reconstruct")
    model = hfvae.from_pretrained(models / name)
    x = model.preprocess(file["path"])
    x = (x > 0.5).float() if name == "binary" else x
    assert np.array_equal(pixels(original), np.asarray(hfvae.to_pil(x)[0]))
    assert np.array_equal(pixels(copy), np.asarray(hfvae.to_pil(model.reconstruct(x))[0]))
    assert "PSNR" in text
    assert ("bits/dim" in text) == (name != "plain")  # an autoencoder has no p(x)


def test_interpolate_gives_exactly_its_steps_at_the_models_size(client, models, picture):
    a, b = picture("a.png"), picture("b.jpg", seed=1)
    images = client.predict(None, a, b, 5, "lerp", api_name="/interpolate")
    model = hfvae.from_pretrained(models / "colour")
    way = model.interpolate(model.preprocess(a["path"]), model.preprocess(b["path"]), 5, "lerp")
    assert len(images) == 5
    for file, image in zip(images, hfvae.to_pil(way), strict=True):
        assert np.array_equal(pixels(file), np.asarray(image))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((None, 0, 1, 1.0), "less than minimum"),
        ((None, 1000, 1, 1.0), "greater than maximum"),
        ((None, 2.5, 1, 1.0), "Count must be a whole number"),
        ((None, 2, -1, 1.0), "Seed must be from 0"),
        ((None, 2, 1e300, 1.0), "Seed must be from 0"),
        ((None, 2, 1, 9.0), "greater than maximum"),
        (("unknown", 2, 1, 1.0), "not in the list of choices"),
    ],
)
def test_bad_numbers_get_words(client, arguments, words):
    with pytest.raises(Exception, match=words):
        client.predict(*arguments, api_name="/generate")


def test_a_model_that_cannot_sample_says_why(client):
    with pytest.raises(Exception, match="no prior over its latents"):
        client.predict("plain", api_name="/generate")


def test_what_nobody_foresaw_gets_words_too(client, picture, monkeypatch):
    def fail(*_):
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(hfvae.VAE, "reconstruct", fail)
    with pytest.raises(Exception, match="Something went wrong") as caught:
        client.predict(image=picture(), api_name="/reconstruct")
    assert "secret" not in str(caught.value)


def test_missing_pictures_get_words(client, picture):
    with pytest.raises(Exception, match="choose a picture"):
        client.predict(image=None, api_name="/reconstruct")
    with pytest.raises(Exception, match="needs two pictures"):
        client.predict(first=picture(), second=None, api_name="/interpolate")


def test_files_that_are_no_picture_get_words(client, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    for name, words in [
        ("text.png", "cannot be read as a picture"),
        ("bomb.png", "10000 x 10000 pixels"),
    ]:
        file = gradio_client.handle_file(str(tmp_path / name))
        with pytest.raises(Exception, match=words):
            client.predict(image=file, api_name="/reconstruct")


@pytest.mark.parametrize("meta", [{}, {"meta": {}}, {"meta": {"_type": "gradio.FileData"}}])
def test_no_file_of_the_server_can_be_named(client, tmp_path, meta):
    import httpx

    Image.new("RGB", (9, 9)).save(tmp_path / "private.png")
    call = f"{client.src}gradio_api/call/reconstruct"
    body = {"data": [None, {"path": str(tmp_path / "private.png")} | meta]}
    event = httpx.post(call, json=body).json()["event_id"]
    answer = httpx.get(f"{call}/{event}").text
    assert answer.startswith("event: error"), answer
    assert str(tmp_path) not in answer
