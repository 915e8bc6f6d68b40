"""The page without a server in a real browser: from a file without a network, and from a Space."""

import functools
import json
import re
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_browser import browser  # noqa: F401

import hfvae
from hfvae.export import export, page_of
from hfvae.space import publish
from hfvae.training import TrainConfig
from hfvae.training.publish import publish_all
from hfvae.web.page import page as empty_page

PRETRAINED = Path(__file__).parent.parent / "pretrained"
TABS = ["Generate", "Reconstruct", "Interpolate", "Explore", "About"]


@pytest.fixture(scope="module")
def files(demo_models, tmp_path_factory):
    """Pages as files: small models of every family, and one that comes with the repository."""
    folder = tmp_path_factory.mktemp("pages")
    names = ["colour", "binary", "codes", "plain", "fitted"]
    torch.manual_seed(0)
    spatial = {"spatial": True, "image_size": (32, 40), "widths": (8, 8), "latent_dim": 2}
    hfvae.VAE(hfvae.VAEConfig(**spatial)).save_pretrained(folder / "grid")
    models = [*(str(demo_models / name) for name in names), str(folder / "grid")]
    export(folder / "small.html", models)
    unlike = hfvae.VAE(hfvae.VAEConfig(image_size=16, latent_dim=4, widths=(8,), prior="flow"))
    with torch.no_grad():
        unlike.prior.maps[0] *= 1e4  # so that it knows no picture
    unlike.save_pretrained(folder / "unlike")
    export(folder / "unlike.html", [str(folder / "unlike")])
    export(folder / "bundled.html", [str(PRETRAINED / "fashion-mnist-vae")])
    return folder


@pytest.fixture
def visit(browser):  # noqa: F811
    """A visit; afterwards nothing may have gone wrong, or been asked of anybody but `allowed`."""
    pages = []

    def make(address, allowed=(), width=1280, height=900, **kwargs):
        context = browser.new_context(viewport={"width": width, "height": height}, **kwargs)
        page = context.new_page()
        page.problems, page.allowed = [], (address.partition("#")[0], "data:", "blob:", *allowed)
        page.asked = []
        page.on("request", lambda r: page.asked.append(r.url))
        page.on("console", lambda m: m.type == "error" and page.problems.append(m.text))
        page.on("pageerror", lambda e: page.problems.append(str(e)))
        page.goto(address)
        pages.append(page)
        return page

    yield make
    for page in pages:
        assert page.problems == []
        assert [url for url in page.asked if not url.startswith(page.allowed)] == []
        page.context.close()


@pytest.fixture
def open_file(visit, files):
    def make(name, asked="", **kwargs):
        page = visit(f"{(files / name).as_uri()}#{asked}", offline=True, **kwargs)
        page.wait_for_function("globalThis.hfvae?.model")
        return page

    return make


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def all_pixels(page, where):
    """What canvases hold, uint8 (H, W, 3) each."""
    found = page.locator(where).evaluate_all(
        """all => all.map(c => [c.height, c.width,
             [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]])"""
    )
    return [np.array(flat, np.uint8).reshape(h, w, 4)[..., :3] for h, w, flat in found]


def pixels(page, where):
    (found,) = all_pixels(page, where)
    return found


def wait_for(page, condition, arg=None):
    page.wait_for_function(condition, arg=arg)


def drawn(page):
    """The images of Generate, once all are there."""
    wait_for(page, "document.querySelector('#generate ul').dataset.drawn")
    return all_pixels(page, "#generate canvas")


def draws(page, where):
    return int(page.locator(f"{where} .stage").get_attribute("data-draws") or 0)


def settle(page, where):
    """Wait until something is drawn on a stage, and nothing more."""
    wait_for(page, f"document.querySelector('{where} .stage').dataset.draws > 0")
    before = -1
    while (now := draws(page, where)) != before:
        before = now
        page.wait_for_timeout(150)


def noise(folder, seed=0, size=(16, 20), **kwargs):
    """A picture in a file."""
    shape = (*size, 3)
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))
    picture.save(folder / f"{seed}.png", **kwargs)
    return folder / f"{seed}.png"


