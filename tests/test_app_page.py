"""What the demo's page says and shows of a model."""

import base64
import io
import json
import math
import re
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import with_pictures
from PIL import Image
from visiting import actions, pixels, seeded

import hfvae
from hfvae.base import BaseAutoencoder
from hfvae.configs import PRIORS, PriorEntry
from hfvae.demo.actions import make_actions
from hfvae.demo.entry import describe
from hfvae.demo.menu import Models
from hfvae.latents import Latents, Posterior
from hfvae.priors import Prior


def test_about_shows_pictures_where_the_card_speaks_of_them(demo_models, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(demo_models / "colour", folder)
    (folder / "README.md").write_text(
        f'from_pretrained("{folder}")\n![samples](samples.png)\nthe copies:\n'
        "![reconstructions](reconstructions.png)\nthe end"
    )
    card = actions(folder).about(None)
    assert card.startswith('from_pretrained("m")')  # and no path of this machine
    assert str(tmp_path) not in card
    order = "samples", "the copies", "reconstructions", "the end"
    assert [card.index(word) for word in order] == sorted(card.index(word) for word in order)
    for name in ("samples", "reconstructions"):
        kind, data = re.search(rf"!\[{name}\]\(data:image/(\w+);base64,([^)]*)\)", card).groups()
        assert kind == "webp"
        shown = Image.open(io.BytesIO(base64.b64decode(data)))
        assert np.array_equal(np.asarray(shown), pixels(folder / f"{name}.png"))
    (folder / "samples.png").write_text("broken")
    assert "samples" not in actions(folder).about(None)


def start_pictures(act):
    """What "Pictures to start from" shows, in each tab the same: uint8 (N, H, W, C)."""
    _, *rows = act.arrive(None)
    assert rows[0] == rows[1] == rows[2]
    return np.stack([pixels(file) for file in rows[0]]) if rows[0] else []


def test_pictures_to_start_from_are_held_out_images(demo_models, tmp_path):
    folder = tmp_path / "m"
    model = hfvae.from_pretrained(demo_models / "colour")
    model.save_pretrained(folder)
    drawn = np.stack([np.asarray(p) for p in hfvae.to_pil(seeded(model, 8))])
    assert np.array_equal(start_pictures(actions(folder)), drawn)  # nothing lies beside it
    x = with_pictures(model, folder)
    act = actions(folder)
    held_out = [np.asarray(picture) for picture in hfvae.to_pil(x[:8])]
    assert np.array_equal(start_pictures(act), np.stack(held_out))
    assert np.array_equal(pixels(act.start(None, None)), held_out[0])
    assert [p.tolist() for p in map(pixels, act.start_two(None, None, None))] == [
        p.tolist() for p in held_out[:2]
    ]
    picked = act.pick(None, SimpleNamespace(index=5))
    assert np.array_equal(pixels(picked), held_out[5])
    (folder / "reconstructions.png").write_bytes(b"broken")
    assert np.array_equal(start_pictures(actions(folder)), drawn)
    Image.new("1", (10_000, 10_000)).save(folder / "reconstructions.png")
    assert np.array_equal(start_pictures(actions(folder)), drawn)


def test_a_model_without_a_prior_starts_from_held_out_images_too(demo_models, tmp_path):
    model = hfvae.from_pretrained(demo_models / "plain")
    model.save_pretrained(tmp_path / "m")
    assert len(start_pictures(actions(tmp_path / "m"))) == 0
    sampler = hfvae.from_pretrained(demo_models / "colour")  # draws its samples.png
    with_pictures(sampler, tmp_path / "m")
    assert len(start_pictures(actions(tmp_path / "m"))) == 8


def test_pictures_of_a_model_from_the_hub(hub, model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "m")
    x = with_pictures(model, tmp_path / "m")
    files = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    hub.add("models/me/pictured", files)

    def visit():
        act = make_actions(Models(["me/pictured"], allow_hub=True))
        menu = Models(["none"], allow_hub=True)
        visited = make_actions(menu)
        return act, visited

    def first(act, name):
        return pixels(act.start(name, None))

    held_out, drawn = (np.asarray(hfvae.to_pil(t)[0]) for t in (x, seeded(model, 8)))
    own, visited = visit()
    assert np.array_equal(first(own, None), held_out)
    assert np.array_equal(first(visited, "me/pictured"), held_out)
    assert visited.about("me/pictured").count("](data:image/") == 2
    monkeypatch.setattr("hfvae.demo.menu.MAX_PICTURES", 100)
    hub.requests.clear()
    _, visited = visit()
    assert np.array_equal(first(visited, "me/pictured"), drawn)
    assert not [r for r in hub.requests if "reconstructions.png" in r.path]  # before it is fetched


def test_what_a_model_does_not_know_is_called_so(demo_models, tmp_path, monkeypatch):
    shutil.copytree(demo_models / "colour", tmp_path / "m")
    picture = Image.effect_noise((20, 16), 80).convert("RGB")

    def said(**measured):
        (tmp_path / "m" / "evaluation.json").write_text(json.dumps(measured))
        return actions(tmp_path / "m").reconstruct(None, picture)[2]

    text = said()
    decibels = float(re.search(r"PSNR ([\d.]+) dB: the more, the closer", text)[1])
    assert decibels < 15
    assert text.startswith("Little alike.")
    assert "usually" not in text
    text = said(psnr=decibels + 9, bits_per_dim=4.271)
    assert text.startswith("This is not the kind of picture that this model knows: what you see is")
    assert f"(usually {decibels + 9:.1f})" in text
    assert text.endswith("It surprises the model by more than 8 bits/dim (usually 4.27).")
    assert said(psnr=decibels + 3).startswith("Little alike.")
    monkeypatch.setattr("hfvae.likelihoods.Likelihood.guess", 1e9)
    text = said(bits_per_dim=4.271)
    assert re.search(r"surprises the model by [\d.]+ bits/dim \(usually 4.27\), [\d,]+ nats", text)


def test_the_map_says_how_to_use_it(demo_models):
    picture = Image.effect_noise((20, 16), 80).convert("RGB")
    _, plane, _ = actions(demo_models / "colour").show_latents(None, picture)
    assert plane.value["hint"].startswith("move over the map, or drag: across z")


def test_sliders_of_the_model_before_get_words(demo_models):
    act = actions(demo_models / "codes")
    picture = Image.effect_noise((20, 16), 80).convert("RGB")
    for kind, at in [("sliders", [0.5] * 6), ("plane", [0.5] * 2)]:
        with pytest.raises(Exception, match="This model has a grid of codes: press Explore"):
            act.move(None, picture, SimpleNamespace(_data={"kind": kind, "at": at}))


def test_explore_begins_with_the_picture_exactly(demo_models):
    model = hfvae.from_pretrained(demo_models / "colour")
    x = seeded(model, 1)
    found = actions(demo_models / "colour").show_latents(None, hfvae.to_pil(x)[0])
    expected = np.asarray(hfvae.to_pil(model.reconstruct(model.preprocess(hfvae.to_pil(x))))[0])
    for part in found[:2]:
        data = base64.b64decode(part.value["picture"].partition(",")[2])
        assert np.abs(np.asarray(Image.open(io.BytesIO(data))).astype(int) - expected).max() <= 1


def test_the_start_says_how_to_share(demo_models, monkeypatch, capsys):
    import gradio

    import app

    monkeypatch.setattr(gradio.Blocks, "block_thread", gradio.Blocks.close)
    monkeypatch.setattr("sys.argv", ["app.py", "--model", str(demo_models / "colour")])
    app.main()
    said = capsys.readouterr().out
    assert re.search(r"The demo is at http://127.0.0.1:\d+/ until you press Ctrl\+C", said)
    assert "python app.py --share" in said
    assert "launch()" not in said


def test_explore_takes_a_model_that_cannot_draw(demo_models):
    act = actions(demo_models / "plain")
    picture = Image.effect_noise((20, 16), 80).convert("RGB")
    latents, plane, _ = act.show_latents(None, picture)
    assert latents.value["at"] == pytest.approx([0.5] * 4)  # the picture's own code
    assert latents.value["labels"] == ["z0", "z1", "z2", "z3"]
    assert plane.value["kind"] == "plane"


class Signs(Latents):
    """A grid of numbers, each 1 or −1."""

    in_features, shape = 2, (2, 8, 10)

    def quantize(self, z):
        return torch.where(z < 0, -1.0, 1.0)

    def forward(self, h, generator=None):
        return SignsPosterior(h, self.quantize(h))


class SignsPosterior(Posterior):
    def __init__(self, h, z):
        self.h, self.z = h, z

    def sample(self, generator=None):
        return self.z

    def mode(self):
        return self.h

    def rate(self, z, prior):
        return prior.nll(z)

    def events(self, times=1, generator=None):
        return self.z


class Coins(Prior):
    """1 or −1, each with a chance of one half."""

    @classmethod
    def of(cls, config, shape):
        return cls()

    def nll(self, z):
        return torch.full((len(z),), z[0].numel() * math.log(2))

    def sample(self, n, temperature=1.0, generator=None):
        return torch.randint(0, 2, (n, *Signs.shape), generator=generator) * 2.0 - 1


class SignsConfig(hfvae.AutoencoderConfig):
    model_type = "signs"


class SignsModel(BaseAutoencoder):
    config_class = SignsConfig

    def __init__(self, config, encoder=None, decoder=None):
        super().__init__(config, Signs(), encoder, decoder)


def test_a_new_kind_of_latent_and_a_new_prior_open_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setitem(PRIORS, "coins", PriorEntry(Coins, ("signs",)))
    monkeypatch.setitem(hfvae.models.FAMILIES, "signs", SignsModel)
    model = SignsModel(SignsConfig(image_size=(16, 20), widths=(8,), prior="coins"))
    model(torch.rand(8, 3, 16, 20))
    model.eval().save_pretrained(tmp_path / "m")
    act = actions(tmp_path / "m")
    images, _ = act.generate(None, 3, 7)
    expected = hfvae.to_pil(model.sample(3, generator=torch.Generator().manual_seed(7)))
    assert all(
        np.array_equal(pixels(a), np.asarray(b)) for a, b in zip(images, expected, strict=True)
    )
    a, b = expected[:2]
    x = model.preprocess(a)
    _, copy, text = act.reconstruct(None, a)
    assert np.array_equal(pixels(copy), np.asarray(hfvae.to_pil(model.reconstruct(x))[0]))
    assert "bits/dim" in text
    assert len(act.interpolate(None, a, b, 3, "slerp")[0]) == 3
    sliders, plane, codes = act.show_latents(None, a)
    assert not codes.visible
    assert sliders.value["labels"][0].endswith(" variance")
    assert plane.value["hint"].startswith("move over the map")
    left = SimpleNamespace(_data={"kind": "sliders", "at": [1.0] * len(sliders.value["labels"])})
    assert act.move(None, a, left)["at"] == left._data["at"]
    moved = act.move(None, a, SimpleNamespace(_data={"kind": "plane", "at": [0.0, 1.0]}))
    assert moved.props["exact"]["picture"].startswith("data:image")
    found = act.explore(None, a, 159, -1.0)
    assert np.array_equal(pixels(found), np.asarray(hfvae.to_pil(model.traverse(x, 159, [-1]))[0]))
    with pytest.raises(Exception, match="Dim must be from 0 to 159"):
        act.explore(None, a, 160, 1.0)
    walk, *_ = act.arrive(None)
    assert walk["kind"] == "line"


@pytest.mark.alone
def test_a_card_fetches_nothing():
    text = describe(
        "---\nlicense: mit\n---\n# A\n![samples](samples.png)\n<img src=https://x.y/z.png> "
        "![a](https://x.y/t.png) ![b][c] <script>1</script>\n<!-- hfvae -->\n[c]: https://x.y"
    )
    assert "![" not in text
    assert "<" not in text
    assert "![" not in describe("!![x](https://x.y/p.png) <<b>img src=https://x.y/q.png>")
    assert "<" not in describe("!![x](https://x.y/p.png) <<b>img src=https://x.y/q.png>")
    start = time.perf_counter()
    for fence in ("```mermaid", "~~~~ Mermaid", "  ```\tMERMAID x"):  # would fetch what it names
        assert "mermaid" not in describe(f"a\n{fence}\nimg: https://x.y\n```\n").lower()
    describe("<!--" * 30_000 + "![" * 30_000)
    assert time.perf_counter() - start < 1
    assert "license" not in text
    assert text.startswith("# A")
    picture = {"samples": Image.new("RGB", (9, 9))}
    often = describe(
        "!![samples](samples.png) ![a](samples.png) [samples](samples.png)" * 99, picture
    )
    assert often.count("data:") == often.count("![") == 1
    assert re.fullmatch(r"!\[samples\]\(data:image/webp;base64,[\w+/=]+\) .*", often)


@pytest.mark.parametrize("value", ["1" + 400 * "0", "NaN", "Infinity", '"many"', "true"])
def test_numbers_beside_a_model_that_no_page_can_show_are_left_out(demo_models, tmp_path, value):
    shutil.copytree(demo_models / "plain", tmp_path / "m")
    (tmp_path / "m" / "evaluation.json").write_text(f'{{"psnr": {value}, "latent_x": {value}}}')
    act = make_actions(Models([str(tmp_path / "m")]))
    words = act.reconstruct(None, Image.new("RGB", (20, 16)))[2]
    assert "PSNR" in words
    assert "usually" not in words


def test_latents_go_by_the_names_of_few_factors_in_letters(demo_models, tmp_path):
    shutil.copytree(demo_models / "colour", tmp_path / "m")
    names = ["hair_colour", "<b>", "a" * 31, "É", *(f"f{i}" for i in range(1000))]
    (tmp_path / "m" / "evaluation.json").write_text(json.dumps({f"latent_{n}": 2 for n in names}))
    model = Models([str(tmp_path / "m")])["m"]
    labels = model.explorer.compared(model.model.prior).labels
    (label,) = (text for text in labels if text.startswith("z2 "))
    assert label.startswith("z2 · hair colour · f0 · f1 · ")
    assert "<" not in label
    assert "É" not in label
    assert len(label) < 1000
