"""The page: a menu of models, and a tab for everything that one can do with them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio.themes.utils.fonts import LocalFont
from starlette.middleware import Middleware

from .actions import MAX_COUNT, MAX_STEPS, MAX_TEMPERATURE, Actions, make_actions
from .inputs import MAX_BODY, BodyLimit, Page, Picture
from .menu import Models
from .scrubber import scrubber

Act = SimpleNamespace
Kwargs = dict[str, Any]

# "Generate" always draws a new seed; the field holds the one that was used.
NEW_SEED = "(model, count, seed, temperature) => [model, count, null, temperature]"
# The address bar says what is shown, so that it can be shared.
ADDRESS = """(model, count, seed, temperature) => {
  history.replaceState(null, "", "?" + new URLSearchParams({model, count, seed, temperature}))
}"""

UPLOAD: Kwargs = {
    "type": "pil", "format": "png", "sources": ["upload", "clipboard"], "height": 280,
    "elem_classes": "pixels",
}  # fmt: skip
SHOWN: Kwargs = {"type": "pil", "format": "png", "interactive": False}
GALLERY: Kwargs = {
    "format": "png", "height": "auto", "object_fit": "contain", "columns": 8,
    "elem_classes": "pixels",
}  # fmt: skip
# To begin with, for visitors without a picture at hand.
ROW: Kwargs = {"label": "Pictures to start from", "allow_preview": False, "buttons": []} | GALLERY
PRIVATE: Kwargs = {"api_visibility": "private"}
MODEL: Kwargs = {"concurrency_id": "model", "concurrency_limit": 2}
QUIET: Kwargs = {"show_progress": "hidden"} | PRIVATE | MODEL
LATEST: Kwargs = {"trigger_mode": "always_last"} | QUIET
LAUNCH: Kwargs = {
    "theme": gr.themes.Default(
        # In the theme's own SemiBold file only A and B are drawn: ask for weight 700 instead.
        font=[LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"],
        font_mono=[LocalFont("IBM Plex Mono", weights=(400, 700)), "monospace"],
    ).set(body_text_color_subdued="*neutral_500"),  # its own grey is hard to read
    "css": Path(__file__).with_name("page.css").read_text("utf-8"),
    "max_file_size": MAX_BODY,
    "app_kwargs": {"middleware": [Middleware(BodyLimit)]},
    "enable_monitoring": False, "run_history": False, "show_error": False, "ssr_mode": False,
    "footer_links": ["api"],
}  # fmt: skip


def build(models: Models, on_gpu: Callable[..., Any] | None = None) -> gr.Blocks:
    """The page; `on_gpu` decorates what may decode, where there is a GPU only while it answers."""
    act = make_actions(models, on_gpu)
    # With one only while it answers, the page opens empty; elsewhere with this already there.
    walk, examples, *_ = (None, []) if on_gpu else Actions(models).arrive(None)
    with Page(title="hfvae", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.Markdown("# hfvae\nImages that a variational autoencoder dreams up, copies and blends.")
        model = gr.Dropdown(
            models.names, value=models.names[0], label="Model",
            info="one of these, or a Hub id like owner/name" if models.allow_hub else None,
            allow_custom_value=models.allow_hub,
        )  # fmt: skip
        with gr.Tab("Generate"):
            strip, asked, made = generate_tab(act, model, walk)
        with gr.Tab("Reconstruct") as tab:
            for_copy = reconstruct_tab(act, model, examples, tab)
        with gr.Tab("Interpolate") as tab:
            for_blend = interpolate_tab(act, model, examples, tab)
        with gr.Tab("Explore") as tab:
            for_change = explore_tab(act, model, examples, tab)
        with gr.Tab("About") as tab:
            card = gr.Markdown(elem_id="card")

        arrive = (act.arrive, model, [strip, for_copy, for_blend, for_change])
        about = (act.about, model, card)
        # One after the other, so that a wrong name gives one message.
        arrived = model.change(*arrive, **QUIET).success
        address(arrived(act.generate, asked, made, **PRIVATE, **MODEL), asked)
        arrived(*about, **QUIET)
        tab.select(*about, **QUIET)
        count, temperature = asked[1], asked[3]
        opened = demo.load(act.open_link, None, [model, count, temperature, *made], **QUIET)
        address(opened, asked)
        if on_gpu:
            opened.then(*arrive, **QUIET)
    return demo.take_turns(lambda sent: models.visits(next(iter(sent), None)))


def address(event: Any, asked: list[Any]) -> None:
    """After that event, the address bar says what was asked for."""
    event.then(None, asked, js=ADDRESS, **PRIVATE)


def begin(
    act: Act, model: gr.Dropdown, examples: list[Any], tab: gr.Tab, picture: Picture, verb: str
) -> tuple[gr.Gallery, gr.Button, list[Callable[..., Any]]]:
    """The row of pictures, the button, and what follows when a picture comes, however it does."""
    with gr.Row():
        draw = gr.Button("Draw one")
        go = gr.Button(verb, variant="primary")
    row = gr.Gallery(examples, **ROW)
    return row, go, [
        picture.upload,
        draw.click(act.draw, model, picture, **QUIET).success,
        row.select(act.pick, model, picture, **QUIET).success,
        tab.select(act.start, [model, picture], picture, **QUIET).success,
    ]  # fmt: skip


def generate_tab(act: Act, model: gr.Dropdown, walk: Any) -> tuple[gr.HTML, list[Any], list[Any]]:
    """Returns the strip, what is asked for, and where the answer goes."""
    with gr.Row():
        strip = scrubber("A walk through the latent space", walk, elem_id="walk")
        with gr.Column():
            count = gr.Slider(1, MAX_COUNT, 32, step=1, label="Count")
            temperature = gr.Slider(0, MAX_TEMPERATURE, 1.0, step=0.05, label="Temperature")
            seed = gr.Number(None, label="Seed", info="the same seed gives the same images")
            with gr.Row():
                again = gr.Button("This seed again")
                go = gr.Button("Generate", variant="primary")
    images = gr.Gallery(label="New images", elem_id="images", **GALLERY)
    asked, made = [model, count, seed, temperature], [images, seed]
    generate = (act.generate, asked, made)
    address(go.click(*generate, js=NEW_SEED, api_name="generate", **MODEL), asked)
    address(again.click(*generate, **PRIVATE, **MODEL), asked)
    return strip, asked, made


def reconstruct_tab(act: Act, model: gr.Dropdown, examples: list[Any], tab: gr.Tab) -> gr.Gallery:
    with gr.Row():
        picture = Picture(label="Your picture", elem_id="picture", min_width=256, **UPLOAD)
        compared = gr.ImageSlider(
            label="As the model sees it | its copy",
            elem_id="compared", elem_classes="pixels", max_height=210, min_width=256, **SHOWN,
        )  # fmt: skip
    text = gr.Markdown(elem_id="apart")
    row, go, comes = begin(act, model, examples, tab, picture, "Reconstruct")
    original, copy = gr.Image(visible=False, **SHOWN), gr.Image(visible=False, **SHOWN)
    reconstruct = (act.reconstruct, [model, picture], [original, copy, text])
    go.click(*reconstruct, api_name="reconstruct", **MODEL)
    copy.change(None, [original, copy], compared, js="(a, b) => [[a, b]]", **PRIVATE)
    for event in comes:
        event(*reconstruct, **PRIVATE, **MODEL)
    return row


def interpolate_tab(act: Act, model: gr.Dropdown, examples: list[Any], tab: gr.Tab) -> gr.Gallery:
    with gr.Row():
        first = Picture(label="From", elem_id="first", **UPLOAD)
        second = Picture(label="To", elem_id="second", **UPLOAD)
        strip = scrubber("From one picture to the other", elem_id="strip")
    with gr.Row():
        steps = gr.Slider(2, MAX_STEPS, 24, step=1, label="Steps")
        mode = gr.Radio(["slerp", "lerp"], value="slerp", label="Way")
    with gr.Row():
        draw_first = gr.Button("Draw the first")
        draw_second = gr.Button("Draw the second")
        go = gr.Button("Interpolate", variant="primary")
        keep = gr.Button("Make an animation")
    row = gr.Gallery(examples, **ROW)
    animation = gr.Image(
        label="Animation, to download", format="webp", interactive=False, height=280,
        elem_id="animation", elem_classes="pixels", visible=False,
        buttons=["download", "fullscreen"],  # Gradio's "Share" works on Spaces alone
    )  # fmt: skip
    with gr.Accordion("All steps", open=False):
        steps_shown = gr.Gallery(label="From one picture to the other", **GALLERY)
    ends = [model, first, second]
    interpolate = (act.interpolate, [*ends, steps, mode], [steps_shown, strip])
    go.click(*interpolate, api_name="interpolate", **MODEL)
    strip.release(act.between, [*ends, mode], strip, **LATEST)
    keep.click(act.animate, [*ends, steps, mode], animation, **PRIVATE, **MODEL)
    for event in (
        first.upload,
        second.upload,
        draw_first.click(act.draw, model, first, **QUIET).success,
        draw_second.click(act.draw, model, second, **QUIET).success,
        row.select(act.push, [model, second], [first, second], **QUIET).success,
        tab.select(act.start_two, ends, [first, second], **QUIET).success,
    ):
        event(*interpolate, **PRIVATE, **MODEL)
    return row


def explore_tab(act: Act, model: gr.Dropdown, examples: list[Any], tab: gr.Tab) -> gr.Gallery:
    with gr.Row():
        picture = Picture(label="Picture", **UPLOAD)
        latents = scrubber("Latents, sorted by what they carry", elem_id="latents")
        plane = scrubber("A map of the two that carry most", elem_id="map")
        codes = scrubber("The grid", elem_id="codes", visible=False)
    row, go, comes = begin(act, model, examples, tab, picture, "Explore")
    for event in (go.click, *comes):
        event(act.show_latents, [model, picture], [latents, plane, codes], **PRIVATE, **MODEL)
    for part in (latents, plane, codes):
        part.release(act.move, [model, picture], part, **LATEST)
    # For programs alone: one latent set to one value.
    dim, value = gr.Number(0, visible=False), gr.Number(0, visible=False)
    changed = gr.Image(visible=False, **SHOWN)
    gr.Button(visible=False).click(
        act.explore, [model, picture, dim, value], changed, api_name="explore", **MODEL
    )
    return row
