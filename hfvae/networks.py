"""The default encoder and decoder: strided convolutions with batch normalization.

They take any image size: an image is padded to a multiple of 2^stages on its way in, and cropped
on its way out. Any other `nn.Module` of the same shapes may replace them: see
`hfvae.base.BaseAutoencoder`.
"""

from collections.abc import Sequence

from torch import Tensor, nn


def grid_of(size: tuple[int, int], stages: int) -> tuple[int, int]:
    """(h, w) of the coarsest feature map."""
    return -(-size[0] // 2**stages), -(-size[1] // 2**stages)


class Residual(nn.Module):
    """x + f(x), two 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Encoder(nn.Module):
    """(B, C, H, W) in [0, 1] -> (B, features), or with `spatial` (B, features, h, w)."""

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        widths: Sequence[int],
        blocks: int,
        hidden: int,
        features: int,
        spatial: bool,
    ) -> None:
        super().__init__()
        h, w = grid_of(size, len(widths))
        # The first convolution pads the image up to a multiple of 2^stages.
        short = h * 2 ** len(widths) - size[0], w * 2 ** len(widths) - size[1]
        paddings = [(1 + -(-short[0] // 2), 1 + -(-short[1] // 2))] + [(1, 1)] * len(widths)
        layers: list[nn.Module] = []
        for c_in, c_out, padding in zip([channels, *widths], widths, paddings, strict=False):
            layers += [
                nn.Conv2d(c_in, c_out, 4, stride=2, padding=padding, bias=False),
                nn.BatchNorm2d(c_out),
                nn.SiLU(),
            ]
        layers += [Residual(widths[-1]) for _ in range(blocks)]
        if spatial:
            layers += [nn.Conv2d(widths[-1], features, 1)]
        elif hidden:
            layers += [
                nn.Flatten(),
                nn.Linear(widths[-1] * h * w, hidden, bias=False),
                nn.BatchNorm1d(hidden),
                nn.SiLU(),
                nn.Linear(hidden, features),
            ]
        else:
            layers += [nn.Flatten(), nn.Linear(widths[-1] * h * w, features)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(2 * x - 1)


class Decoder(nn.Module):
    """(B, features), or with `spatial` (B, features, h, w) -> (B, channels, H, W)."""

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        widths: Sequence[int],
        blocks: int,
        hidden: int,
        features: int,
        spatial: bool,
    ) -> None:
        super().__init__()
        self.size = size
        h, w = grid_of(size, len(widths))
        widths = widths[::-1]
        layers: list[nn.Module] = []
        if spatial:
            layers += [nn.Conv2d(features, widths[0], 1, bias=False)]
        else:
            if hidden:
                layers += [nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden)]
                layers += [nn.SiLU()]
            layers += [
                nn.Linear(hidden or features, widths[0] * h * w, bias=False),
                nn.Unflatten(1, (widths[0], h, w)),
            ]
        layers += [nn.BatchNorm2d(widths[0])]
        layers += [Residual(widths[0]) for _ in range(blocks)]
        layers += [nn.SiLU()]
        for c_in, c_out in zip(widths, widths[1:], strict=False):
            layers += [
                nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.SiLU(),
            ]
        layers += [nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1)]
        self.body = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        x = self.body(z)
        top, left = (x.shape[2] - self.size[0]) // 2, (x.shape[3] - self.size[1]) // 2
        return x[:, :, top : top + self.size[0], left : left + self.size[1]]
