"""Models in a browser: ES modules that read the two files of a model and run it there.

`model.js` says what a model does, `client.js` the same from a page, with the model in a worker.
"""

import re
from pathlib import Path

COMMENT = re.compile(r"^ *(//[^\n]*|/\*\*.*?\*/)\n", re.MULTILINE | re.DOTALL)
IMPORT = re.compile(r'^import (?:\{[^}]*\} from )?"\./([^"]+)"\n', re.MULTILINE)


def bundle(name: str, folder: Path = Path(__file__).parent) -> str:
    """A module and all that it imports as one script, for a page that is a single file.

    Names are unique over all modules, so that they can share one scope. What is left out: lines
    that are comments.
    """
    texts: dict[str, str] = {}

    def add(name: str) -> None:
        if name in texts:
            return
        text = (folder / name).read_text("utf-8")
        for imported in IMPORT.findall(text):
            add(imported)
        text = COMMENT.sub("", IMPORT.sub("", text))
        texts[name] = re.sub("^export ", "", text, flags=re.MULTILINE).strip() + "\n"

    add(name)
    return "\n".join(texts.values())
