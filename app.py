"""A demo in which anyone generates, reconstructs and interpolates images.

    python app.py                                   # the models in pretrained/
    python app.py --model runs/photos-vae           # a model of your own
    python app.py --model owner/name --share        # from the Hub, with a public link
    python app.py --push_to_space me/demo --model owner/name    # published as a Space

On Hugging Face Spaces the variable HFVAE_MODELS names the models, separated by commas.
"""

import argparse
import base64
import functools
import io
import os
import secrets
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing leaves this machine

try:
    # ZeroGPU lends its GPU call by call. Must come before torch.
    import spaces  # ty: ignore[import-not-found]
except ImportError:
    spaces = None
import gradio as gr
import torch
from gradio.themes.utils.fonts import LocalFont
from PIL import Image

import hfvae
from hfvae.card import resource
from hfvae.functional import psnr
from hfvae.images import open_image
from hfvae.models import BaseAutoencoder
from hfvae.space import HARDWARE, publish

MAX_COUNT, MAX_STEPS, MAX_TEMPERATURE, MAX_SEED = 64, 64, 2.0, 2**31 - 1
MAX_PIXELS = 24_000_000  # a picture is refused before it is decoded: 20 KB can unpack to gigabytes
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def words(message: str) -> gr.Error:
    """An error that the visitor reads, and the log does not."""
    return gr.Error(message, print_exception=False)


