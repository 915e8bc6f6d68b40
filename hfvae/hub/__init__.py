"""Models as folders and as repositories of the Hugging Face Hub: files, cards, publishing.

Nothing here knows a model: what builds one is given to `load`.
"""

from .card import CARD, resource
from .files import CONFIG, WEIGHTS, as_json, check_output, model_files, write_folder
from .publish import MEASURED, published_files, push_folder, push_to_hub, save_pretrained
from .source import is_path, load, source_of

__all__ = [
    "CARD",
    "CONFIG",
    "MEASURED",
    "WEIGHTS",
    "as_json",
    "check_output",
    "is_path",
    "load",
    "model_files",
    "published_files",
    "push_folder",
    "push_to_hub",
    "resource",
    "save_pretrained",
    "source_of",
    "write_folder",
]
