"""Avatars are a function of their factors, the same everywhere, and none is in both splits."""

import hashlib
import json
import sys
from functools import partial

import pytest
import torch

from hfvae import disentanglement, evaluate
from hfvae.data import DataError, avatars, cache, load_images
from hfvae.data.avatars import Avatars
from hfvae.disentanglement import factor_vae_score

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def few(tmp_path, monkeypatch):
    """A few of each split, in a cache of their own."""
    monkeypatch.setattr(avatars, "COUNTS", {"train": 24, "test": 12})
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")


def digest(pixels):
    return hashlib.sha256(pixels.numpy().tobytes()).hexdigest()


def test_the_first_ones_are_the_same_everywhere():
    train = load_images("avatars")
    assert train.pixels.shape == (24, 3, 64, 64)
    assert train.factors[0].tolist() == [2, 5, 0, 8, 5, 2, 4, 4, 0, 5]
    personas = "c2bdd2ba26a257d5119534eeb4c8062be75481cc7bd6fad695c4183cc7f8ea3a"
    assert digest(train.pixels[:12]) == personas
    critters = load_images("avatars:critters", size=(32, 32), channels=4).pixels
    assert digest(critters) == "e5ff94ce397ebb37fb8fad2349a2c94dcc8fc0437b4278bf6bec39cc8dc8720a"


@pytest.mark.parametrize("style", ["personas", "open-peeps"])
def test_a_picture_is_a_function_of_its_factors(style):
    images = load_images(f"avatars:{style}", size=(24, 32))
    drawn, factors = images.drawn, images.factors
    assert images.pixels.shape == (24, 3, 24, 32)
    assert factors.dtype == torch.int64
    assert drawn.counts == tuple(map(len, drawn.values.values()))
    assert ((factors >= 0) & (factors < torch.tensor(drawn.counts))).all()
    assert torch.equal(drawn.images(factors), images.pixels / 255)
    with pytest.raises(ValueError, match="below"):
        drawn.images(torch.tensor([drawn.counts]))


def test_factors_are_named_and_so_are_their_values():
    drawn = Avatars("personas")
    assert {name: len(values) for name, values in drawn.values.items()} == {
        "clothes": 4, "eyes": 6, "facial_hair": 7, "hair": 20, "mouth": 7, "nose": 3,
        "clothing_colour": 7, "facial_hair_colour": 7, "hair_colour": 7, "skin_colour": 7,
    }  # fmt: skip
    assert drawn.values["eyes"] == ["glasses", "happy", "open", "sleep", "sunglasses", "wink"]
    assert drawn.values["facial_hair"][-1] == "none"
    assert drawn.values["skin_colour"][0] == "#eeb4a4"


def test_each_value_of_each_factor_is_another_picture():
    drawn = Avatars("personas", (48, 48))
    bearded = torch.tensor([[0, 2, 4, 3, 4, 0, 0, 0, 0, 0]])  # where the mouth shows
    for factor, count in enumerate(drawn.counts):
        factors = bearded.repeat(count, 1)
        factors[:, factor] = torch.arange(count)
        assert len(drawn.images(factors).unique(dim=0)) == count


@pytest.mark.parametrize(("style", "most"), [("personas", 12), ("glyphs", 11)])
def test_no_picture_is_in_both_splits(monkeypatch, style, most):
    if style == "glyphs":  # which are 245
        monkeypatch.setattr(avatars, "COUNTS", {"train": 120, "test": 12})
    train, test = (load_images(f"avatars:{style}", split) for split in ("train", "test"))
    both = [{image.numpy().tobytes() for image in images.pixels} for images in (train, test)]
    assert not both[0] & both[1]
    assert 0 < len(test) <= most
    assert torch.equal(test.drawn.images(test.factors), test.pixels / 255)


def test_a_style_of_too_few_pictures_is_refused(monkeypatch):
    monkeypatch.setattr(avatars, "COUNTS", {"train": 400, "test": 12})
    with pytest.raises(DataError, match="initials has too few different pictures"):
        load_images("avatars:initials", "test", size=(8, 8))


def test_avatars_are_drawn_once(monkeypatch):
    first = [load_images("avatars", split) for split in ("train", "test")]
    folders = [folder.name for folder in (cache.CACHE / "decoded").iterdir()]
    assert len(folders) == 2
    words = "avatars-personas-dicebear-core-10.7.0-dicebear-styles-10.6.0-resvg-py-0.5.0-"
    assert all(name.startswith(words) for name in folders)
    monkeypatch.delattr(Avatars, "pictures")
    for images in first:
        again = load_images("avatars", images.split)
        assert "decoded before" in again.note
        assert torch.equal(again.pixels, images.pixels)
        assert torch.equal(again.factors, images.factors)


def test_fewer_can_be_asked_for():
    assert torch.equal(
        load_images("avatars", max_samples=3).pixels, load_images("avatars").pixels[:3]
    )


@pytest.mark.parametrize("style", ["persona", "../personas", "Personas"])
def test_another_style_is_answered_with_the_list(style, train_py):
    words = train_py("--dataset", f"avatars:{style}", "--max_train_steps", "1", status=2)
    assert f"there are no avatars of style {style}; styles: adventurer, adventurer-n" in words
    assert "open-peeps, patchwork, personas, pixel-art" in words
    assert words.count("\n") == 1


@pytest.mark.parametrize("package", ["dicebear", "dicebear_styles", "resvg_py"])
def test_without_the_packages_the_command_that_installs_them_is_said(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r'needs more packages: pip install -e "\.\[train\]"'):
        load_images("avatars")


def test_from_training_to_the_evaluation(tmp_path, monkeypatch, train_py):
    monkeypatch.setattr(evaluate, "FACTOR_SAMPLES", 100)
    monkeypatch.setattr(disentanglement, "SPREAD", 20)
    monkeypatch.setattr(evaluate, "factor_vae_score", partial(factor_vae_score, votes=10, batch=2))
    out = tmp_path / "out"
    train_py(
        "--dataset", "avatars:personas", "--resolution", 16, "--latent_dim", 4, "--widths", 4,
        "--max_train_steps", 2, "--train_batch_size", 8, "--output_dir", out,
    )  # fmt: skip
    measured = json.loads((out / "evaluation.json").read_text())
    for score in ("mig", "sap", "dci_disentanglement", "factor_vae_score"):
        assert 0 <= measured[score] <= 1
    card = (out / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "Personas by Draftbit](https://personas.draftbit.com/) by Draftbit" in card
    assert "dicebear-core 10.7.0, dicebear-styles 10.6.0, resvg-py 0.5.0" in card
