"""A demo in which anyone generates, reconstructs, interpolates and explores images.

    python app.py                                   # the models in pretrained/
    python app.py --model runs/photos-vae           # a model of your own
    python app.py --model owner/name --share        # from the Hub, with a public link
    python app.py --push_to_space me/demo --model owner/name    # published as a Space

On Hugging Face Spaces the variable HFVAE_MODELS names the models, separated by commas. Visitors may
type other Hub ids, unless HFVAE_ALLOW_HUB=0.
"""

import argparse
import os
import sys
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
from starlette.middleware import Middleware

import hfvae
from hfvae.demo.actions import MAX_COUNT, MAX_STEPS, MAX_TEMPERATURE, make_actions
from hfvae.demo.inputs import MAX_BODY, BodyLimit, Page, Picture
from hfvae.demo.menu import Models
from hfvae.demo.scrubber import scrubber
from hfvae.hub import resource
from hfvae.space import HARDWARE, publish

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# In the theme's own SemiBold file only A and B are drawn: ask for weight 700 instead.
THEME = gr.themes.Default(
    font=[LocalFont("Source Sans Pro", weights=(400, 700)), "system-ui", "sans-serif"],
    font_mono=[LocalFont("IBM Plex Mono", weights=(400, 700)), "monospace"],
).set(body_text_color_subdued="*neutral_500")  # its own grey is hard to read
CSS = (Path(hfvae.__file__).parent / "demo" / "page.css").read_text("utf-8")
# "Generate" always draws a new seed; the field holds the one that was used.
NEW_SEED = "(model, count, seed, temperature) => [model, count, null, temperature]"
# The address bar says what is shown, so that it can be shared.
ADDRESS = """(model, count, seed, temperature) => {
  history.replaceState(null, "", "?" + new URLSearchParams({model, count, seed, temperature}))
}"""

UPLOAD: dict[str, Any] = {
    "type": "pil", "format": "png", "sources": ["upload", "clipboard"], "height": 280,
    "elem_classes": "pixels",
}  # fmt: skip
SHOWN: dict[str, Any] = {"type": "pil", "format": "png", "interactive": False}
GALLERY: dict[str, Any] = {
    "format": "png", "height": "auto", "object_fit": "contain", "columns": 8,
    "elem_classes": "pixels",
}  # fmt: skip
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 2}
QUIET: dict[str, Any] = {"show_progress": "hidden"} | PRIVATE | MODEL
LATEST: dict[str, Any] = {"trigger_mode": "always_last"} | QUIET
Act = dict[str, Any]