def upload(page, where, file):
    page.locator(f"{where} input[type=file]").set_input_files(file)


def as_shown(x):
    """(1, C, H, W) in [0, 1] as a canvas has it."""
    image = (x[0] * 255).round().permute(1, 2, 0).to(torch.uint8).numpy()
    return np.broadcast_to(image, (*image.shape[:2], 3))


def same(found, expected, levels=1):
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= levels


# From a file


def test_the_code_of_the_page_is_small():
    assert len(empty_page({}).encode()) <= 80_000


@pytest.mark.parametrize("name", ["small.html", "bundled.html"])
def test_generate_repeats_a_seed_and_its_link(open_file, name):
    page = open_file(name, "count=9")
    first, used = drawn(page), page.get_by_label("Seed").input_value()
    assert len(first) == 9
    page.get_by_role("button", name="Generate").click()
    wait_for(page, "old => document.querySelector('[name=seed]').value !== old", used)
    assert any((a != b).any() for a, b in zip(first, drawn(page), strict=True))
    page.get_by_label("Seed").fill(used)
    for a, b in zip(first, drawn(page), strict=True):
        assert np.array_equal(a, b)
    page.get_by_label("Temperature").press("Home")
    drawn(page)
    assert "temperature=0" in page.url
    assert f"seed={used}" in page.url
    again = open_file(name, page.url.partition("#")[2])
    for a, b in zip(drawn(page), drawn(again), strict=True):
        assert np.array_equal(a, b)


def test_a_new_image_is_taken_along(open_file):
    page = open_file("bundled.html", "seed=3&count=4")
    images = drawn(page)
    page.get_by_role("button", name="Image 2", exact=True).click()
    page.get_by_role("button", name="Explore it").click()
    settle(page, "#explore")
    same(pixels(page, "#explore .well canvas"), images[1], 0)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("small.html", "colour"), ("small.html", "binary"), ("small.html", "codes")],
)
def test_reconstruct_sees_and_makes_what_python_does(
    open_file, demo_models, tmp_path, name, folder
):
    page = open_file(name, f"model={folder}")
    tab(page, "Reconstruct")
    file = noise(tmp_path, size=(48, 70))
    compared = "document.getElementById('apart').textContent.includes('PSNR')"
    wait_for(page, compared)
    well = "document.querySelector('#reconstruct .well canvas').toDataURL()"
    before = page.evaluate(well)
    upload(page, "#reconstruct", file)
    model = hfvae.from_pretrained(demo_models / folder)
    x = model.likelihood.nearest(model.preprocess(file))
    wait_for(page, f"old => {well} !== old && {compared}", before)
    seen = pixels(page, "#reconstruct .well canvas")
    same(seen, as_shown(x), 255 if folder == "binary" else 1)  # grey pixels may be a tie
    assert (seen != as_shown(x)).mean() < 0.1
    x = torch.from_numpy(seen.copy()).permute(2, 0, 1)[None, : model.config.channels] / 255
    same(pixels(page, "#reconstruct .stage"), as_shown(model.reconstruct(x)))
    error = hfvae.functional.psnr(x, model.reconstruct(x)).item()
    assert f"PSNR {error:.1f} dB" in page.locator("#apart").inner_text()


def test_pictures_come_upright_and_on_white(open_file, demo_models, tmp_path):
    page = open_file("small.html")
    tab(page, "Reconstruct")
    model = hfvae.from_pretrained(demo_models / "colour")
    turned, clear = tmp_path / "turned.png", tmp_path / "clear.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(noise(tmp_path, size=(20, 16))).save(turned, exif=exif)
    Image.new("RGBA", (20, 16), (255, 0, 0, 128)).save(clear)
    for file in (turned, clear):
        upload(page, "#reconstruct", file)
        page.wait_for_timeout(400)
        same(pixels(page, "#reconstruct .well canvas"), as_shown(model.preprocess(file)), 2)


