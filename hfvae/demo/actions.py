"""What the demo does with a model and pictures, and the functions that visitors call.

Every function takes a model by its name on the menu, and checks all that it is sent: through the
API it may be anything.
"""

import io
import secrets
from collections.abc import Callable
from typing import Any

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from ..functional import gaussian_kl_by_latent, psnr
from ..images import to_pil
from ..models import VAE, VQVAE, Autoencoder, BaseAutoencoder
from .inputs import in_words, real, several, whole, words
from .menu import Entry, Models
from .scrubber import data_uri, keep, kept, sheet, shown

MAX_COUNT, MAX_STEPS, MAX_TEMPERATURE, MAX_SEED = 64, 64, 2.0, 2**31 - 1
MAX_NUMBERS = 2**25  # in the images of one answer
EXAMPLES = 8  # pictures to start from, where no held-out images lie beside the model
LATENTS, PLACES = 6, 11  # sliders of Explore, and decoded places on each
MAP = 10  # places along each side of the map
FAR = 8.0  # dB below the usual: so are 3 held-out images in 1000, and most of other kinds
STRANGE = (
    "This is not the kind of picture that this model knows: what you see is the nearest thing "
    "that it can draw."
)


# With a model and pictures


def seen(model: BaseAutoencoder, image: Image.Image | None) -> Tensor:
    """A picture as the model sees it, (1, C, H, W) in [0, 1]."""
    if image is None:
        raise words("Please choose a picture first.")
    x = model.preprocess(image)
    return (x > 0.5).to(x) if model.config.likelihood == "bernoulli" else x


