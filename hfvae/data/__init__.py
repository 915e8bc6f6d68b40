"""Images to train on: `load_images` brings them, whatever they come from, as one tensor of bytes.

A kind of data set is a `Source`, registered in `hfvae.data.sources`; it finds `Records`, the images
of one split, which `hfvae.data.cache` decodes and keeps.
"""

from .base import DataError
from .sets import ImageSet, load_images
from .sources import dataset_name, find_source

__all__ = ["DataError", "ImageSet", "dataset_name", "find_source", "load_images"]