def test_the_mouse_and_the_keys_show_the_exact_picture_between_two(
    open_file, demo_models, tmp_path
):
    page = open_file("small.html", "tab=interpolate", reduced_motion="reduce")
    model = hfvae.from_pretrained(demo_models / "colour")
    ends = [noise(tmp_path, seed) for seed in (0, 1)]
    for file in ends:
        upload(page, "#interpolate", file)
        page.wait_for_timeout(300)
    a, b = map(model.preprocess, ends)
    box = page.locator("#interpolate .stage").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 20)
    page.mouse.down()
    before = draws(page, "#interpolate")
    for i in range(20):
        page.mouse.move(box["x"] + 5 + i * box["width"] / 30, box["y"] + 20 + 3 * i)
        page.wait_for_timeout(20)
    page.mouse.up()
    settle(page, "#interpolate")
    assert draws(page, "#interpolate") > before + 5
    place = float(page.locator("#interpolate .stage").get_attribute("data-at"))
    assert place == pytest.approx((5 + 19 * box["width"] / 30) / box["width"], abs=0.01)
    same(pixels(page, "#interpolate .stage"), as_shown(model.between(a, b, [place])))
    slider = page.get_by_role("slider", name="Place between the two pictures")
    for key, place in [("End", 1.0), ("ArrowLeft", 0.98), ("Home", 0.0)]:
        slider.press(key)
        settle(page, "#interpolate")
        same(pixels(page, "#interpolate .stage"), as_shown(model.between(a, b, [place])))
    assert slider.get_attribute("aria-valuetext") == "0 % of the way"
    page.get_by_role("button", name="Swap").click()
    settle(page, "#interpolate")
    same(pixels(page, "#interpolate .stage"), as_shown(model.between(b, a, [1.0])))


def test_the_way_can_be_kept_as_an_animation(open_file):
    page = open_file("bundled.html", "tab=interpolate")
    page.wait_for_function("document.querySelector('#interpolate .stage').dataset.draws > 3")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save animation").click()
    animation = Image.open(download.value.path())
    assert (animation.format, animation.n_frames, animation.size) == ("GIF", 46, (252, 252))
    way = [np.asarray(animation.convert("L"))[4::9, 4::9]]
    animation.seek(23)
    way.append(np.asarray(animation.convert("L"))[4::9, 4::9])
    ends = [pixels(page, f"#interpolate figure:nth-child({n}) .well canvas") for n in (1, 3)]
    model = hfvae.from_pretrained(PRETRAINED / "fashion-mnist-vae")
    for frame, end in zip(way, ends, strict=True):
        x = torch.from_numpy(end[..., 0].copy())[None, None] / 255
        assert np.abs(frame.astype(int) - as_shown(model.reconstruct(x))[..., 0]).max() <= 2


def test_sliders_and_map_move_one_latent_or_two(open_file, demo_models):
    page = open_file("small.html", "tab=explore")
    settle(page, "#explore")
    sliders, outputs = page.locator("#latents input"), page.locator("#latents output")
    sliders.nth(0).wait_for()
    assert "z2 · x · colour" in page.locator("#latents").inner_text()  # as was measured
    z = page.evaluate(
        """async () => [...await hfvae.model.encode(await hfvae.model.decode(
               new Float32Array(4)))]"""
    )
    assert len(z) == 4
    before = [outputs.nth(i).inner_text() for i in range(4)]
    sliders.nth(1).press("End")
    settle(page, "#explore")
    after = [outputs.nth(i).inner_text() for i in range(4)]
    assert [a != b for a, b in zip(after, before, strict=True)] == [False, True, False, False]
    shown = pixels(page, "#explore .stage")
    box = page.locator("#map canvas").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"], steps=15)
    page.mouse.up()
    settle(page, "#explore")
    assert (pixels(page, "#explore .stage") != shown).any()
    assert float(sliders.nth(0).input_value()) == pytest.approx(0.9, abs=0.01)
    assert float(sliders.nth(1).input_value()) == pytest.approx(0.2, abs=0.01)
    page.locator("#map canvas").press("ArrowLeft")
    assert float(sliders.nth(0).input_value()) == pytest.approx(0.88, abs=0.01)
    # The picture is that of the numbers shown.
    model = hfvae.from_pretrained(demo_models / "colour")
    dims = [int(d) for d in re.findall(r"\bz(\d+)", page.locator("#latents").inner_text())]
    z = torch.zeros(1, 4)
    z[0, dims] = torch.tensor([float(outputs.nth(i).inner_text()) for i in range(4)])
    settle(page, "#explore")
    same(pixels(page, "#explore .stage"), as_shown(model.decode(z)), 4)  # of two decimals


