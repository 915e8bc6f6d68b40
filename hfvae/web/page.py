"""The page as one file: its modules, its styles, and the models that it shows.

From a web server, page.html runs as it lies here, too.
"""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping
from pathlib import Path

from . import bundle

HERE = Path(__file__).parent
PICTURES = "reconstructions.png"  # held-out images in its first row
FILES = ("config.json", "model.safetensors", "README.md", "evaluation.json", PICTURES)
MAX_WEIGHTS = 200_000_000  # bytes, as in source.js
HUB = "https://huggingface.co"
STORAGE = "https://*.huggingface.co https://*.hf.co"  # where it sends whoever asks for large files

STYLES = '<link rel="stylesheet" href="page.css">'
SETTINGS = '<script type="application/json" id="settings">'  # and all that follows, but the end
WORKER = 'new Worker(new URL("./worker.js", import.meta.url), { type: "module" })'
BLOB = 'URL.createObjectURL(new Blob([{}], {{ type: "text/javascript" }}))'
START = f"""
const packed = document.getElementById("script").textContent
const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0))
const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))
import({BLOB.format("await new Response(stream).text()")})
"""


def page(models: Mapping[str, Mapping[str, bytes] | None], hub: str | None = None) -> str:
    """One file in HTML that asks nobody for anything but, where it may, the Hub.

    Args:
        models: name -> those of `FILES` that there are, which go inside; or None for a model of the
            Hub, which the visitor's browser fetches.
        hub: its address; None for a page that fetches nothing.
    """
    worker = BLOB.format(json.dumps(bundle("worker.js")))
    code = bundle("page.js").replace(WORKER, f"new Worker({worker})")
    style = (HERE / "page.css").read_text("utf-8")
    data = [_data('id="settings"', json.dumps({"hub": hub, "models": list(models)}))]
    for name, files in models.items():
        if files is not None:
            held = {file: _base64(content) for file, content in files.items()}
            data.append(_data(f'data-model="{html.escape(name)}"', json.dumps(held)))
    data.append(_data('id="script"', _base64(gzip.compress(code.encode(), mtime=0))))
    data.append(f'<script type="module">{START}</script>\n</body>\n</html>\n')
    # Nothing else runs, whatever the files of a model hold, and nobody else is asked. The page
    # evaluates no text as code, only the bytes of simd.js; browsers' own tools, which test it, do.
    rules = {
        "default-src": "'none'", "script-src": f"{_hash(START)} blob: 'unsafe-eval'",
        "worker-src": "blob:", "style-src": _hash(style), "img-src": "data: blob:",
        "connect-src": _asked(hub), "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    policy = "; ".join(f"{rule} {value}" for rule, value in rules.items())
    text = (HERE / "page.html").read_text("utf-8").partition(SETTINGS)[0]
    text = text.replace(STYLES, f"<style>{style}</style>")
    head = f'<head>\n<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return text.replace("<head>", head) + "\n".join(data)


def _data(attributes: str, text: str) -> str:
    text = text.replace("<", "\\u003c")  # so that it does not end early
    return f'<script type="application/json" {attributes}>{text}</script>'


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _hash(text: str) -> str:
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"


def _asked(hub: str | None) -> str:
    """Whom the page may ask: of another Hub, nobody knows here where its large files lie."""
    if hub is None:
        return "'none'"
    return f"{hub} {STORAGE}" if hub == HUB else "http: https:"
