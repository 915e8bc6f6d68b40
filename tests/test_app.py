"""The demo's endpoints as its visitors' programs see them: a real server, a real client."""

import numpy as np
import pytest
import torch
from conftest import DEMO_MODELS
from visiting import pixels

import hfvae


def test_generate_gives_the_images_of_its_seed(client, demo_models):
    images, seed = client.predict(None, 3, 7, 0.5, api_name="/generate")
    assert seed == 7
    model = hfvae.from_pretrained(demo_models / "colour")
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


@pytest.mark.parametrize("name", DEMO_MODELS)
def test_reconstruct_is_that_of_the_model(client, demo_models, picture, name):
    file = picture()
    original, copy, text = client.predict(name, file, api_name="/reconstruct")
    model = hfvae.from_pretrained(demo_models / name)
    x = model.preprocess(file["path"])
    x = (x > 0.5).float() if name == "binary" else x
    assert np.array_equal(pixels(original), np.asarray(hfvae.to_pil(x)[0]))
    assert np.array_equal(pixels(copy), np.asarray(hfvae.to_pil(model.reconstruct(x))[0]))
    assert "PSNR" in text
    assert ("bits" in text) == (name not in ("plain", "fitted"))  # an autoencoder has no p(x)


def test_interpolate_gives_exactly_its_steps_at_the_models_size(client, demo_models, picture):
    a, b = picture("a.png"), picture("b.jpg", seed=1)
    images, _ = client.predict(None, a, b, 5, "lerp", api_name="/interpolate")
    model = hfvae.from_pretrained(demo_models / "colour")
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
        (("unknown", 2, 1, 1.0), "There is no such model here; there are: colour, binary"),
        (("../colour", 2, 1, 1.0), "There is no such model here"),
        (("me/none", 2, 1, 1.0), "no Hub repository me/none"),
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


def test_explore_replaces_one_latent_or_one_code(client, demo_models, picture):
    file = picture()
    for name, dim, value in [("colour", 2, 1.5), ("fitted", 0, -1), ("codes", 3, 7)]:
        found = client.predict(name, file, dim, value, api_name="/explore")
        model = hfvae.from_pretrained(demo_models / name)
        expected = model.traverse(model.preprocess(file["path"]), dim, [value])
        assert np.array_equal(pixels(found), np.asarray(hfvae.to_pil(expected)[0]))
    client.predict(None, file, api_name="/explore")


@pytest.mark.parametrize(
    ("name", "dim", "value", "words"),
    [
        ("colour", 4, 0, "Dim must be from 0 to 3"),
        ("colour", 0.5, 0, "Dim must be a whole number"),
        ("colour", 0, 1e300, "Value must be a number from"),
        ("codes", 80, 0, "Dim must be from 0 to 79"),
        ("codes", 0, 12, "Value must be from 0 to 11"),
        ("codes", 0, 0.5, "Value must be a whole number"),
    ],
)
def test_explore_refuses_what_the_model_has_not(client, picture, name, dim, value, words):
    with pytest.raises(Exception, match=words):
        client.predict(name, picture(), dim, value, api_name="/explore")