def test_explore_says_that_a_flow_knows_nothing_like_a_picture(open_file):
    page = open_file("unlike.html", "tab=explore")
    settle(page, "#explore")
    assert "knows nothing like this picture" in page.locator("#changed").inner_text()
    assert page.locator("#latents label").first.inner_text().startswith("z")
    page = open_file("small.html", "model=colour&tab=explore")
    settle(page, "#explore")
    assert page.locator("#changed").inner_text() == ""


def test_a_code_is_chosen_for_a_cell(open_file, demo_models):
    page = open_file("small.html", "model=codes&tab=explore")
    settle(page, "#explore")
    model = hfvae.from_pretrained(demo_models / "codes")
    x = torch.from_numpy(pixels(page, "#explore .well canvas").copy()).permute(2, 0, 1)[None] / 255
    codes = model.codes(x)
    same(pixels(page, "#explore .stage"), as_shown(model.decode_codes(codes)))
    page.get_by_role("option", name="Cell 1, 2").click()
    page.get_by_role("option", name="Cell 1, 2").press("ArrowDown")
    page.get_by_role("button", name="Code 7", exact=True).click()
    settle(page, "#explore")
    codes[0, 1, 1] = 7
    same(pixels(page, "#explore .stage"), as_shown(model.decode_codes(codes)))
    assert "has code 7" in page.locator("#changed").inner_text()


def latents_of(page, model, where):
    """Of the picture on a canvas."""
    shown = torch.from_numpy(pixels(page, where).copy()).permute(2, 0, 1)[None] / 255
    return model.encode(shown)


@torch.no_grad()
def test_a_grid_is_painted_with_a_second_picture(open_file, files):
    page = open_file("small.html", "model=grid&tab=explore")
    settle(page, "#explore")
    model = hfvae.from_pretrained(files / "grid")
    own = latents_of(page, model, "#explore .well canvas")
    same(pixels(page, "#explore .stage"), as_shown(model.decode(own)))
    second = latents_of(page, model, "#paint canvas")
    assert page.locator("#paint canvas").is_visible()
    box = page.locator("#surface").bounding_box()
    page.mouse.move(box["x"] + 0.02 * box["width"], box["y"] + 0.02 * box["height"])
    page.mouse.down()
    page.mouse.up()
    page.locator("#surface").press("ArrowRight")
    settle(page, "#explore")
    painted = own.clone()
    painted[..., 0, :2] = second[..., 0, :2]  # a radius of 0.08 of 8x10 cells: each by itself
    same(pixels(page, "#explore .stage"), as_shown(model.decode(painted)), 2)
    page.get_by_role("button", name="Start again").click()
    settle(page, "#explore")
    same(pixels(page, "#explore .stage"), as_shown(model.decode(own)))


def test_a_drawing_is_copied_while_it_is_drawn(open_file):
    page = open_file("bundled.html", "tab=reconstruct")
    page.get_by_role("button", name="Draw by hand").click()
    box = page.locator("#reconstruct .pad canvas").bounding_box()
    before = pixels(page, "#reconstruct .well canvas")
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 180, steps=5)
    page.wait_for_timeout(500)
    shown = pixels(page, "#reconstruct .well canvas")
    assert (shown != before).any()
    assert shown[5:22, 5:22].max() > 200
    assert not shown[:3].any()
    page.mouse.up()


