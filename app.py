"""A demo in which anyone generates, reconstructs, interpolates and explores images.

    python app.py                                   # the models in pretrained/
    python app.py --model runs/photos-vae           # a model of your own
    python app.py --model owner/name --share        # from the Hub, with a public link
    python app.py --push_to_space me/demo --model owner/name    # published as a Space
    python app.py --export page.html                # a page that needs no server, and no network

On Hugging Face Spaces the variable HFVAE_MODELS names the models, separated by commas. Visitors may
type other Hub ids, unless HFVAE_ALLOW_HUB=0.
"""

import argparse
import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing leaves this machine

try:
    # ZeroGPU lends its GPU call by call. Must come before torch.
    import spaces  # ty: ignore[import-not-found]
except ImportError:
    spaces = None
import torch

import hfvae
from hfvae.demo.menu import Models
from hfvae.demo.page import LAUNCH, build
from hfvae.export import export
from hfvae.hub import resource
from hfvae.machine import give_back_large_memory
from hfvae.space import HARDWARE, SDKS, publish

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


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
    parser.add_argument("--share", action="store_true", help="a public link, for a week at most")
    parser.add_argument("--push_to_space", metavar="ID", help="publish as a Space, and stop")
    parser.add_argument("--space_sdk", choices=SDKS, default=SDKS[0], help="static: free for all")
    parser.add_argument(
        "--space_hardware", default=HARDWARE, help=f"of a new Space; default {HARDWARE} (ZeroGPU)"
    )
    parser.add_argument(
        "--export", metavar="PAGE.html", help="write one page with the models inside, and stop"
    )
    args = parser.parse_args()
    sources = find_models(args.model)
    try:
        if not sources:
            raise hfvae.HubError("there is no model in pretrained/: name one with --model")
        if args.push_to_space:
            sdk, hardware = args.space_sdk, args.space_hardware
            print(publish(args.push_to_space, sources, sdk=sdk, hardware=hardware))
            return
        if args.export:
            page = export(args.export, sources)
            print(f"{page} has {page.stat().st_size / 1e6:.1f} MB: any browser opens it.")
            return
        allow_hub = os.environ.get("HFVAE_ALLOW_HUB") != "0"
        models = Models(sources, allow_hub=allow_hub, device=DEVICE)
        for name in models.names:
            models[name]
        give_back_large_memory()
        demo = build(models, on_gpu=spaces.GPU if spaces else None)
        # Gradio's own words speak of launch(), which nobody calls here.
        _, url, public = demo.launch(
            server_port=args.port, share=args.share, prevent_thread_lock=True, quiet=True, **LAUNCH
        )
    except OSError as error:
        print(f"app.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"The demo is at {url} until you press Ctrl+C.")
    if public:
        print("The public link works as long, and for a week at most.")
    elif not args.share:
        print("For a public link as well: python app.py --share")
    demo.block_thread()


if __name__ == "__main__":
    main()
