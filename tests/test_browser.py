"""The demo in a real browser, driven as a person would, with a real mouse."""

import io
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import hfvae

pytestmark = pytest.mark.alone

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no Chromium here; apt install chromium, or set CHROMIUM to its path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, demo_url):
    """A page of the demo; afterwards, nothing may have gone wrong or left the machine."""
    pages = []

    def make(query="", width=1280, height=1000, **kwargs):
        context = browser.new_context(viewport={"width": width, "height": height}, **kwargs)
        page = context.new_page()
        page.asked, page.problems = [], []
        page.on("request", lambda r: page.asked.append(r.url))
        page.on("console", lambda m: m.type == "error" and page.problems.append(m.text))
        page.on("pageerror", lambda e: page.problems.append(str(e)))
        page.goto(demo_url + query)
        page.get_by_role("button", name="Generate", exact=True).wait_for()
        pages.append(page)
        return page

    yield make
    for page in pages:
        assert page.problems == []
        outside = [u for u in page.asked if not u.startswith((demo_url, "data:", "blob:"))]
        assert outside == []
        page.context.close()


@pytest.fixture
def picture(tmp_path):
    def make(name="a.png", seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        return str(tmp_path / name)

    return make


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def upload(page, where, file):
    page.locator(f"{where} input[type=file]").set_input_files(file)


def canvas(page, where):
    """What a canvas shows, at the size of the model's images: uint8 (16, 20, 3)."""
    pixels = page.evaluate(
        """where => {
          const c = document.querySelector(where + ' canvas')
          const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data
          const found = []  // the middle of each pixel of the model, which is 16 here
          for (let y = 8; y < c.height; y += 16)
            for (let x = 8; x < c.width; x += 16)
              found.push(...data.slice(4 * (y * c.width + x), 4 * (y * c.width + x) + 3))
          return found
        }""",
        where,
    )
    return np.array(pixels, np.uint8).reshape(16, 20, 3)


def draws(page, where):
    return int(page.locator(f"{where} .scrubber").get_attribute("data-draws") or 0)


def wait_for_sheet(page, where):
    page.wait_for_function(
        "where => Number(document.querySelector(where + ' .scrubber')?.dataset.draws) > 0",
        arg=where,
    )


def wait_for_exact(page, where, after=None):
    """Where the server decoded the picture that is shown."""
    page.wait_for_function(
        """([where, after]) => {
          const found = document.querySelector(where + ' .scrubber').dataset.exact
          return found && found !== after
        }""",
        arg=[where, after],
    )
    return json.loads(page.locator(f"{where} .scrubber").get_attribute("data-exact"))


def gallery(page):
    page.wait_for_function(
        """() => { const images = [...document.querySelectorAll('#images img')]
                   return images.length && images.every(i => i.complete && i.naturalWidth) }"""
    )
    return page.eval_on_selector_all("#images img", "images => images.map(i => i.src)")


def seed(page):
    return int(page.get_by_label("Seed", exact=True).input_value())


def link(page, pattern):
    page.wait_for_url(re.compile(pattern))


def test_something_moves_within_a_second_of_opening(open_page):
    page = open_page()
    wait_for_sheet(page, "#walk")
    before = canvas(page, "#walk")
    page.wait_for_timeout(1000)
    assert draws(page, "#walk") > 20
    assert (canvas(page, "#walk") != before).any()
    page.locator("#walk canvas").hover()  # whoever takes it, has it
    page.wait_for_timeout(100)
    taken = draws(page, "#walk")
    page.wait_for_timeout(300)
    assert draws(page, "#walk") <= taken + 1


def test_who_wants_less_motion_gets_none(open_page):
    page = open_page(reduced_motion="reduce")
    wait_for_sheet(page, "#walk")
    page.wait_for_timeout(500)
    assert draws(page, "#walk") == 1


def test_generate_draws_a_new_seed_and_repeats_the_old_one(open_page):
    page = open_page()
    first, used = gallery(page), None
    link(page, "seed=")
    used = seed(page)
    page.get_by_role("button", name="Generate", exact=True).click()
    page.wait_for_function("old => document.querySelector('#images img').src !== old", arg=first[0])
    assert seed(page) != used
    page.get_by_label("Seed", exact=True).fill(str(used))
    page.get_by_role("button", name="This seed again").click()
    link(page, f"seed={used}")
    assert gallery(page) == first  # files are named by what they hold


def test_a_shared_link_shows_the_same_images(open_page, demo_models):
    page = open_page("?model=codes&seed=5&count=3&temperature=0.5")
    assert len(gallery(page)) == 3
    link(page, "model=codes&count=3&seed=5&temperature=0.5")
    shown = page.request.get(gallery(page)[2]).body()
    model = hfvae.from_pretrained(demo_models / "codes")
    x = model.sample(3, temperature=0.5, generator=torch.Generator().manual_seed(5))
    expected = np.asarray(hfvae.to_pil(x)[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown))), expected)
    again = open_page("?" + page.url.partition("?")[2])
    assert gallery(again) == gallery(page)