def test_a_model_without_a_prior_says_so_and_explores_what_is_uploaded(open_file, tmp_path):
    page = open_file("small.html")
    page.get_by_label("Model", exact=True).select_option("plain")
    page.get_by_text("no prior over its latents").wait_for()
    tab(page, "Interpolate")
    page.get_by_role("button", name="Save animation").click()
    page.get_by_text("needs two pictures").wait_for()
    tab(page, "Explore")
    upload(page, "#explore", noise(tmp_path))
    page.locator("#latents input").nth(3).wait_for()
    settle(page, "#explore")
    assert draws(page, "#explore") > 0
    assert not page.get_by_role("button", name="Draw at random").is_visible()


def test_a_model_that_is_left_while_it_draws_is_left_in_silence(open_file):
    page = open_file("small.html", "count=64")
    for name in ("codes", "binary", "fitted"):
        page.get_by_label("Model", exact=True).select_option(name)
        wait_for(page, "name => document.title.startsWith(name)", name)
    assert len(drawn(page)) == 64
    assert not page.get_by_role("alert").is_visible()


def test_what_is_no_picture_gets_words(open_file, tmp_path):
    page = open_file("small.html", "tab=reconstruct")
    (tmp_path / "text.png").write_text("no picture")
    upload(page, "#reconstruct", tmp_path / "text.png")
    page.get_by_text("cannot be read as a picture").wait_for()


def test_enter_keeps_the_seed_and_no_seed_is_not_zero(open_file):
    page = open_file("small.html", "count=4")
    seed = page.get_by_label("Seed")
    seed.fill("7")
    seed.press("Enter")
    drawn(page)
    assert seed.input_value() == "7"
    assert "seed=7" in page.url
    seed.fill("")
    page.get_by_label("Count").press("ArrowRight")
    page.get_by_text("Seed must be a whole number").wait_for()
    assert "seed=7" in page.url


def test_what_a_left_model_held_is_gone(open_file):
    """In Interpolate and Explore, as soon as another is open; and its first request is answered."""
    page = open_file("small.html", "tab=interpolate")
    for name in ("binary", "codes", "colour"):
        settle(page, "#interpolate")
        before = draws(page, "#interpolate")
        page.get_by_label("Model", exact=True).select_option(name)
        wait_for(page, "name => document.title.startsWith(name)", name)
        page.locator("#interpolate .stage").hover()
        wait_for(page, f"document.querySelector('#interpolate .stage').dataset.draws > {before}")
    assert not page.get_by_role("alert").is_visible()


def test_a_camera_that_is_left_while_it_asks_is_let_go(visit, files):
    page = visit((files / "small.html").as_uri(), offline=True)
    page.wait_for_function("globalThis.hfvae?.model")
    page.evaluate(
        """() => {
          const {mediaDevices} = navigator, {getContext} = HTMLCanvasElement.prototype
          globalThis.given = []
          mediaDevices.getUserMedia = () => new Promise(give => {
            const canvas = document.createElement("canvas")
            getContext.call(canvas, "2d").fillRect(0, 0, 9, 9)
            globalThis.give = () => (given.push(canvas.captureStream(9)), give(given.at(-1)))
          })
        }"""
    )
    tab(page, "Reconstruct")
    page.locator("#reconstruct").get_by_role("button", name="Camera").click()
    tab(page, "Generate")
    assert page.locator("#generate").is_visible()
    page.evaluate("give()")
    wait_for(page, "given[0].getTracks().every(track => track.readyState === 'ended')")
    assert not page.get_by_role("alert").is_visible()


@pytest.mark.parametrize("width", [360, 768])
def test_every_tab_fits_a_phone_and_goes_by_keys(open_file, width):
    page = open_file("small.html", width=width, height=740)
    page.get_by_role("tab", name="Generate").focus()
    for model in ("colour", "codes"):
        page.get_by_label("Model", exact=True).select_option(model)
        for name in TABS:
            page.get_by_role("tab", name=name).wait_for()
            page.wait_for_timeout(150)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            shown = page.locator("[role=tabpanel]:visible")
            assert shown.count() == 1
            page.get_by_role("tab", selected=True).press("ArrowRight")
    assert page.locator("button:visible, input:visible, select:visible").count() > 8
    unnamed = page.locator("button, input:not([type=file]), select").evaluate_all(
        "all => all.filter(e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).length"
    )
    assert unnamed == 0