def build(models: Models) -> gr.Blocks:
    """The page: a menu of models, and a tab for everything that one can do with them."""
    act = make_actions(models, on_gpu=spaces.GPU if spaces else lambda f: f)
    # ZeroGPU has a GPU only while it answers; elsewhere the page opens with this already there.
    walk, examples, *_ = (None, []) if spaces else act["arrive"](None)
    with Page(title="hfvae", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.Markdown("# hfvae\nImages that a variational autoencoder dreams up, copies and blends.")
        model = gr.Dropdown(
            models.names,
            value=models.names[0],
            label="Model",
            info="one of these, or a Hub id like owner/name" if models.allow_hub else None,
            allow_custom_value=models.allow_hub,
        )
        with gr.Tab("Generate"):
            strip, count, seed, temperature, images = generate_tab(act, model, walk)
        with gr.Tab("Reconstruct") as tab:
            for_copy = reconstruct_tab(act, model, examples, tab)
        with gr.Tab("Interpolate") as tab:
            for_blend = interpolate_tab(act, model, examples, tab)
        with gr.Tab("Explore") as tab:
            for_change = explore_tab(act, model, examples, tab)
        with gr.Tab("About") as tab:
            card = gr.Markdown(elem_id="card")

        arrive: dict[str, Any] = {
            "fn": act["arrive"], "inputs": model,
            "outputs": [strip, for_copy, for_blend, for_change],
        } | QUIET  # fmt: skip
        generate: dict[str, Any] = {
            "fn": act["generate"], "inputs": [model, count, seed, temperature],
            "outputs": [images, seed],
        } | MODEL  # fmt: skip
        address: dict[str, Any] = {
            "fn": None, "inputs": [model, count, seed, temperature], "js": ADDRESS,
        } | PRIVATE  # fmt: skip
        about: dict[str, Any] = {
            "fn": act["about"], "inputs": model, "outputs": card,
        } | QUIET  # fmt: skip
        # One after the other, so that a wrong name gives one message.
        arrived = model.change(**arrive).success
        arrived(**generate, **PRIVATE).then(**address)
        arrived(**about)
        tab.select(**about)
        opened = demo.load(
            act["open_link"], None, [model, count, temperature, images, seed], **QUIET
        )
        opened.then(**address)
        if spaces:
            opened.then(**arrive)
    # Without api_open=False a second way in skips the queue and its limits.
    return demo.queue(max_size=32, api_open=False)


def starts(examples: list[Any]) -> gr.Gallery:
    """A row of pictures to begin with, for visitors without one at hand."""
    return gr.Gallery(
        examples, label="Pictures to start from", allow_preview=False, buttons=[], **GALLERY
    )


def generate_tab(act: Act, model: gr.Dropdown, walk: dict[str, Any] | None) -> list[Any]:
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
    generate: dict[str, Any] = {
        "fn": act["generate"], "inputs": [model, count, seed, temperature],
        "outputs": [images, seed],
    } | MODEL  # fmt: skip
    for event in (
        go.click(**generate, js=NEW_SEED, api_name="generate"),
        again.click(**generate, **PRIVATE),
    ):
        event.then(None, [model, count, seed, temperature], js=ADDRESS, **PRIVATE)
    return [strip, count, seed, temperature, images]


def reconstruct_tab(act: Act, model: gr.Dropdown, examples: list[Any], tab: gr.Tab) -> gr.Gallery:
    with gr.Row():
        picture = Picture(label="Your picture", elem_id="picture", min_width=256, **UPLOAD)
        compared = gr.ImageSlider(
            label="As the model sees it | its copy",
            elem_id="compared", elem_classes="pixels", max_height=210, min_width=256, **SHOWN,
        )  # fmt: skip
    text = gr.Markdown(elem_id="apart")
    with gr.Row():
        draw = gr.Button("Draw one")
        go = gr.Button("Reconstruct", variant="primary")
    row = starts(examples)
    original, copy = gr.Image(visible=False, **SHOWN), gr.Image(visible=False, **SHOWN)
    reconstruct: dict[str, Any] = {
        "fn": act["reconstruct"], "inputs": [model, picture], "outputs": [original, copy, text],
    } | MODEL  # fmt: skip
    go.click(**reconstruct, api_name="reconstruct")
    copy.change(None, [original, copy], compared, js="(a, b) => [[a, b]]", **PRIVATE)
    for event in (
        picture.upload,
        draw.click(act["draw"], model, picture, **QUIET).success,
        row.select(act["pick"], model, picture, **QUIET).success,
        tab.select(act["start"], [model, picture], picture, **QUIET).success,
    ):
        event(**reconstruct, **PRIVATE)
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
    row = starts(examples)
    animation = gr.Image(
        label="Animation, to download",
        format="webp",
        interactive=False,
        height=280,
        elem_id="animation",
        elem_classes="pixels",
        buttons=["download", "fullscreen"],  # Gradio's "Share" works on Spaces alone
        visible=False,
    )
    with gr.Accordion("All steps", open=False):
        steps_shown = gr.Gallery(label="From one picture to the other", **GALLERY)
    ends = [model, first, second]
    interpolate: dict[str, Any] = {
        "fn": act["interpolate"], "inputs": [*ends, steps, mode], "outputs": [steps_shown, strip],
    } | MODEL  # fmt: skip
    go.click(**interpolate, api_name="interpolate")
    strip.release(act["between"], [*ends, mode], strip, **LATEST)
    keep.click(act["animate"], [*ends, steps, mode], animation, **PRIVATE, **MODEL)
    for event in (
        first.upload,
        second.upload,
        draw_first.click(act["draw"], model, first, **QUIET).success,
        draw_second.click(act["draw"], model, second, **QUIET).success,
        row.select(act["push"], [model, second], [first, second], **QUIET).success,
        tab.select(act["start_two"], ends, [first, second], **QUIET).success,
    ):
        event(**interpolate, **PRIVATE)
    return row


def explore_tab(act: Act, model: gr.Dropdown, examples: list[Any], tab: gr.Tab) -> gr.Gallery:
    with gr.Row():
        picture = Picture(label="Picture", **UPLOAD)
        latents = scrubber("Latents, sorted by what they carry", elem_id="latents")
        plane = scrubber("A map of the two that carry most", elem_id="map")
        codes = scrubber("The code grid", elem_id="codes", visible=False)
    with gr.Row():
        draw = gr.Button("Draw one")
        go = gr.Button("Explore", variant="primary")
    row = starts(examples)
    explore: dict[str, Any] = {
        "fn": act["show_latents"], "inputs": [model, picture], "outputs": [latents, plane, codes],
    } | PRIVATE | MODEL  # fmt: skip
    for event in (
        go.click,
        picture.upload,
        draw.click(act["draw"], model, picture, **QUIET).success,
        row.select(act["pick"], model, picture, **QUIET).success,
        tab.select(act["start"], [model, picture], picture, **QUIET).success,
    ):
        event(**explore)
    latents.release(act["move_sliders"], [model, picture], latents, **LATEST)
    plane.release(act["move_on_map"], [model, picture], plane, **LATEST)
    codes.release(act["change_code"], model, codes, **LATEST)
    # For programs alone: one latent set to one value.
    dim, value = gr.Number(0, visible=False), gr.Number(0, visible=False)
    changed = gr.Image(visible=False, **SHOWN)
    gr.Button(visible=False).click(
        act["explore"], [model, picture, dim, value], changed, api_name="explore", **MODEL
    )
    return row


LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": CSS,
    "max_file_size": MAX_BODY,
    "app_kwargs": {"middleware": [Middleware(BodyLimit)]},
    "enable_monitoring": False,
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
    parser.add_argument(
        "--share", action="store_true", help="a public link as well, for a week at most"
    )
    parser.add_argument("--push_to_space", metavar="ID", help="publish as a Space, and stop")
    parser.add_argument(
        "--space_hardware", default=HARDWARE, help=f"of a new Space; default {HARDWARE} (ZeroGPU)"
    )
    args = parser.parse_args()
    sources = find_models(args.model)
    try:
        if not sources:
            raise hfvae.HubError("there is no model in pretrained/: name one with --model")
        if args.push_to_space:
            print(publish(args.push_to_space, sources, hardware=args.space_hardware))
            return
        allow_hub = os.environ.get("HFVAE_ALLOW_HUB") != "0"
        models = Models(sources, allow_hub=allow_hub, device=DEVICE)
        for name in models.names:
            models[name]
    except OSError as error:
        print(f"app.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    demo = build(models)
    # Gradio's own words speak of launch(), which nobody calls here.
    _, url, public = demo.launch(
        server_port=args.port, share=args.share, prevent_thread_lock=True, quiet=True, **LAUNCH
    )
    print(f"The demo is at {url} until you press Ctrl+C.")
    if public:
        print("The public link works as long, and for a week at most.")
    elif not args.share:
        print("For a public link as well: python app.py --share")
    demo.block_thread()


if __name__ == "__main__":
    main()
