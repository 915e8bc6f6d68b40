"""Models in a browser, beside the same models in Python: `hfvae.web` in a worker of Chromium."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_browser import browser  # noqa: F401

import hfvae
from hfvae import functional as F
from hfvae.hub.files import CONFIG, WEIGHTS
from hfvae.web import bundle

PRETRAINED = Path(__file__).parent.parent / "pretrained"
TOLERANCE = 1e-3
TIE = 1e-5  # so near to one, a code or a draw may fall on either side

PAGE = """<!doctype html><title>models</title><script type="module">
%s
const worker = () => new Worker(URL.createObjectURL(new Blob([%s], {type: "text/javascript"})))
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer
const numbers = x => (x?.floats === undefined ? x : new Float32Array(bytes(x.floats)))
const text = array => {
  const b = new Uint8Array(array.buffer)
  let s = ""
  for (let i = 0; i < b.length; i += 8192) s += String.fromCharCode(...b.subarray(i, i + 8192))
  return btoa(s)
}
globalThis.models = {}
globalThis.open_ = async (name, config, weights) => {
  models[name] = await load(config, bytes(weights), worker())
  return {config: models[name].config, latents: models[name].latents, samples: models[name].samples}
}
globalThis.call = async (name, method, args) => {
  const found = await models[name][method](...args.map(numbers))
  return found instanceof Float32Array ? {floats: text(found)} : found
}
globalThis.ready = true
</script>"""


class Page:
    """A page with models in it, by their names."""

    def __init__(self, page):
        self.page = page

    def open(self, folder, name=None):
        config = (Path(folder) / CONFIG).read_text()
        weights = base64.b64encode((Path(folder) / WEIGHTS).read_bytes()).decode()
        name = name or str(folder)
        facts = self.page.evaluate("args => open_(...args)", [name, config, weights])
        return lambda method, *args: self.call(name, method, *args), facts

    def call(self, name, method, *args):
        given = [self.floats(a) if isinstance(a, torch.Tensor) else a for a in args]
        found = self.page.evaluate("args => call(...args)", [name, method, given])
        if isinstance(found, dict) and "floats" in found:
            data = np.frombuffer(base64.b64decode(found["floats"]), np.float32)
            return torch.from_numpy(data.copy())
        return found

    def floats(self, x):
        data = np.ascontiguousarray(x.detach().float().numpy())
        return {"floats": base64.b64encode(data.tobytes()).decode()}


@pytest.fixture(scope="module")
def web(browser, tmp_path_factory):  # noqa: F811
    """One page, opened as a file, with no network."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    code = PAGE % (bundle("client.js"), json.dumps(bundle("worker.js")).replace("</", "<\\/"))
    file.write_text(code, "utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.goto(file.as_uri())
    page.wait_for_function("globalThis.ready")
    yield Page(page)
    assert problems == []
    context.close()


VECTOR = {"latent_dim": 5, "image_size": (10, 12), "widths": (8, 12)}
CODES = {"image_size": (12, 16), "widths": (8, 12), "codebook_size": 12, "embedding_dim": 3}
LEARNED = {"prior": "autoregressive", "prior_width": 16, "prior_layers": 2}
MODELS = {
    "plain": hfvae.AutoencoderConfig(**VECTOR),
    "plain mixture": hfvae.AutoencoderConfig(**VECTOR, prior="mixture", likelihood="gaussian"),
    "normal": hfvae.VAEConfig(**VECTOR, channels=4, blocks=2, hidden=9),
    "mixture": hfvae.VAEConfig(**VECTOR, prior="mixture", channels=1),
    "flow": hfvae.VAEConfig(**VECTOR, prior="flow", prior_layers=3, prior_width=8),
    "binary": hfvae.VAEConfig(latent_dim=4, channels=1, likelihood="bernoulli", image_size=28),
    "fixed scale": hfvae.VAEConfig(**VECTOR, scale=0.2),
    "tall": hfvae.VAEConfig(latent_dim=3, channels=1, image_size=(112, 92), widths=(4, 4, 4, 8)),
    "wide": hfvae.VAEConfig(latent_dim=1, image_size=(40, 56), widths=(5, 6, 7, 8), prior="flow"),
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
            if ".mix" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    if config.prior == "mixture":
        model.prior.fit(torch.randn(200, config.latent_dim), seed=0)
    return model.eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    found = {path.name: path for path in PRETRAINED.iterdir()}
    for name, config in MODELS.items():
        found[name] = tmp_path_factory.mktemp("models") / name
        random_model(config).save_pretrained(found[name])
    return found


@pytest.fixture(params=[*MODELS, *(path.name for path in sorted(PRETRAINED.iterdir()))])
def both(request, web, folders):
    """A model in Python, and the same in the page."""
    folder = folders[request.param]
    return hfvae.from_pretrained(folder), web.open(folder)[0]


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
    x = images(model)
    z = model.encode(x)
    if untied(model, x):
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