def test_reconstruct_compares_the_two_in_words(open_page, picture):
    page = open_page()
    tab(page, "Reconstruct")
    page.locator("#compared img").nth(1).wait_for()  # something is there without an upload
    before = page.locator("#compared img").nth(1).get_attribute("src")
    upload(page, "#picture", picture())
    page.wait_for_function(
        "old => document.querySelectorAll('#compared img')[1]?.src !== old", arg=before
    )
    text = page.locator("#apart").inner_text()
    assert "PSNR" in text
    assert "bits/dim" in text


def test_a_drag_on_the_strip_asks_the_server_nothing_until_it_stops(
    open_page, picture, demo_models
):
    page = open_page()
    tab(page, "Interpolate")
    wait_for_sheet(page, "#strip")  # two draws, already there
    upload(page, "#first", picture("a.png", 0))
    upload(page, "#second", picture("b.png", 1))
    page.wait_for_timeout(1500)
    box = page.locator("#strip canvas").bounding_box()
    x, y = box["x"], box["y"] + box["height"] / 2
    page.mouse.move(x + 5, y)
    page.mouse.down()
    page.wait_for_timeout(600)
    asked, drawn, seen = len(page.asked), draws(page, "#strip"), []
    for i in range(40):
        page.mouse.move(x + 5 + i * box["width"] / 50, y)
        page.wait_for_timeout(20)
        if i % 10 == 0:
            seen.append(canvas(page, "#strip"))
    assert page.asked[asked:] == []
    assert draws(page, "#strip") - drawn >= 36  # at every move, but for a frame now and then
    assert all((a != b).any() for a, b in zip(seen, seen[1:], strict=False))
    before = page.locator("#strip .scrubber").get_attribute("data-exact")
    page.mouse.up()
    place = wait_for_exact(page, "#strip", before)
    assert place[0] == pytest.approx((5 + 39 * box["width"] / 50) / box["width"], abs=0.01)
    model = hfvae.from_pretrained(demo_models / "colour")
    a, b = (model.preprocess(picture(n, s)) for n, s in [("a.png", 0), ("b.png", 1)])
    expected = np.asarray(hfvae.to_pil(model.between(a, b, [place[0]]))[0])
    assert np.abs(canvas(page, "#strip").astype(int) - expected).max() <= 1


def test_the_strip_goes_by_keyboard(open_page):
    page = open_page()
    tab(page, "Interpolate")
    wait_for_sheet(page, "#strip")
    strip = page.get_by_role("slider", name="From one picture to the other")
    strip.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)
    assert strip.get_attribute("aria-valuenow") == "20"
    assert wait_for_exact(page, "#strip")[0] == pytest.approx(0.2)
    for key, place in [("End", "100"), ("ArrowLeft", "98"), ("Home", "0")]:
        page.keyboard.press(key)
        page.wait_for_timeout(50)
        assert strip.get_attribute("aria-valuenow") == place
    assert page.evaluate("scrollY") == 0  # the page stays where it is


def test_the_way_can_be_kept_as_an_animation(open_page):
    page = open_page()
    tab(page, "Interpolate")
    wait_for_sheet(page, "#strip")
    page.get_by_role("button", name="Make an animation").click()
    image = page.locator("#animation img")
    image.wait_for()
    page.wait_for_timeout(300)
    body = page.request.get(image.get_attribute("src")).body()
    assert Image.open(io.BytesIO(body)).n_frames > 20
    assert page.get_by_role("button", name="Share").count() == 0  # what it offers is not there


def test_a_slider_of_explore_shows_at_once_and_then_exactly(open_page):
    page = open_page()
    tab(page, "Explore")
    wait_for_sheet(page, "#latents")
    page.wait_for_timeout(500)
    sliders = page.locator("#latents input[type=range]")
    assert sliders.count() == 4
    labels = page.locator("#latents label span").all_inner_texts()
    assert any(label.startswith("z2 · x · colour · ") for label in labels)  # as was measured
    carried = [float(re.search(r"([\d.]+) nats", label)[1]) for label in labels]
    assert carried == sorted(carried, reverse=True)
    before, asked = canvas(page, "#latents"), len(page.asked)
    start = float(sliders.nth(0).input_value())  # anywhere: the picture was drawn at random
    way = 1 if start < 0.5 else -1
    sliders.nth(0).focus()
    with page.expect_response(re.compile("queue/join")):
        for _ in range(30):
            page.keyboard.press("ArrowRight" if way == 1 else "ArrowLeft")
        page.wait_for_timeout(60)
        assert (canvas(page, "#latents") != before).any()
        assert len(page.asked) == asked  # so far it was the browser alone
    page.wait_for_timeout(1000)
    moved = float(sliders.nth(0).input_value())
    assert moved == pytest.approx(start + way * 0.3)
    sliders.nth(1).focus()
    page.keyboard.press("End")
    page.wait_for_timeout(1000)
    assert float(sliders.nth(0).input_value()) == pytest.approx(moved)  # the first one stays
    assert float(sliders.nth(1).input_value()) == 1


