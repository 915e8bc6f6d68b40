"""A layer of a causal transformer, over a whole sequence or place by place."""

from torch import Tensor, nn

Cache = tuple[Tensor, Tensor]  # room for the keys and values of all places, (B, heads, T, D)


class TransformerLayer(nn.Module):
    """Causal attention and a two-layer perceptron, each normalized first and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = 8 if width >= 256 else 4
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self._heads(h)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._rest(h, attended)

    def cache(self, rows: int, length: int) -> Cache:
        """Room for `step`, of so many sequences of that length."""
        weight = self.out.weight
        shape = rows, self.heads, length, len(weight) // self.heads
        return weight.new_empty(shape), weight.new_empty(shape)

    def step(self, h: Tensor, cache: Cache, t: int) -> Tensor:
        """`forward` for place t, (B, 1, width), given the keys and values before it."""
        q, k, v = self._heads(h)
        keys, values = cache
        keys[:, :, t : t + 1], values[:, :, t : t + 1] = k, v
        attended = nn.functional.scaled_dot_product_attention(
            q, keys[:, :, : t + 1], values[:, :, : t + 1]
        )
        return self._rest(h, attended)

    def _heads(self, h: Tensor) -> tuple[Tensor, ...]:
        b, t, width = h.shape
        qkv = self.qkv(self.norm1(h)).view(b, t, 3, self.heads, width // self.heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def _rest(self, h: Tensor, attended: Tensor) -> Tensor:
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm2(h))
