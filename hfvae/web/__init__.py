"""The page without a server, as one file: its modules, its styles, and the models that it shows.

From a web server, page.html runs as it lies here, too.
"""

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILES = ("config.json", "model.safetensors", "README.md", "evaluation.json", "reconstructions.png")
HUB = "https://huggingface.co"
STORAGE = "https://*.huggingface.co https://*.hf.co"  # where it sends whoever asks for large files

IMPORT = re.compile(r"^import (\{[^}]*\}|\* as \w+) from ['\"]\./([\w.]+)['\"]\n", re.M)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))", re.M)
WORKER = re.compile(r"new URL\(['\"]\./([\w.]+)['\"], import\.meta\.url\)")
BLOB = "URL.createObjectURL(new Blob([{}], {{ type: 'text/javascript' }}))"
START = f"""
const packed = Uint8Array.from(atob(document.getElementById('code').textContent), (c) => c.charCodeAt())
const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'))
import({BLOB.format("await new Response(stream).text()")})
"""


def page(models: Mapping[str, Mapping[str, bytes] | None], hub: str | None = None) -> str:
    """One file in HTML that asks nobody for anything but, where it may, the Hub.

    Args:
        models: name -> those of `FILES` that there are, which go inside; or None for a model of the
            Hub, which the visitor's browser fetches.
        hub: its address; None for a page that fetches nothing.
    """
    style = (HERE / "page.css").read_text("utf-8")
    data = [_data(json.dumps({"hub": hub, "models": list(models)}), 'id="settings"')]
    for name, files in models.items():
        if files is not None:
            held = {file: _base64(content) for file, content in files.items()}
            data.append(_data(json.dumps(held), f'data-model="{html.escape(name)}"'))
    code = gzip.compress(script("page.js").encode(), mtime=0)
    data.append(_data(_base64(code), 'id="code"'))
    data.append(f'<script type="module">{START}</script>')
    # Nothing else runs, whatever the files of a model hold; and the page asks nobody else.
    rules = {
        "default-src": "'none'", "script-src": f"{_hash(START)} blob:", "worker-src": "blob:",
        "style-src": _hash(style), "img-src": "data: blob:", "connect-src": _asked(hub),
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    policy = "; ".join(f"{rule} {value}" for rule, value in rules.items())
    head = f'<head>\n<meta http-equiv="Content-Security-Policy" content="{policy}">'
    text = (HERE / "page.html").read_text("utf-8")
    text = text.replace("<head>", head)
    text = text.replace('<link rel="stylesheet" href="page.css">', f"<style>{style}</style>")
    before, _, after = text.partition('<script type="application/json" id="settings">')
    return before + "\n".join(data) + after[after.index("\n</body>") :]


def script(name: str) -> str:
    """A module and those that it imports as one script.

    Each becomes a function that returns what it exports, so that no two names meet. A worker is a
    script by itself, at the address of a Blob.
    """
    found: dict[str, str] = {}

    def add(name: str) -> None:
        text = (HERE / name).read_text("utf-8")
        for _, imported in IMPORT.findall(text):
            if imported not in found:
                add(imported)
        text = IMPORT.sub(lambda m: f"const {_names(m[1])} = {_variable(m[2])}\n", text)
        text = WORKER.sub(lambda m: BLOB.format(json.dumps(script(m[1]))), text)
        exported = ", ".join(EXPORT.findall(text))
        found[name] = f"const {_variable(name)} = (() => {{\n{EXPORT.sub('', text)}\n"
        found[name] += f"return {{ {exported} }}\n}})()\n"

    add(name)
    return "".join(found.values())


def _variable(module: str) -> str:
    return module.replace(".", "_")


def _names(imported: str) -> str:
    """`{ a, b as c }` or `* as all` of an import, in a declaration."""
    return imported.removeprefix("* as ").replace(" as ", ": ")


def _data(text: str, attributes: str) -> str:
    text = text.replace("<", "\\u003c")  # so that it cannot end early
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