def test_a_drag_on_the_map_is_the_browsers_alone_until_it_stops(open_page):
    page = open_page()
    tab(page, "Explore")
    wait_for_sheet(page, "#map")
    page.wait_for_timeout(800)
    box = page.locator("#map canvas").bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.wait_for_timeout(800)
    asked, drawn = len(page.asked), draws(page, "#map")
    for i in range(40):
        page.mouse.move(box["x"] + 30 + 4 * i, box["y"] + 30 + 3 * i)
        page.wait_for_timeout(20)
    assert page.asked[asked:] == []
    assert draws(page, "#map") - drawn >= 36
    before = page.locator("#map .scrubber").get_attribute("data-exact")
    page.mouse.up()
    assert len(wait_for_exact(page, "#map", before)) == 2


def test_a_click_changes_a_code(open_page, demo_models):
    page = open_page("?model=codes&seed=1&count=1&temperature=1")
    tab(page, "Explore")
    wait_for_sheet(page, "#codes")
    assert not page.locator("#latents").is_visible()
    assert not page.locator("#map").is_visible()
    before = canvas(page, "#codes")
    box = page.locator("#codes canvas").bounding_box()
    changed = np.zeros((16, 20), bool)
    for _ in range(4):  # one click in twelve draws the code that was there
        page.mouse.click(box["x"] + box["width"] * 0.05, box["y"] + box["height"] * 0.05)
        page.wait_for_timeout(700)
        changed |= (canvas(page, "#codes") != before).any(-1)
    assert changed.any()
    assert not changed[:, 12:].any()  # a code is a place: the other side stays


def test_every_tab_fits_every_family(open_page):
    page = open_page()
    for name, has_sliders in [("binary", True), ("codes", False), ("fitted", True)]:
        page.get_by_label("Model").click()
        page.get_by_role("option", name=name).click()
        tab(page, "Generate")
        page.wait_for_timeout(800)
        gallery(page)
        tab(page, "Explore")
        page.wait_for_timeout(1500)
        assert page.locator("#latents").is_visible() == has_sliders
        assert page.locator("#codes").is_visible() != has_sliders
        tab(page, "About")
        page.locator("#card", has_text=name).wait_for()
    page.get_by_label("Model").click()
    page.get_by_role("option", name="plain").click()
    page.get_by_text("no prior over its latents").first.wait_for()


def test_a_wrong_name_gets_one_message(open_page, hub):
    page = open_page("?model=nonsense")
    messages = page.locator(".toast-body")

    def said(words):
        page.get_by_text(words).first.wait_for()
        page.wait_for_timeout(1500)  # whatever else may come
        return messages.all_inner_texts()[-1].count(words), messages.count()

    assert said("There is no such model here") == (1, 1)
    messages.get_by_role("button").first.click()
    menu = page.get_by_label("Model")
    menu.fill("me/nowhere")
    menu.press("Enter")
    assert said("no Hub repository me/nowhere") == (1, 1)


def test_about_shows_the_pictures_in_the_card(open_page):
    page = open_page()
    tab(page, "About")
    pictures = page.locator("#card img")
    pictures.nth(1).wait_for()
    assert pictures.count() == 2
    assert all(
        pictures.nth(i).evaluate("i => i.decode().then(() => i.naturalWidth)") for i in (0, 1)
    )
    below = page.get_by_text("Held-out images, and below each row").bounding_box()["y"]
    assert pictures.nth(0).bounding_box()["y"] < below < pictures.nth(1).bounding_box()["y"]


def test_a_hub_id_is_typed(open_page, hub, model):
    model.push_to_hub("me/typed-here")
    page = open_page()
    menu = page.get_by_label("Model")
    menu.fill("me/typed-here")
    menu.press("Enter")
    page.wait_for_timeout(300)  # a person does not click at the same moment
    tab(page, "About")
    link(page, "model=me%2Ftyped-here")
    page.locator("#card", has_text="typed-here").wait_for()


