"""What the encoder's h becomes: a point, a Gaussian, codes.

The only place in which the families differ. A kind of latent turns h into q(z|x) and knows what
only it can know of z; see `Latents` and `Posterior`.
"""

from .base import Latents, Posterior
from .codes import Codes, FiniteScalarQuantizer, VectorQuantizer
from .gaussian import Gaussian
from .point import Point

__all__ = [
    "Codes",
    "FiniteScalarQuantizer",
    "Gaussian",
    "Latents",
    "Point",
    "Posterior",
    "VectorQuantizer",
]