def within_limits(model: BaseAutoencoder, count: int) -> int:
    """So many images, or words if they are too many at their size."""
    most = max(2, MAX_NUMBERS // model.config.dims)
    if count > most:
        raise words(f"The images of this model are large: at most {most} at once.")
    return count


def draws(model: BaseAutoencoder, count: int, seed: int, temperature: float = 1.0) -> Tensor:
    """New images from the prior: the same seed, the same images."""
    if model.prior is None:
        raise words("This model has no prior over its latents, so it cannot make new images.")
    return model.sample(count, temperature, generator=torch.Generator().manual_seed(seed))


def files(images: Tensor) -> list[str]:
    """Images as PNG files that the page fetches."""
    return [kept(picture) for picture in to_pil(images)]


def how_far(entry: Entry, x: Tensor, y: Tensor) -> str:
    """How far a reconstruction is from its picture, for somebody who is new to this."""
    model, decibels = entry.model, psnr(x, y).item()
    likeness = ["Little alike.", "A rough likeness.", "Recognisable.", "Close.", "All but equal."]
    text = likeness[sum(decibels > limit for limit in (15, 18, 23, 30))]
    if entry.usual_psnr is not None and decibels < entry.usual_psnr - FAR:
        text = STRANGE
    text += f" PSNR {decibels:.1f} dB{usually(entry.usual_psnr, 1)}: the more, the closer."
    if isinstance(model, Autoencoder):
        return text
    noise = torch.Generator().manual_seed(0)
    nats = -model.elbo(model.likelihood.observe(x, noise), noise).item()
    bits = model.likelihood.bits_per_dim(nats, model.config.dims)
    text += f" It surprises the model by {bits:.2f} bits/dim{usually(entry.usual_bits, 2)}"
    return text + f", {nats:,.0f} nats in all: the more, the stranger."


def usually(measured: float | None, digits: int) -> str:
    """What a number was on average for held-out images, if that was measured."""
    return "" if measured is None else f" (usually {measured:.{digits}f})"


def starts(entry: Entry) -> list[Image.Image]:
    """Pictures to start from: held-out images, else new ones, else none."""
    if entry.held_out:
        return entry.held_out
    model = entry.model
    return [] if model.prior is None else to_pil(draws(model, EXAMPLES, seed=0))


def walk(model: BaseAutoencoder) -> dict[str, Any] | None:
    """A round through new images, to look at on arrival."""
    if model.prior is None:
        return None
    stops = draws(model, 4, seed=1, temperature=0.8)
    ways = [model.interpolate(stops[i - 1], stops[i], steps=13)[:-1] for i in range(4)]
    hint = "a walk through the latent space: move over it, or drag"
    return sheet(torch.cat(ways), "line", play=True, hint=hint)


Telling = tuple[list[int], list[str], Tensor, Tensor]


def telling_latents(entry: Entry, x: Tensor) -> Telling:
    """The latents that carry most, with a label, and from where to where it is worth to go.

    Of a model that cannot draw images to compare, the first ones, around where the picture is.
    """
    if isinstance(entry.model, VQVAE):  # the page still shows another model's latents
        raise words("This model has a grid of codes: press Explore to see it.")
    if entry.model.prior is None:
        code = entry.model.encode(x)[0]
        order = list(range(min(LATENTS, len(code))))
        spread = 3 * code.square().mean().sqrt().clamp(min=1e-3)
        return order, [f"z{i}" for i in order], code[order] - spread, code[order] + spread
    if entry.telling is None:
        entry.telling = compared_latents(entry)
    return entry.telling


def compared_latents(entry: Entry) -> Telling:
    """A VAE's sorted by their KL, averaged over new images; an autoencoder's by their variance."""
    model = entry.model
    codes = model.encode(draws(model, 64, seed=0))
    if isinstance(model, VAE):
        mu, logvar = model.posterior(draws(model, 64, seed=0))
        weight = gaussian_kl_by_latent(mu, logvar).mean(0)
        unit = "nats"
    else:
        weight, unit = codes.var(0), "variance"
    order = weight.argsort(descending=True)[:LATENTS].tolist()
    stand_for = {i: [name for name, latent in entry.factors.items() if latent == i] for i in order}
    labels = [" · ".join([f"z{i}", *stand_for[i], f"{weight[i]:.1f} {unit}"]) for i in order]
    middle, spread = codes.mean(0)[order], 3 * codes.std(0)[order]
    return order, labels, middle - spread, middle + spread


def decoded(model: BaseAutoencoder, z: Tensor) -> Tensor:
    """Many latents, a few at a time: their images may be large."""
    return torch.cat([model.decode(some) for some in z.split(8)])


def sliders(entry: Entry, x: Tensor, at: list[float] | None = None) -> dict[str, Any]:
    """A picture, and what each of its telling latents does to it, the others kept."""
    dims, labels, low, high = telling_latents(entry, x)
    model = entry.model
    z = model.encode(x)
    if at is None:
        at = place(entry, x)
    else:
        z[0, dims] = low + torch.tensor(at).to(low) * (high - low)
    rows = z.repeat(len(dims), PLACES, 1)
    for row, dim in enumerate(dims):
        rows[row, :, dim] = torch.linspace(low[row].item(), high[row].item(), PLACES).to(z)
    return sheet(
        decoded(model, rows.flatten(0, 1)), "sliders", rows=len(dims), at=at,
        picture=data_uri(to_pil(model.decode(z))[0]), labels=labels, live=True,
        hint="each slider is one latent",
    )  # fmt: skip


def place(entry: Entry, x: Tensor) -> list[float]:
    """Where a picture lies along each of the telling latents, from 0 to 1."""
    dims, _, low, high = telling_latents(entry, x)
    return ((entry.model.encode(x)[0, dims] - low) / (high - low)).clamp(0, 1).tolist()


def places_on_map(entry: Entry, x: Tensor, places: Tensor) -> Tensor:
    """Images at places (N, 2) in [0, 1] of the plane of the two most telling latents."""
    dims, _, low, high = telling_latents(entry, x)
    z = entry.model.encode(x).repeat(len(places), 1)
    n = len(dims[:2])
    z[:, dims[:2]] = low[:n] + places.to(low)[:, :n] * (high - low)[:n]
    return decoded(entry.model, z)


def latent_map(entry: Entry, x: Tensor) -> dict[str, Any]:
    side = torch.linspace(0, 1, MAP)
    places = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).flatten(0, 1)
    names = telling_latents(entry, x)[1]
    at = [*place(entry, x), 0.5][:2]  # of a single latent, anywhere down
    return sheet(
        places_on_map(entry, x, places), "plane", rows=MAP, at=at, live=True,
        picture=data_uri(to_pil(places_on_map(entry, x, torch.tensor([at])))[0]),
        hint=f"move over the map, or drag: across {names[0]}, down {names[:2][-1]}",
    )  # fmt: skip


def code_grid(model: VQVAE, codes: Tensor) -> dict[str, Any]:
    """An image and the grid (1, h, w) of codes that it is decoded from."""
    return sheet(
        model.decode_codes(codes), "codes", codes=codes.flatten().tolist(), grid=codes.shape[1:],
        hint=f"{codes[0].numel()} codes: a click gives a cell another one",
    )  # fmt: skip