def test_a_link_to_the_hub_asks_before_it_fetches(open_page, hub, model):
    model.push_to_hub("me/linked-here")
    hub.requests.clear()
    page = open_page("?model=me/linked-here&seed=3&count=2&temperature=1")
    page.get_by_text("This link asks for me/linked-here from the Hub").wait_for()
    assert len(gallery(page)) == 2  # of the first model
    assert not hub.requests
    page.get_by_label("Model").click()
    page.get_by_role("option", name="me/linked-here").click()
    link(page, "model=me%2Flinked-here&count=2")
    assert hub.requests


@pytest.mark.parametrize("name", ["Generate", "Reconstruct", "Interpolate", "Explore", "About"])
def test_a_phone_shows_all_of_it(open_page, name):
    page = open_page(width=390, height=844, has_touch=True, is_mobile=True)
    if not page.get_by_role("tab", name=name).is_visible():
        page.locator("button.overflow-menu, .overflow-menu button").first.click()
        page.get_by_text(name, exact=True).last.click()
    else:
        tab(page, name)
    page.wait_for_timeout(1200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


LAYOUT = """() => {
  const box = e => e.getBoundingClientRect()
  const seen = e => e.checkVisibility({visibilityProperty: true, opacityProperty: true})
    && box(e).width > 1
  const scrolls = e => e && (['auto', 'scroll'].includes(getComputedStyle(e).overflowX)
    || scrolls(e.parentElement))
  const name = e => `${e.tagName} in ${e.closest('[id]')?.id}: ${e.textContent.slice(0, 30)}`
  const all = [...document.querySelectorAll('main :not([aria-hidden=true], [aria-hidden=true] *)')]
    .filter(seen)
  const outside = e => box(e).left < 0 || box(e).right > innerWidth + 1
  const parts = all.filter(e => e.matches(
    'canvas, img, input, button, td, h1, .bar, .hint, .rows span, #apart p, [data-testid$=label]'
  ) && !e.matches('#compared img ~ *, .inner button'))  // one lies over the other there
  const overlap = (a, b) => !a.contains(b) && !b.contains(a)
    && Math.min(box(a).right, box(b).right) - Math.max(box(a).left, box(b).left) > 2
    && Math.min(box(a).bottom, box(b).bottom) - Math.max(box(a).top, box(b).top) > 2
  return {
    out: all.filter(e => outside(e) && !scrolls(e.parentElement)).map(name),
    over: parts.flatMap((a, i) => parts.slice(i + 1).filter(b => overlap(a, b))
      .map(b => name(a) + ' | ' + name(b))),
    wide: document.documentElement.scrollWidth - innerWidth,
    canvases: all.filter(e => e.matches('canvas')).map(e => e.clientWidth),
  }
}"""


def test_nothing_overlaps_or_leaves_the_page_at_any_width(open_page):
    page = open_page()
    for name, canvases in [
        ("Generate", 1), ("Reconstruct", 0), ("Interpolate", 1), ("Explore", 2), ("About", 0),
    ]:  # fmt: skip
        page.set_viewport_size({"width": 1280, "height": 1000})
        page.wait_for_timeout(100)
        tab(page, name)
        page.wait_for_timeout(1200)
        for width in (1280, 768, 600, 390, 320):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(250)
            found = page.evaluate(LAYOUT)
            where = f"{name} at {width}"
            assert found["wide"] <= 0, where
            assert (found["out"], found["over"]) == ([], []), where
            assert len(found["canvases"]) == canvases, where
            assert all(size >= 230 for size in found["canvases"]), where


def contrast(page, selector):
    """The least contrast of such texts with what lies behind them, as WCAG counts it."""
    return page.evaluate(
        """selector => {
          const numbers = colour => colour.match(/[\\d.]+/g).map(Number)
          const light = colour => numbers(colour).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
          const behind = e => {
            const colour = getComputedStyle(e).backgroundColor
            return numbers(colour)[3] === 0 ? behind(e.parentElement) : colour
          }
          const found = [...document.querySelectorAll(selector)].filter(e => e.checkVisibility())
          return Math.min(...found.map(e => {
            const [a, b] = [light(getComputedStyle(e).color), light(behind(e))]
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
          }))
        }""",
        selector,
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_hints_can_be_read(open_page, theme):
    page = open_page(f"?__theme={theme}")
    wait_for_sheet(page, "#walk")
    for text in (".hint", "footer button", "text=/the same seed/", "text=/one of these/"):
        selector = text
        if text.startswith("text"):
            page.locator(text).first.evaluate("e => e.dataset.info = ''")
            selector = "[data-info]"
        assert 4.5 <= contrast(page, selector) < 22, text


def test_dark_mode_is_dark(open_page):
    page = open_page("?__theme=dark")
    colour = page.evaluate("getComputedStyle(document.querySelector('gradio-app')).backgroundColor")
    assert max(int(n) for n in re.findall(r"\d+", colour)[:3]) < 80
