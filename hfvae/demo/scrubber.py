"""Pictures that follow the mouse at the display's rate: one answer of the server, then the browser.

The server decodes a sheet of frames; scrubber.js draws what lies between them, and asks for the
exact picture where the mouse rests.
"""

import base64
import hashlib
import io
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image
from torch import Tensor

from ..images import to_pil

VIEW = 320  # pixels of the longer side on the page, at most
PART = Path(__file__)  # with another suffix


def scrubber(label: str, value: dict[str, Any] | None = None, **kwargs: Any) -> gr.HTML:
    """The component. Its event `release` carries where the visitor stopped."""
    html, css, js = (PART.with_suffix(kind).read_text("utf-8") for kind in (".html", ".css", ".js"))
    return gr.HTML(
        value, label=label, html_template=html, css_template=css, js_on_load=js, exact=None,
        apply_default_css=False, elem_classes="moving", **kwargs,
    )  # fmt: skip


def shown(value: dict[str, Any] | None) -> gr.HTML:
    """A scrubber with a new value, hidden while it has none."""
    return gr.HTML(value=value, visible=value is not None)


def exact(at: list[float], image: Tensor) -> gr.HTML:
    """A scrubber with what was decoded for a place, (1, C, H, W)."""
    return gr.HTML(exact={"at": at, "picture": data_uri(to_pil(image)[0])})


def sheet(
    frames: Tensor, kind: str, *, rows: int = 1, at: Sequence[float] = (0.0, 0.0), **more: Any
) -> dict[str, Any]:
    """What a scrubber shows.

    Args:
        frames: (rows · columns, C, H, W) in [0, 1], row by row.
        kind: "line", "plane", "sliders" or "codes"; see scrubber.js.
        rows: of the sheet.
        at: where it starts, each from 0 to 1.
        more: `hint`, what the kind needs, and `picture`, the exact one where it starts.
    """
    columns, (h, w) = len(frames) // rows, frames.shape[-2:]
    page = frames.unflatten(0, (rows, columns)).movedim((0, 1), (1, 3))  # (C, rows, H, columns, W)
    page = to_pil(page.flatten(3).flatten(1, 2)[None])[0]
    scale = VIEW / max(w, h)
    return {
        "kind": kind, "sheet": data_uri(page), "columns": columns, "rows": rows,
        "width": round(w * scale), "height": round(h * scale), "at": list(at), "hint": "",
    } | more  # fmt: skip


def png_file(picture: Image.Image) -> str:
    """A picture as a PNG file that the page fetches."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return page_file(file.getvalue(), "image.png")


def files(images: Tensor) -> list[str]:
    """Images (B, C, H, W) as such files."""
    return [png_file(picture) for picture in to_pil(images)]


def page_file(data: bytes, name: str) -> str:
    """A file that the page fetches, written whole or not at all.

    Gradio would write over the file of an equal picture while it is sent to somebody else.
    """
    path = Path(get_upload_folder()) / hashlib.sha256(data).hexdigest() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{secrets.token_hex(8)}")
    staged.write_bytes(data)
    os.replace(staged, path)
    return str(path)


def data_uri(picture: Image.Image) -> str:
    """A picture without loss, small enough to send along."""
    kind, options = "webp", {"lossless": True, "method": 0, "quality": 20}
    if max(picture.size) > 16383:  # WebP's limit
        kind, options = "png", {}
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
