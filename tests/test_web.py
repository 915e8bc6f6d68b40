"""Models in a browser, beside the same models in Python: `hfvae.web` in a worker of Chromium."""

import base64
import json
import random
import re
import threading
from contextlib import suppress
from dataclasses import fields
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from test_browser import browser  # noqa: F401
from test_fuzz import HOSTILE, families, mutated

import hfvae
from hfvae import functional as F
from hfvae.demo.work import work_of
from hfvae.hub.files import CONFIG, WEIGHTS
from hfvae.web import bundle

WEB = Path(hfvae.web.__file__).parent

PRETRAINED = Path(__file__).parent.parent / "pretrained"
TOLERANCE = 1e-3
TIE = 1e-5  # so near to one, a code or a draw may fall on either side

PAGE = """<!doctype html><title>models</title>
<script type="text/plain" id="worker">%s</script>
<script type="module">
%s
const source = document.getElementById("worker").textContent
const worker = () => new Worker(URL.createObjectURL(new Blob([source], {type: "text/javascript"})))
const bytes = text => {
  const found = atob(text), b = new Uint8Array(found.length)
  for (let i = 0; i < b.length; i++) b[i] = found.charCodeAt(i)
  return b.buffer
}
const given = x => (x?.floats === undefined ? x : new Float32Array(bytes(x.floats)))
const text = array => {
  let s = ""
  for (const part of new Uint8Array(array.buffer)) s += String.fromCharCode(part)
  return btoa(s)
}
Object.assign(globalThis, {
  models: {},
  bytes,
  async open_(name, config, weights) {
    models[name] = await load(config, bytes(weights), worker())
    return models[name].work
  },
  async call(name, method, args) {
    const found = await models[name][method](...args.map(given))
    return found instanceof Float32Array ? {floats: text(found)} : found
  },
})
</script>
<script type="module">
%s
globalThis.engine = {load, makeConfig, Random}
</script>"""


class Page:
    """A page with models in it, by their names."""

    def __init__(self, page):
        self.page = page

    def open(self, folder, name):
        config = (folder / CONFIG).read_text("utf-8")
        self.work = self.page.evaluate(
            "args => open_(...args)", [name, config, base64_of(folder / WEIGHTS)]
        )
        return lambda method, *args: self.call(name, method, *args)

    def call(self, name, method, *args):
        given = [floats(a) if isinstance(a, torch.Tensor) else a for a in args]
        found = self.page.evaluate("args => call(...args)", [name, method, given])
        if isinstance(found, dict) and "floats" in found:
            data = np.frombuffer(base64.b64decode(found["floats"]), np.float32)
            return torch.from_numpy(data.copy())
        return found


def base64_of(file):
    return base64.b64encode(file.read_bytes()).decode()


def floats(x):
    return {"floats": base64.b64encode(x.detach().float().numpy().tobytes()).decode()}