# What a stranger wrote


HOSTILE = """---
license: x
---
# Title
<img src="https://evil.example/x.png" onerror="globalThis.ran = 1">
<script>globalThis.ran = 2</script>

![x](https://evil.example/y.png), [a link](javascript:globalThis.ran=3), [good](https://a.example)

| a | b |
|---|---|
| `<b>` | **bold** |

```mermaid
graph
```
"""


def test_a_card_is_text_whatever_it_holds(visit, demo_models, tmp_path):
    model = hfvae.from_pretrained(demo_models / "binary")
    model.save_pretrained(tmp_path / "x</script><b>")
    (tmp_path / "x</script><b>" / "README.md").write_text(HOSTILE)
    (tmp_path / "x</script><b>" / "evaluation.json").write_text('{"psnr": NaN, "ssim": 1e99}')
    page = visit(export(tmp_path / "page.html", [str(tmp_path / "x</script><b>")]).as_uri())
    tab(page, "About")
    card = page.locator("#card")
    card.get_by_text("bold").wait_for()
    assert "<img src=" in card.inner_text()
    assert card.locator("img, script, iframe, b").count() == 0
    assert card.locator("a").evaluate_all("all => all.map(a => a.href)") == ["https://a.example/"]
    assert page.evaluate("globalThis.ran") is None
    assert page.locator("#numbers div").count() == 0


# app.py --export