# What visitors call


def make_actions(models: Models, on_gpu: Callable[..., Any]) -> dict[str, Any]:
    """The functions behind the page and its API, by name; `on_gpu` decorates what decodes."""

    def generate(
        model: str | None = None,
        count: float = 32,
        seed: float | None = None,
        temperature: float = 1.0,
    ) -> tuple[list[str], int]:
        """New images drawn from the prior.

        Args:
            model: a name on the menu; null for the first
            count: how many, 1 to 64
            seed: the same seed gives the same images; null draws one
            temperature: spread of the latents, 0 to 2; 0 is the most typical image
        """
        vae = models[model].model
        count = within_limits(vae, whole(count, 1, MAX_COUNT, "Count"))
        temperature = real(temperature, 0, MAX_TEMPERATURE, "Temperature")
        seed = secrets.randbelow(MAX_SEED) if seed is None else whole(seed, 0, MAX_SEED, "Seed")
        return files(draws(vae, count, seed, temperature)), seed

    def reconstruct(model: str | None, image: Image.Image | None) -> tuple[str, str, str]:
        """Encode a picture and decode it again.

        Args:
            model: a name on the menu; null for the first
            image: the picture
        """
        entry = models[model]
        x = seen(entry.model, image)
        y = entry.model.reconstruct(x)
        return files(x)[0], files(y)[0], how_far(entry, x, y)

    def ends(model: str | None, first: Any, second: Any) -> tuple[BaseAutoencoder, Tensor, Tensor]:
        vae = models[model].model
        if first is None or second is None:
            raise words("Interpolation needs two pictures.")
        return vae, seen(vae, first), seen(vae, second)

    def way(mode: Any) -> str:
        if mode not in ("slerp", "lerp"):
            raise words("Mode must be slerp or lerp.")
        return mode

    def on_the_way(model: str | None, first: Any, second: Any, steps: Any, mode: Any) -> Tensor:
        vae, a, b = ends(model, first, second)
        steps = within_limits(vae, whole(steps, 2, MAX_STEPS, "Steps"))
        return vae.interpolate(a, b, steps=steps, mode=way(mode))

    def interpolate(
        model: str | None,
        first: Image.Image | None,
        second: Image.Image | None,
        steps: float,
        mode: str,
    ) -> tuple[list[str], dict[str, Any]]:
        """A way from one picture to another through the latents.

        Args:
            model: a name on the menu; null for the first
            first: where it starts
            second: where it ends
            steps: how many images, 2 to 64
            mode: slerp follows the sphere on which latents lie, lerp the straight line
        """
        frames = on_the_way(model, first, second, steps, mode)
        hint = "move over the picture, drag, or use the arrow keys"
        return files(frames), sheet(frames, "line", live=True, hint=hint)

    def between(model: str | None, first: Any, second: Any, mode: str, event: gr.EventData) -> Any:
        """The exact picture where the strip was left."""
        vae, a, b = ends(model, first, second)
        at = several(event._data.get("at"), 2, lambda t: real(t, 0, 1, "Place"))
        picture = to_pil(vae.between(a, b, at[:1], way(mode)))[0]
        return gr.HTML(exact={"at": at, "picture": data_uri(picture)})

    def animate(model: str | None, first: Any, second: Any, steps: float, mode: str) -> Any:
        """The same way, there and back, as an animation to keep."""
        frames = to_pil(on_the_way(model, first, second, steps, mode))
        factor = max(1, 256 // max(frames[0].size))
        large = [f.resize((f.width * factor, f.height * factor), 0) for f in frames]
        file = io.BytesIO()
        back = large[-2:0:-1]
        large[0].save(
            file, "WEBP", save_all=True, append_images=large[1:] + back, duration=60, loop=0,
            lossless=True, method=0,
        )  # fmt: skip
        return gr.Image(keep(file.getvalue(), "interpolation.webp"), visible=True)

    def explore(model: str | None, image: Image.Image | None, dim: float, value: float) -> str:
        """A picture with one of its latents, or one of its codes, replaced.

        Args:
            model: a name on the menu; null for the first
            image: the picture
            dim: which latent; for a VQ-VAE which cell of the code grid, row by row
            value: what it is set to; for a VQ-VAE the number of a code
        """
        vae = models[model].model
        x = seen(vae, image)
        if isinstance(vae, VQVAE):
            last = vae.latent_shape[1] * vae.latent_shape[2] - 1
            value = whole(value, 0, vae.config.codebook_size - 1, "Value")
        else:
            last = vae.latent_shape[0] - 1
            value = real(value, -1e6, 1e6, "Value")
        dim = whole(dim, 0, last, "Dim")
        return files(vae.traverse(x[0], dim, [value]))[0]

    def show_latents(model: str | None, image: Image.Image | None) -> tuple[Any, Any, Any]:
        """What Explore shows of a picture: sliders and a map, or a grid of codes."""
        entry = models[model]
        vae = entry.model
        x = seen(vae, image)
        if isinstance(vae, VQVAE):
            return shown(None), shown(None), shown(code_grid(vae, vae.codes(x)))
        return shown(sliders(entry, x)), shown(latent_map(entry, x)), shown(None)

    def move_sliders(model: str | None, image: Any, event: gr.EventData) -> dict[str, Any]:
        entry = models[model]
        n = min(LATENTS, entry.model.latent_shape[0])
        at = several(event._data.get("at"), n, lambda t: real(t, 0, 1, "Place"))
        return sliders(entry, seen(entry.model, image), at)

    def move_on_map(model: str | None, image: Any, event: gr.EventData) -> Any:
        entry = models[model]
        at = several(event._data.get("at"), 2, lambda t: real(t, 0, 1, "Place"))
        x = seen(entry.model, image)
        picture = to_pil(places_on_map(entry, x, torch.tensor([at])))[0]
        return gr.HTML(exact={"at": at, "picture": data_uri(picture)})

    def change_code(model: str | None, event: gr.EventData) -> dict[str, Any]:
        vae = models[model].model
        if not isinstance(vae, VQVAE):
            raise words("This model has no codes.")
        h, w = vae.latent_shape[1:]
        size = vae.config.codebook_size
        codes = several(event._data.get("codes"), h * w, lambda c: whole(c, 0, size - 1, "Code"))
        codes[whole(event._data.get("cell"), 0, h * w - 1, "Cell")] = secrets.randbelow(size)
        return code_grid(vae, torch.tensor(codes, device=vae.device).view(1, h, w))

    def open_link(request: gr.Request) -> tuple[Any, ...]:
        """Model, count, temperature, images and seed that a shared link asks for, else new ones."""
        asked: dict[str, Any] = dict(request.query_params)
        for name in ("count", "seed", "temperature"):
            try:
                asked[name] = float(asked[name])
            except (KeyError, ValueError):
                asked.pop(name, None)
        said = {name: asked[name] for name in ("model", "count", "temperature") if name in asked}
        # What the link does not say stays: the visitor may be changing it already.
        stays = [said.get(name, gr.skip()) for name in ("model", "count", "temperature")]
        if models[asked.get("model")].model.prior is None:
            return *stays, [], None
        return *stays, *generate(**said, seed=asked.get("seed"))

    def arrive(model: str | None) -> tuple[Any, ...]:
        """What a model shows before anybody asks: a walk, and pictures for each tab to start."""
        entry = models[model]
        examples = [kept(picture) for picture in starts(entry)]
        return walk(entry.model), examples, examples, examples

    def pick(model: str | None, event: gr.SelectData) -> str:
        """One of the pictures to start from, by its number: no file is named."""
        examples = starts(models[model])
        return kept(examples[whole(event.index, 0, len(examples) - 1, "Picture")])

    def draw(model: str | None) -> str:
        """One new image, to start from without a picture of one's own."""
        return generate(model, count=1)[0][0]

    def push(model: str | None, second: Any, event: gr.SelectData) -> tuple[Any, str]:
        """The picture that was picked becomes the second, and the second the first."""
        picked = pick(model, event)
        return second or picked, picked

    def start(model: str | None, picture: Image.Image | None, which: int = 0) -> Any:
        """One of the pictures to start from for an empty place, where there are any."""
        examples = starts(models[model])
        return gr.skip() if picture or not examples else kept(examples[which % len(examples)])

    def start_two(model: str | None, first: Any, second: Any) -> tuple[Any, Any]:
        return start(model, first), start(model, second, 1)

    def about(model: str | None) -> str:
        """The card."""
        return models[model].card or "This model has no card."

    return {
        f.__name__: on_gpu(torch.inference_mode()(in_words(f)))
        for f in (
            generate, reconstruct, interpolate, between, animate, explore, show_latents, open_link,
            move_sliders, move_on_map, change_code, arrive, pick, push, draw, start, start_two,
            about,
        )
    }  # fmt: skip