@pytest.fixture(scope="module")
def web(browser, tmp_path_factory):  # noqa: F811
    """One page, opened as a file, with no network."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(PAGE % tuple(map(bundle, ["worker.js", "client.js", "model.js"])), "utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.on("console", lambda m: m.type == "error" and problems.append(m.text))
    page.goto(file.as_uri())
    page.wait_for_function("globalThis.engine")
    yield Page(page)
    assert problems == []
    context.close()


VECTOR = {"latent_dim": 5, "image_size": (10, 12), "widths": (8, 12)}
CODES = {"image_size": (12, 16), "widths": (8, 12), "codebook_size": 12, "embedding_dim": 3}
GRID = {"spatial": True, "latent_dim": 3, "image_size": (10, 13), "widths": (8, 12)}
LEARNED = {"prior": "autoregressive", "prior_width": 16, "prior_layers": 2}
MODELS = {
    "plain": hfvae.AutoencoderConfig(**VECTOR),
    "plain mixture": hfvae.AutoencoderConfig(**VECTOR, prior="mixture", likelihood="gaussian"),
    "normal": hfvae.VAEConfig(**VECTOR, channels=4, blocks=2, hidden=9),
    "mixture": hfvae.VAEConfig(**VECTOR, prior="mixture", channels=1),
    "flow": hfvae.VAEConfig(**VECTOR, prior="flow", prior_layers=3, prior_width=8),
    "flow of one": hfvae.VAEConfig(**VECTOR | {"latent_dim": 1}, prior="flow", prior_layers=2),
    "binary": hfvae.VAEConfig(latent_dim=4, channels=1, likelihood="bernoulli", image_size=28),
    "fixed scale": hfvae.VAEConfig(**VECTOR, scale=0.2),
    "tall": hfvae.VAEConfig(latent_dim=3, channels=1, image_size=(112, 92), widths=(4, 4, 4, 8)),
    "wide": hfvae.VAEConfig(latent_dim=1, image_size=(40, 56), widths=(5, 6, 7, 8)),
    "grid": hfvae.VAEConfig(**GRID),
    "grid of cells": hfvae.VAEConfig(**GRID | LEARNED, prior_components=3, likelihood="gaussian"),
    "uniform": hfvae.VQVAEConfig(**CODES),
    "no averages": hfvae.VQVAEConfig(**CODES, ema_decay=0.0, blocks=0),
    "transformer": hfvae.VQVAEConfig(**CODES, **LEARNED),
    "wide transformer": hfvae.VQVAEConfig(**CODES | LEARNED | {"prior_width": 256}),
    "fsq": hfvae.VQVAEConfig(**CODES | LEARNED | {"quantizer": "fsq", "image_size": (9, 13)}),
}
FAMILIES = {"autoencoder": hfvae.Autoencoder, "vae": hfvae.VAE, "vq-vae": hfvae.VQVAE}


def random_model(config):
    """A model whose every number is drawn, as after some training."""
    model = FAMILIES[config.model_type](config)
    for _ in range(3):
        model(torch.rand(8, config.channels, *config.size).round())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "prior.maps":
                parameter.add_(0.1 * torch.randn_like(parameter))
    if config.prior == "mixture":
        model.prior.fit(torch.randn(200, config.latent_dim), seed=0)
    if config.prior == "flow":
        model.prior.turn(torch.randn(200, config.latent_dim), torch.randint(3, (200, 2)))
    return model.eval()


HALVES = {
    "mixture in half": ("mixture", torch.float16),
    "flow in bfloat16": ("flow", torch.bfloat16),
    "transformer in half": ("transformer", torch.float16),
    "normal in double": ("normal", torch.float64),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    found = {path.name: path for path in PRETRAINED.iterdir()}
    folder = tmp_path_factory.mktemp("models")
    for name, config in MODELS.items():
        random_model(config).save_pretrained(folder / name)
    for name, (whole, dtype) in HALVES.items():
        hfvae.from_pretrained(folder / whole, dtype=dtype).save_pretrained(folder / name)
    return found | {path.name: path for path in folder.iterdir()}


EVERY = [*MODELS, *HALVES, *(path.name for path in sorted(PRETRAINED.iterdir()))]


@pytest.fixture(scope="module", params=EVERY)
def both(request, web, folders):
    """A model in Python, and the same in the page."""
    name = request.param
    yield hfvae.from_pretrained(folders[name]), web.open(folders[name], name)
    web.call(name, "close")


def close(found, expected):
    torch.testing.assert_close(found, expected.flatten(), atol=TOLERANCE, rtol=0)


def images(model, n=2):
    return torch.randint(0, 256, (n, model.config.channels, *model.config.size)) / 255


def untied(model, x):
    """Whether no code of these images is near a tie."""
    if model.bottleneck.view != "codes":
        return True
    h = model.infer(x).mode()
    some = [model.bottleneck.codes(h + d * torch.randn_like(h)) for d in (0, TIE, TIE, TIE)]
    return all((codes == some[0]).all() for codes in some)


@torch.no_grad()
def test_images_to_latents_and_back(both):
    model, page = both
    x = next(x for x in (images(model) for _ in range(50)) if untied(model, x))
    z = model.encode(x)
    close(page("encode", x), z)
    close(page("reconstruct", x), model.reconstruct(x))
    close(page("decode", z), model.decode(z))


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_new_images_from_the_same_noise(both, temperature, monkeypatch):
    model, page = both
    if not model.prior.samples:
        with pytest.raises(Exception, match="no prior over its latents"):
            page("sample", 3, 0, temperature)
        return
    drawn = []
    draw = F._draw
    monkeypatch.setattr(F, "_draw", lambda *args: drawn.append(draw(*args)) or drawn[-1])
    expected = model.sample(3, temperature)
    noise = torch.cat([d.flatten() for d in drawn])
    close(page("sample", 3, 0, temperature, noise), expected)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["slerp", "lerp"])
def test_ways_between_images(both, mode):
    model, page = both
    a, b = images(model)
    expected = model.interpolate(a, b, 5, mode)
    close(page("interpolate", a, b, 5, mode), expected)
    close(page("between", a, b, [0.25, 1]), model.between(a, b, [0.25, 1]))
    close(page("interpolate", a, a, 3, mode), model.interpolate(a, a, 3, mode))


def test_a_flow_saved_before_its_base_could_turn(web, folders, tmp_path):
    first = hfvae.from_pretrained(folders["flow"])
    del first.prior._buffers["axes"]
    first.save_pretrained(tmp_path)
    model, page = hfvae.from_pretrained(tmp_path), web.open(tmp_path, "first")
    a, b = images(model).split(1)
    close(page("interpolate", a, b, 5), model.interpolate(a, b, 5))
    close(page("encodeBase", a), model.prior.to_base(model.encode(a)))
    web.call("first", "close")


def test_what_a_model_takes_is_what_python_counts(both, web):
    with torch.device("meta"):
        work = work_of(type(both[0])(both[0].config))
    assert web.work["multiplications"] == work.multiplications
    assert web.work["numbers"] == work.numbers


def are_found(axes, weights, unit):
    found = weights.topk(min(3, len(weights)))
    assert (axes["dims"], axes["unit"]) == (found.indices.tolist(), unit)
    assert axes["weights"] == pytest.approx(found.values.tolist(), rel=1e-3)


@torch.no_grad()
def test_latents_to_explore(both):
    model, page = both
    x = images(model, 6)
    if model.bottleneck.view == "codes":
        codes = model.codes(x[:1])
        assert page("codes", x[:1]).tolist() == codes.flatten().tolist()
        close(page("decodeCodes", codes), model.decode_codes(codes))
        values = [0, model.bottleneck.codebook_size - 1]
    else:
        letter = model.prior.around(model.encode(x)).letter
        assert page("baseOf", x)["letter"] == letter
        axis = model.bottleneck.axes(model.infer(x))
        weights = torch.zeros(model.encode(x)[0].numel())
        weights[axis.dims] = torch.tensor(axis.weights)
        are_found(page("axes", x, 3, "z"), weights, axis.unit)
        close(page("encodeBase", x, "z"), model.encode(x))
        close(page("decodeBase", model.encode(x), "z"), model.reconstruct(x))
        if model.prior.letter == "u":
            if letter == "z":  # a base that does not know them
                x = model.sample(6, generator=torch.Generator().manual_seed(0))
            assert model.prior.around(model.encode(x)) is model.prior
            base, found = model.prior.to_base(model.encode(x)), page("baseOf", x)
            assert found["letter"] == "u"
            close(torch.tensor(found["u"]), base)
            close(page("encodeBase", x), base)
            close(page("decodeBase", base), model.decode(model.prior.from_base(base)))
            are_found(page("axes", x, 3), base.var(0), "variance")
        values = [-1.5, 0.5]
    close(page("traverse", x[:1], 0, values), model.traverse(x[0], 0, values))


def test_a_seed_repeats_and_its_first_images_are_those_of_fewer(web, folders):
    for name in ("normal", "mixture", "flow", "transformer", "uniform"):
        page = web.open(folders[name], name)
        four, again, other = (page("sample", 4, seed, 1) for seed in (7, 7, 8))
        assert torch.equal(four, again)
        assert not torch.equal(four, other)
        close(page("sample", 2, 7, 1), four[: len(four) // 2])


@torch.no_grad()
def test_what_a_seed_draws_is_as_spread_as_the_prior(web, folders):
    """The mean and the spread of 2,000 draws; each is 5 standard errors from failing by chance."""
    page = web.page
    web.open(folders["normal"], "normal")
    u, eps = (
        np.array(page.evaluate(f"() => {{ {code} }}"))
        for code in (
            "const r = new engine.Random(3); return Array.from({length: 2000}, () => r.uniform())",
            "const r = new engine.Random(3); return Array.from({length: 2000}, () => r.normal())",
        )
    )
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * 12**-0.5 / 2000**0.5
    assert abs(eps.mean()) < 5 / 2000**0.5
    assert abs(eps.std() - 1) < 5 / 4000**0.5


def test_only_the_newest_call_for_a_purpose_waits(web, folders):
    web.open(folders["transformer"], "transformer")
    found = web.page.evaluate(
        """async () => {
          const model = models.transformer, z = await model.encode(new Float32Array(3 * 12 * 16))
          const drag = [1, 2, 3, 4].map(() => model.decode(z, {purpose: "drag"}))
          const seen = []
          const each = (image, i) => seen.push(i)
          const long = model.sample(500, 0, 1, null, {purpose: "new", each})
          await model.decode(z)  // is not kept waiting by the samples
          const none = model.sample(3, 1, 1, null, {purpose: "new"})
          const few = model.sample(2, 1, 1, null, {purpose: "new"})
          const ended = await Promise.all([...drag, long, none, few])
          return [ended.map(found => found?.length ?? null), seen.length]
        }"""
    )
    one = 3 * 12 * 16
    assert found[0] == [one, None, None, one, None, None, 2 * one]
    assert found[1] < 100


def test_a_model_that_was_closed_says_so(web, folders):
    page = web.open(folders["normal"], "closing")
    page("close")
    with pytest.raises(Exception, match="the model was closed"):
        page("sample", 1, 0, 1)


def test_bad_calls_get_words(web, folders):
    page = web.open(folders["normal"], "normal")
    for words, call in {
        "n must be 1 or more, not 0": ("sample", 0, 0, 1),
        "temperature must be 0 or more, not -1": ("sample", 1, 0, -1),
        "noise must have 5 numbers, not 4": ("sample", 1, 0, 1, torch.zeros(4)),
        "steps must be 2 or more, not 1": ("interpolate", *torch.rand(2, 4, 10, 12), 1),
        "expected one image, got 2": ("traverse", torch.rand(2, 4, 10, 12), 0, [1]),
        "dim must be from 0 to 4, not 5": ("traverse", torch.rand(4, 10, 12), 5, [1]),
        "expected values in [0, 1], got 2": ("encode", torch.full((4, 10, 12), 2.0)),
        "expected latents of shape (B, 5), got 6 numbers": ("decode", torch.zeros(6)),
    }.items():
        with pytest.raises(Exception, match=re.escape(words)):
            page(*call)


def test_what_no_page_can_run_gets_words(web, folders, tmp_path):
    settings = json.loads((folders["normal"] / CONFIG).read_text())
    weights = (folders["normal"] / WEIGHTS).read_bytes()
    custom, newer = {"custom_parts": ["encoder"]}, {"format_version": 99}
    for words, config, data in [
        ("made with its own encoder, which only Python can run", settings | custom, weights),
        ("saved in format 99, and this page reads up to", settings | newer, weights),
        ("config.json and model.safetensors differ", settings | {"beta": 2.0}, weights),
        ("model.safetensors is damaged: it is longer or shorter", settings, weights + b"0"),
        ("its SHA-256 is not the one it was saved with", settings, weights[:-1] + b"0"),
        ("billion multiplications an image", settings | {"image_size": 4096}, None),
    ]:
        tmp_path.joinpath(CONFIG).write_text(json.dumps(config))
        tmp_path.joinpath(WEIGHTS).write_bytes(data or b"")
        if data is None:
            config = hfvae.VAEConfig(image_size=4096, latent_dim=1, widths=(64, 1, 1, 1, 1, 1, 1))
            hfvae.VAE(config).save_pretrained(tmp_path)
        with pytest.raises(Exception, match=f"HubError: .*{re.escape(words)}"):
            web.open(tmp_path, "refused")


FAMILY_CONFIGS = [hfvae.AutoencoderConfig, hfvae.VAEConfig, hfvae.VQVAEConfig]
NUMBERS = [
    *(b + d for b in (0, 3, 8, 12, 64, 256, 512, 1000, 4096, 65536, 10**6) for d in (-1, 0, 1)),
    0.5, 1e-3, 0.00099, 1000.5, 0.99999, 0.999991, 1e6 + 0.5, -0.1,
]  # fmt: skip
WORDS = ["vq", "fsq", "gaussian", "bernoulli", "discretized-logistic", *hfvae.configs.PRIORS]
LISTS = [[8], [8, 8], [7, 8], [8, 4097], [4096] * 12, [1] * 13, [0], ["8"], [True]]


@pytest.mark.parametrize("kind", FAMILY_CONFIGS)
def test_a_page_reads_the_configs_that_python_reads(kind, web):
    def in_python(values):
        try:
            config = kind(**values)
        except (TypeError, ValueError):
            return None
        return {"size": list(config.size), **json.loads(json.dumps(vars(config)))}

    def as_json(value):
        try:
            json.loads(json.dumps(value, allow_nan=False))
        except ValueError:
            return False
        return not isinstance(value, float) or value != round(value)  # 1.0 is 1 there

    probes = [*NUMBERS, *WORDS, *LISTS, *filter(as_json, HOSTILE)]
    given = [{f.name: value} for f in fields(kind) for value in probes]
    found = web.page.evaluate(
        """([kind, given]) => given.map(values => {
          try {
            return engine.makeConfig({model_type: kind, format_version: 1, ...values})
          } catch (error) {
            if (error.constructor.name !== "HubError") throw error
          }
        })""",
        [kind.model_type, given],
    )
    for values, config in zip(given, found, strict=True):
        expected = in_python(values)
        kept = config and {name: config[name] for name in expected or config}
        assert kept == expected, values


def test_the_modules_can_share_one_scope():
    names = [
        name
        for file in WEB.glob("*.js")
        for name in re.findall(
            r"^(?:export )?(?:async )?(?:const|let|class|function\*?) (\w+)",
            file.read_text("utf-8"),
            re.MULTILINE,
        )
    ]
    again = {name for name in names if names.count(name) > 1}
    assert again == {"load"}  # of model.js and client.js, which are never in one scope


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@torch.no_grad()
def test_any_web_server_will_do(browser, folders):  # noqa: F811
    """The modules as they are, where nothing is bundled."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=WEB))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    folder = folders["normal"]
    found = page.evaluate(
        """async ([config, weights, z]) => {
          const { load } = await import("./client.js")
          const model = await load(config, Uint8Array.from(weights).buffer)
          return [...await model.decode(z)]
        }""",
        [(folder / CONFIG).read_text(), list((folder / WEIGHTS).read_bytes()), [0.5] * 5],
    )
    server.shutdown()
    page.close()
    model = hfvae.from_pretrained(folder)
    close(torch.tensor(found), model.decode(torch.full((1, 5), 0.5)))