def test_an_export_is_written_whole_or_not_at_all(demo_models, tmp_path, monkeypatch, capsys):
    import app

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["app.py", *map(str, argv)])
        app.main()

    page, model = tmp_path / "page.html", demo_models / "colour"
    page.write_text("old")
    for argv, words in [
        ([page, "--model", tmp_path / "none"], "none"),
        ([tmp_path, "--model", model], "is a folder; give a file"),
        ([tmp_path / "no" / "page.html", "--model", model], "there is no folder"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            run("--export", *argv)
        assert words in capsys.readouterr().err
    assert page.read_text() == "old"
    run("--export", page, "--model", model)
    assert "page.html has" in capsys.readouterr().out
    assert page.read_text() == page_of([str(model)])
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


# A static Space


@pytest.fixture
def space(hub, model, visit, tmp_path):
    """Open the static Space of me/first, as it was published, at a query."""
    model.push_to_hub("me/first")
    assert publish("demo", ["me/first"], sdk="static") == f"{hub.url}/spaces/me/demo"
    files = hub.repos["spaces/me/demo"].files()
    (tmp_path / "index.html").write_bytes(files["index.html"])
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    yield lambda query="": visit(f"{url}{query}", allowed=(url, hub.url, hub.storage))
    server.shutdown()
    server.server_close()


def fetched(hub):
    return [r.path for r in hub.requests if r.method == "GET" and r.origin == "storage"]


def test_a_static_space_shows_its_model_and_any_other_by_its_id(space, hub, config):
    hfvae.VAE(config).push_to_hub("me/other")
    hub.requests.clear()
    page = space()
    front = hub.repos["spaces/me/demo"].files()["README.md"].decode()
    assert "sdk: static\n" in front
    assert "- me/first\n" in front
    assert hub.repos["spaces/me/demo"].sdk == "static"
    drawn(page)
    assert page.get_by_label("Model", exact=True).input_value() == "me/first"
    assert {r.token for r in hub.requests} == {None}
    page.get_by_label("A model of the Hub").fill("me/other")
    page.get_by_role("button", name="Open", exact=True).click()
    page.wait_for_url(re.compile("model=me%2Fother"))
    wait_for(page, "document.title.startsWith('me/other')")
    again = space("?model=me/other&seed=5&count=3")
    assert len(drawn(again)) == 3
    tab(again, "About")
    again.locator("#card", has_text="other").wait_for()
    page.problems = [p for p in page.problems if "404" not in p]  # a browser's words for no numbers
    again.problems = [p for p in again.problems if "404" not in p]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("me/nowhere", "There is no public model me/nowhere"),
        ("me/hidden", "it does not exist, or it is private"),
        ("me/gated", "Access to me/gated is restricted"),
        ("me/empty", "me/empty has no config.json"),
        ("me/pickled", "me/pickled has no model.safetensors"),
        ("me/flipped", "SHA-256"),
        ("me/huge", "has 300 MB; this page loads up to 200 MB"),
        ("me/lying", "has 300 MB; this page loads up to 200 MB"),
        ("me/cut", "cut short"),
        ("me/strange", "config.json: image_size"),
        ("me/down", "answered 503"),
        ("../../etc/passwd", "are called owner/name"),
        ("https://evil.example/x", "are called owner/name"),
    ],
)
def test_a_model_that_cannot_be_opened_gets_words(space, hub, model, config, name, words):
    if name.startswith("me/"):
        hfvae.VAE(config).push_to_hub(name) if name != "me/nowhere" else None
    repo = hub.repos.get(f"models/{name}")
    held = dict(repo.files()) if repo else {}
    if name == "me/hidden":
        repo.private = True
    elif name == "me/gated":
        repo.gated = True
    elif name == "me/empty":
        repo.commit("main", {"README.md": b"nothing"}, "emptied")
    elif name == "me/pickled":
        repo.commit("main", {"config.json": held["config.json"], "model.bin": b"x"}, "pickled")
    elif name == "me/flipped":
        weights = bytearray(held["model.safetensors"])
        weights[-100] ^= 1
        repo.commit("main", held | {"model.safetensors": bytes(weights)}, "flipped")
    elif name == "me/huge":
        hub.fail("HEAD /[0-9a-f]{64}", "huge")
    elif name == "me/lying":
        hub.fail("HEAD /[0-9a-f]{64}", 403)
        hub.fail("GET /[0-9a-f]{64}", "huge")
    elif name == "me/cut":
        hub.fail("GET /[0-9a-f]{64}", "cut")
    elif name == "me/strange":
        changed = json.loads(held["config.json"]) | {"image_size": 10**9}
        repo.commit("main", held | {"config.json": json.dumps(changed).encode()}, "strange")
    elif name == "me/down":
        hub.fail(r"GET /me/down/.*config", 503)
    hub.requests.clear()
    page = space(f"?model={name}")
    page.get_by_role("alert").get_by_text(words).wait_for()
    assert page.evaluate("globalThis.hfvae") is None
    if name == "me/huge":
        assert fetched(hub) == []
    if not name.startswith("me/"):
        assert hub.requests == []
    page.problems.clear()  # the browser's own words for what the Hub answered


def test_a_private_model_is_not_put_where_no_browser_can_fetch_it(hub, model, tmp_path):
    model.push_to_hub("me/secret", private=True)
    with pytest.raises(FileNotFoundError, match="visitors of a static Space fetch models without"):
        publish("me/demo", ["me/secret"], sdk="static")
    assert "spaces/me/demo" not in hub.repos
    model.save_pretrained(tmp_path / "mine")
    publish("me/demo", [str(tmp_path / "mine")], sdk="static")  # a folder goes inside
    assert b'data-model="mine"' in hub.repos["spaces/me/demo"].files()["index.html"]


def test_training_publishes_a_static_space(hub, model, tmp_path, capsys):
    with pytest.raises(ValueError, match="space_sdk needs space_id"):
        TrainConfig(space_sdk="static")
    model.save_pretrained(tmp_path / "run")
    publish_all(TrainConfig(space_id="me/demo", space_sdk="static"), tmp_path / "run")
    assert f"published: {hub.url}/spaces/me/demo" in capsys.readouterr().out
    assert set(hub.repos["spaces/me/demo"].files()) >= {"index.html", "README.md"}
