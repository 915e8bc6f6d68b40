"""The functions that visitors call.

Every one takes a model by its name on the menu, and checks all that it is sent: through the API it
may be anything.
"""

import io
import secrets
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from ..images import to_pil
from .entry import Entry
from .inputs import in_words, places, real, seen, whole, words
from .menu import Models
from .scrubber import exact, files, page_file, png_file, sheet, shown
from .work import in_time

MAX_COUNT, MAX_STEPS, MAX_TEMPERATURE, MAX_SEED = 64, 64, 2.0, 2**31 - 1
MAX_NUMBERS = 2**25  # in the images of one answer
Named = str | None
Picture = Image.Image | None


def make_actions(models: Models, on_gpu: Callable[..., Any] | None = None) -> SimpleNamespace:
    """The methods of `Actions`, as the page and its API call them; `on_gpu` decorates each."""
    plain = Actions(models)
    public = [name for name in vars(Actions) if not name.startswith("_")]
    acts = {name: in_time()(in_words(getattr(plain, name))) for name in public}
    acts = {name: torch.inference_mode()(act) for name, act in acts.items()}
    return SimpleNamespace(**{name: on_gpu(act) if on_gpu else act for name, act in acts.items()})


class Actions:
    """What visitors do with the models of a menu."""

    def __init__(self, models: Models) -> None:
        self._models = models

    # The API: signatures and docstrings are what its users read.

    def generate(
        self,
        model: Named = None,
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
        entry = self._models[model]
        count = _few(entry, whole(count, 1, MAX_COUNT, "Count"))
        temperature = real(temperature, 0, MAX_TEMPERATURE, "Temperature")
        seed = secrets.randbelow(MAX_SEED) if seed is None else whole(seed, 0, MAX_SEED, "Seed")
        return files(entry.draws(count, seed, temperature)), seed

    def reconstruct(self, model: Named, image: Picture) -> tuple[str, str, str]:
        """Encode a picture and decode it again.

        Args:
            model: a name on the menu; null for the first
            image: the picture
        """
        entry = self._models[model]
        x = seen(entry.model, image)
        y = entry.model.reconstruct(x)
        return files(x)[0], files(y)[0], entry.how_far(x, y)

    def interpolate(
        self, model: Named, first: Picture, second: Picture, steps: float, mode: str
    ) -> tuple[list[str], dict[str, Any]]:
        """A way from one picture to another through the latents.

        Args:
            model: a name on the menu; null for the first
            first: where it starts
            second: where it ends
            steps: how many images, 2 to 64
            mode: slerp follows the sphere on which latents lie, lerp the straight line
        """
        frames = self._way(model, first, second, steps, mode)
        hint = "move over the picture, drag, or use the arrow keys"
        return files(frames), sheet(frames, "line", live=True, hint=hint)

    def explore(self, model: Named, image: Picture, dim: float, value: float) -> str:
        """A picture with one of its latents, or one of its codes, replaced.

        Args:
            model: a name on the menu; null for the first
            image: the picture
            dim: which latent; for a VQ-VAE which cell of the code grid, row by row
            value: what it is set to; for a VQ-VAE the number of a code
        """
        entry = self._models[model]
        dim = whole(dim, 0, entry.explorer.entries - 1, "Dim")
        values = [entry.explorer.value(value)]
        return files(entry.model.traverse(seen(entry.model, image), dim, values))[0]

    # What the page alone calls

    def open_link(self, request: gr.Request) -> tuple[Any, ...]:
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
        if self._models.fetches(name := asked.get("model", "")):  # only if the visitor says so
            gr.Info(f"This link asks for {name} from the Hub: to fetch it, choose it in the menu.")
            stays[0] = gr.Dropdown(choices=[*self._models.names, name])
            del asked["model"], said["model"]
        if not self._models[asked.get("model")].model.prior.samples:
            return *stays, [], None
        return *stays, *self.generate(**said, seed=asked.get("seed"))

    def arrive(self, model: Named) -> tuple[Any, ...]:
        """What a model shows before anybody asks: a walk, and pictures for each tab to start."""
        entry = self._models[model]
        examples = [png_file(picture) for picture in entry.starts()]
        return entry.walk(), examples, examples, examples

    def about(self, model: Named) -> str:
        """The card."""
        return self._models[model].card or "This model has no card."

    def draw(self, model: Named) -> str:
        """One new image, to start from without a picture of one's own."""
        return self.generate(model, count=1)[0][0]

    def pick(self, model: Named, event: gr.SelectData) -> str:
        """One of the pictures to start from, by its number: no file is named."""
        examples = self._models[model].starts()
        return png_file(examples[whole(event.index, 0, len(examples) - 1, "Picture")])

    def push(self, model: Named, second: Any, event: gr.SelectData) -> tuple[Any, str]:
        """The picture that was picked becomes the second, and the second the first."""
        picked = self.pick(model, event)
        return second or picked, picked

    def start(self, model: Named, picture: Picture, which: int = 0) -> Any:
        """One of the pictures to start from for an empty place, where there are any."""
        examples = self._models[model].starts()
        return gr.skip() if picture or not examples else png_file(examples[which % len(examples)])

    def start_two(self, model: Named, first: Picture, second: Picture) -> tuple[Any, Any]:
        return self.start(model, first), self.start(model, second, 1)

    def between(
        self, model: Named, first: Picture, second: Picture, mode: str, event: gr.EventData
    ) -> gr.HTML:
        """The exact picture where the strip was left."""
        entry, a, b = self._ends(model, first, second, mode)
        at = places(event._data.get("at"), 2)
        return exact(at, entry.model.between(a, b, at[:1], mode))

    def animate(self, model: Named, first: Picture, second: Picture, steps: Any, mode: Any) -> Any:
        """The same way, there and back, as an animation to keep."""
        frames = to_pil(self._way(model, first, second, steps, mode))
        factor = max(1, 256 // max(frames[0].size))
        large = [f.resize((f.width * factor, f.height * factor), 0) for f in frames]
        file = io.BytesIO()
        large[0].save(
            file, "WEBP", save_all=True, append_images=large[1:] + large[-2:0:-1], duration=60,
            loop=0, lossless=True, method=0,
        )  # fmt: skip
        return gr.Image(page_file(file.getvalue(), "interpolation.webp"), visible=True)

    def show_latents(self, model: Named, image: Picture) -> tuple[gr.HTML, ...]:
        """What Explore shows of a picture: sliders and a map, or a grid of codes."""
        found = self._models[model].explorer.show(image)
        return tuple(shown(found.get(kind)) for kind in ("sliders", "plane", "codes"))

    def move(self, model: Named, image: Picture, event: gr.EventData) -> Any:
        """What one of these shows where the visitor left it."""
        return self._models[model].explorer.move(image, event._data)

    def _ends(self, model: Named, first: Picture, second: Picture, mode: Any) -> tuple[Any, ...]:
        entry = self._models[model]
        if first is None or second is None:
            raise words("Interpolation needs two pictures.")
        if mode not in ("slerp", "lerp"):
            raise words("Mode must be slerp or lerp.")
        return entry, seen(entry.model, first), seen(entry.model, second)

    def _way(self, model: Named, first: Picture, second: Picture, steps: Any, mode: Any) -> Tensor:
        entry, a, b = self._ends(model, first, second, mode)
        steps = _few(entry, whole(steps, 2, MAX_STEPS, "Steps"))
        return entry.model.interpolate(a, b, steps=steps, mode=mode)


def _few(entry: Entry, count: int) -> int:
    """So many images, or words if they are too many at their size."""
    most = max(2, MAX_NUMBERS // entry.model.config.dims)
    if count > most:
        raise words(f"The images of this model are large: at most {most} at once.")
    return count