TRIED = """async ([config, weights, ...sizes]) => {
  const files = [new TextDecoder().decode(bytes(config)), bytes(weights)]
  const numbers = n => new Float32Array(n).fill(0.5)
  let found
  try {
    const model = await engine.load(...files)
    found = [...model.decode(numbers(sizes[0]))]
    if (model.facts.samples) found.push(...model.sample(1, 0, 1, numbers(model.prior.size)))
    model.encode(numbers(sizes[1]))
  } catch (error) {
    found = `${error.constructor.name}: ${error.message}`
  }
  return found
}"""


class Clock:
    """Seconds of the processor that a page has taken: the machine may have other work."""

    def __init__(self, page):
        self.session = page.context.new_cdp_session(page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def read(self):
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "TaskDuration")


def shown(model):
    decoded = model.decode(torch.full((1, *model.latent_shape), 0.5))
    return torch.cat([decoded, *([model.sample(1)] if model.prior.samples else [])]).flatten()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore::UserWarning")  # no checksum, never fitted
@pytest.mark.parametrize("family", families())
@torch.no_grad()
def test_no_damaged_file_hangs_or_shows_something_else(family, web, tmp_path, monkeypatch):
    """2,000 mutations in all."""
    monkeypatch.setattr(F, "_draw", lambda kind, shape, *_: torch.full(shape, 0.5))
    torch.manual_seed(0)
    model = families()[family]().eval()
    model.save_pretrained(tmp_path)
    files = {name: (tmp_path / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    sizes = [model.encode(torch.zeros(1, 1, 16, 24)).numel(), model.config.dims]
    draw, loaded, clock = random.Random(family), 0, Clock(web.page)
    for i in range(250):
        changed, _ = mutated(files, draw)
        for name, data in changed.items():
            (tmp_path / name).write_bytes(data)
        given = [base64_of(tmp_path / CONFIG), base64_of(tmp_path / WEIGHTS), *sizes]
        before = clock.read()
        found = web.page.evaluate(TRIED, given)
        assert clock.read() - before < 2, i
        if isinstance(found, str):
            assert re.fullmatch(r"HubError: [ -~]{1,300}\.", found), (i, found)
            continue
        loaded += 1
        expected = model  # where Python is stricter, it is harmless, like 16.0 for 16
        with suppress(OSError, ValueError):
            expected = hfvae.from_pretrained(tmp_path)
        close(torch.tensor(found), shown(expected))
    assert 0 < loaded < 125