def in_words(act: Callable[..., Any]) -> Callable[..., Any]:
    """What nobody foresaw goes to the log; the visitor gets words and not a blank "Error"."""

    @functools.wraps(act)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return act(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise gr.Error("Something went wrong here; the server's log says what.") from error

    return wrapper


# Models


class Models:
    """The models on the menu, by name, loaded when they are first used."""

    def __init__(self, sources: list[str]) -> None:
        names = [Path(s).resolve().name if Path(s).is_dir() else s for s in sources]
        unique = len(set(names)) == len(names)
        self.sources = dict(zip(names if unique else sources, sources, strict=True))
        self.loaded: dict[str, BaseAutoencoder] = {}
        self.lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return list(self.sources)

    def __getitem__(self, name: str | None) -> BaseAutoencoder:
        name = self.names[0] if name is None else name
        if name not in self.sources:
            raise words(f"There is no model of that name; there are: {', '.join(self.names)}.")
        with self.lock:
            if name not in self.loaded:
                # float32 whatever was stored: half precision is slow on a CPU.
                model = hfvae.from_pretrained(
                    self.sources[name], device=DEVICE, dtype=torch.float32
                )
                if model.config.channels not in (1, 3, 4):
                    raise hfvae.HubError(f"{name}: no picture has {model.config.channels} channels")
                self.loaded[name] = model
            return self.loaded[name]


# What visitors send


def whole(value: Any, low: int, high: int, name: str) -> int:
    """A number from a visitor: through the API it may be anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise words(f"{name} must be a whole number.")
    if not low <= value <= high:
        raise words(f"{name} must be from {low} to {high}.")
    return int(value)


def real(value: Any, low: float, high: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise words(f"{name} must be a number from {low:g} to {high:g}.")
    return float(value)


def open_safely(source: Any) -> Image.Image:
    """An uploaded file as a picture, or words."""
    try:
        image = Image.open(source, formats=FORMATS)  # the header only
        if image.width * image.height <= MAX_PIXELS:
            return open_image(image)
    except Exception:  # decoders fail in many ways
        raise words(f"This file cannot be read as a picture ({', '.join(FORMATS)}).") from None
    size = f"{image.width} x {image.height}"
    raise words(f"This picture has {size} pixels; the limit is {MAX_PIXELS // 10**6} million.")


class Picture(gr.Image):
    """gr.Image that opens uploads itself: any mode, upright, within limits, and words if it cannot.

    Gradio's own preprocessing drops transparency without blending it, clips 16-bit pictures, and
    lets API clients name any picture on the server. There must be no `__init__` here: Gradio reads
    the signature, and shows the stock component because of `is_template`.
    """

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        if payload is None:
            return None
        if payload.url and payload.url.startswith("data:"):
            try:
                data = base64.b64decode(payload.url.partition(",")[2], validate=True)
            except ValueError:
                raise words("This is not a picture.") from None
            return open_safely(io.BytesIO(data))
        uploads = Path(self.GRADIO_CACHE).resolve()
        if not payload.path or uploads not in Path(payload.path).resolve().parents:
            raise words("Please upload the picture.")
        return open_safely(payload.path)


# What the demo does


def seen(model: BaseAutoencoder, image: Image.Image | None) -> torch.Tensor:
    """A picture as the model sees it, (1, C, H, W) in [0, 1]."""
    if image is None:
        raise words("Please choose a picture first.")
    x = model.preprocess(image)
    return (x > 0.5).to(x) if model.config.likelihood == "bernoulli" else x


def make_endpoints(models: Models) -> dict[str, Any]:
    """The functions behind the buttons, which are the API as well."""

    def generate(
        model: str | None = None,
        count: float = 32,
        seed: float | None = None,
        temperature: float = 1.0,
    ) -> tuple[list[Image.Image], int]:
        """New images drawn from the prior.

        Args:
            model: a name on the menu; null for the first
            count: how many, 1 to 64
            seed: the same seed gives the same images; null draws one
            temperature: spread of the latents, 0 to 2; 0 is the most typical image
        """
        vae = models[model]
        count = whole(count, 1, MAX_COUNT, "Count")
        temperature = real(temperature, 0, MAX_TEMPERATURE, "Temperature")
        seed = secrets.randbelow(MAX_SEED) if seed is None else whole(seed, 0, MAX_SEED, "Seed")
        if vae.prior is None:
            raise words("This model has no prior over its latents, so it cannot make new images.")
        noise = torch.Generator().manual_seed(seed)
        return hfvae.to_pil(vae.sample(count, temperature, generator=noise)), seed

    def draw(model: str | None) -> Image.Image:
        """One new image, to start from without a picture of one's own."""
        return generate(model, count=1)[0][0]

    def reconstruct(
        model: str | None, image: Image.Image | None
    ) -> tuple[Image.Image, Image.Image, str]:
        """Encode a picture and decode it again.

        Args:
            model: a name on the menu; null for the first
            image: the picture
        """
        vae = models[model]
        x = seen(vae, image)
        y = vae.reconstruct(x)
        text = f"PSNR {psnr(x, y).item():.1f} dB: 20 is a rough likeness, 30 a good one."
        if not isinstance(vae, hfvae.Autoencoder):
            noise = torch.Generator().manual_seed(0)
            nats = -vae.elbo(vae.likelihood.observe(x, noise), noise).item()
            bits = vae.likelihood.bits_per_dim(nats, vae.config.dims)
            text += f" Surprise: {nats:,.1f} nats, {bits:.2f} bits/dim; lower is more familiar."
        return hfvae.to_pil(x)[0], hfvae.to_pil(y)[0], text

    def interpolate(
        model: str | None,
        first: Image.Image | None,
        second: Image.Image | None,
        steps: float,
        mode: str,
    ) -> list[Image.Image]:
        """A way from one picture to another through the latents.

        Args:
            model: a name on the menu; null for the first
            first: where it starts
            second: where it ends
            steps: how many images, 2 to 64
            mode: slerp follows the sphere on which latents lie, lerp the straight line
        """
        vae = models[model]
        if first is None or second is None:
            raise words("Interpolation needs two pictures.")
        steps = whole(steps, 2, MAX_STEPS, "Steps")
        if mode not in ("slerp", "lerp"):
            raise words("Mode must be slerp or lerp.")
        a, b = seen(vae, first), seen(vae, second)
        return hfvae.to_pil(vae.interpolate(a, b, steps=steps, mode=mode))

    on_gpu = spaces.GPU if spaces else lambda f: f
    return {f.__name__: on_gpu(in_words(f)) for f in (generate, draw, reconstruct, interpolate)}


# How it looks

# In the theme's own SemiBold file only A and B are drawn: ask for weight 700 instead.
THEME = gr.themes.Default(
    font=[LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"],
    font_mono=[LocalFont("IBM Plex Mono", weights=(400, 700)), "monospace"],
)
CSS = """
.pixels img { image-rendering: pixelated; width: 100%; height: 100%; object-fit: contain }
.pixels .grid-container { grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)) !important }
.pixels .grid-wrap { max-height: none !important }
"""


def build(models: Models) -> gr.Blocks:
    act = make_endpoints(models)
    shared: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 2}
    upload: dict[str, Any] = {
        "type": "pil",
        "format": "png",
        "sources": ["upload", "clipboard"],
        "height": 260,
        "elem_classes": "pixels",
    }
    shown: dict[str, Any] = {
        "type": "pil",
        "format": "png",
        "height": 260,
        "interactive": False,
        "elem_classes": "pixels",
    }
    gallery: dict[str, Any] = {
        "format": "png",
        "height": "auto",
        "object_fit": "contain",
        "elem_classes": "pixels",
    }
    with gr.Blocks(title="hfvae", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.Markdown("# hfvae\nImages that a variational autoencoder dreams up, copies and blends.")
        model = gr.Dropdown(models.names, value=models.names[0], label="Model")

        with gr.Tab("Generate"):
            with gr.Row():
                count = gr.Slider(1, MAX_COUNT, 32, step=1, label="Count")
                seed = gr.Number(None, label="Seed", placeholder="empty draws one")
                temperature = gr.Slider(0, MAX_TEMPERATURE, 1.0, step=0.05, label="Temperature")
            go = gr.Button("Generate", variant="primary")
            images = gr.Gallery(label="New images", columns=8, **gallery)
            used = gr.Number(label="Seed used", interactive=False, precision=0)
            generate: dict[str, Any] = {
                "fn": act["generate"],
                "inputs": [model, count, seed, temperature],
                "outputs": [images, used],
            } | shared
            go.click(**generate, api_name="generate")
            gr.on([demo.load, model.change], **generate, api_visibility="private")

        with gr.Tab("Reconstruct"):
            with gr.Row():
                picture = Picture(label="Your picture", **upload)
                original = gr.Image(label="As the model sees it", **shown)
                copy = gr.Image(label="What the model made of it", **shown)
            text = gr.Textbox(label="How far apart", interactive=False)
            with gr.Row():
                draw = gr.Button("Draw one")
                go = gr.Button("Reconstruct", variant="primary")
            draw.click(act["draw"], model, picture, api_visibility="private", **shared)
            go.click(
                act["reconstruct"],
                [model, picture],
                [original, copy, text],
                api_name="reconstruct",
                **shared,
            )

        with gr.Tab("Interpolate"):
            with gr.Row():
                first = Picture(label="From", **upload)
                second = Picture(label="To", **upload)
            with gr.Row():
                steps = gr.Slider(2, MAX_STEPS, 16, step=1, label="Steps")
                mode = gr.Radio(["slerp", "lerp"], value="slerp", label="Way")
            with gr.Row():
                draw_first = gr.Button("Draw the first")
                draw_second = gr.Button("Draw the second")
                go = gr.Button("Interpolate", variant="primary")
            strip = gr.Gallery(label="From one to the other", columns=8, **gallery)
            draw_first.click(act["draw"], model, first, api_visibility="private", **shared)
            draw_second.click(act["draw"], model, second, api_visibility="private", **shared)
            go.click(
                act["interpolate"],
                [model, first, second, steps, mode],
                strip,
                api_name="interpolate",
                **shared,
            )
    # Without api_open=False a second way in skips the queue and its limits.
    return demo.queue(max_size=32, api_open=False)


LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": CSS,
    "max_file_size": "20mb",
    "run_history": False,
    "footer_links": ["api"],
    "show_error": False,
    "ssr_mode": False,
}


def find_models(given: list[str] | None) -> list[str]:
    """What the command line names, else HFVAE_MODELS, else the folders in pretrained/."""
    if given:
        return given
    if names := os.environ.get("HFVAE_MODELS", ""):
        return [name.strip() for name in names.split(",") if name.strip()]
    return sorted(str(config.parent) for config in resource("pretrained").glob("*/config.json"))


def main() -> None:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", help="folders or Hub ids")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    parser.add_argument("--share", action="store_true", help="a public link for three days")
    parser.add_argument("--push_to_space", metavar="ID", help="publish as a Space, and stop")
    parser.add_argument(
        "--space_hardware", default=HARDWARE, help=f"of a new Space; default {HARDWARE} (ZeroGPU)"
    )
    args = parser.parse_args()
    models = Models(find_models(args.model))
    try:
        if args.push_to_space:
            sources = list(models.sources.values())
            print(publish(args.push_to_space, sources, hardware=args.space_hardware))
            return
        if not models.names:
            raise hfvae.HubError("there is no model in pretrained/: name one with --model")
        for name in models.names:
            models[name]
    except OSError as error:
        print(f"app.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    build(models).launch(server_port=args.port, share=args.share, **LAUNCH)


if __name__ == "__main__":
    main()
