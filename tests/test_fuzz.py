"""Damaged and hostile files: loaded bit by bit as they were saved, or refused in our own words."""

import json
import random
import struct
import time
import warnings

import pytest
import torch
from safetensors.torch import load, save

import hfvae
from hfvae import HubError
from hfvae.hub.files import CONFIG, METADATA, WEIGHTS, digest

MUTATIONS, MANY = 250, 1250  # of each family with each of its priors: 2,000 or 10,000
SLACK = 8 * 2**20  # bytes by which the process may grow for other reasons
HOSTILE = [
    None, True, -1, 0, 1, 3, 4096, 65536, 2**31, 10**30, -(10**400), 1e308, 0.5, float("nan"),
    float("inf"), "", "vae", "x" * 10_000, [], [4096] * 12, [[8]], [8, 4096], {"a": 1}, "\ud800",
]  # fmt: skip


def families():
    """Every family with every prior."""
    shape = {"image_size": (16, 24), "channels": 1, "widths": (8, 128), "hidden": 0}
    codes = {"codebook_size": 64, "embedding_dim": 8, "prior_width": 64, **shape}
    plain = {"latent_dim": 32, **shape}
    return {
        "vae": lambda: hfvae.VAE(hfvae.VAEConfig(**plain)),
        "vae-mixture": lambda: hfvae.VAE(hfvae.VAEConfig(prior="mixture", **plain)),
        "autoencoder": lambda: hfvae.Autoencoder(hfvae.AutoencoderConfig(**plain)),
        "autoencoder-mixture": lambda: hfvae.Autoencoder(
            hfvae.AutoencoderConfig(prior="mixture", **plain)
        ),
        **{
            f"{quantizer}-vae-{prior}": lambda quantizer=quantizer, prior=prior: hfvae.VQVAE(
                hfvae.VQVAEConfig(quantizer=quantizer, prior=prior, **codes)
            )
            for quantizer in ("vq", "fsq")
            for prior in ("uniform", "autoregressive")
        },
    }


def damage(data: bytes, draw: random.Random) -> bytes:
    """Any file: bytes changed, lost, repeated, cut off or added."""
    # Half of the time near the start, where a safetensors file says what it holds.
    at = draw.randrange(len(data) if draw.random() < 0.5 else min(len(data), 4000))
    n = draw.choice([1, 1, 1, 8, 100])
    return draw.choice(
        [
            data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :],
            data[:at] + draw.randbytes(n) + data[at + n :],
            data[:at] + data[at + n :],
            data[:at] + data[at : at + n] + data[at:],
            data[:at],
            data + draw.randbytes(n),
            b"",
        ]
    )


def hostile_config(data: bytes, draw: random.Random) -> bytes:
    settings = json.loads(data)
    for _ in range(draw.choice([1, 1, 2, 3])):
        key = draw.choice([*settings, "unknown", "auto_map"])
        if draw.random() < 0.1:
            settings.pop(key, None)
        else:
            settings[key] = draw.choice(HOSTILE)
    text = json.dumps(settings)
    if draw.random() < 0.05:
        text = text.replace(":", ":" + "[" * draw.choice([10, 50_000]), 1)
    return text.encode()


def hostile_header(data: bytes, draw: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    name = draw.choice(list(header))
    if name == "__metadata__":
        header[name] = draw.choice([{}, {METADATA: "{}"}, {METADATA: "[" * 9999}, {"a": "b"}])
    else:
        entry = header[name]
        match draw.randrange(6):
            case 0:
                entry["dtype"] = draw.choice(["F32", "F16", "BF16", "I64", "I32", "U8", "BOOL"])
            case 1:
                entry["shape"] = draw.choice([[], [0], [2**40], [1, *entry["shape"]], [-1]])
            case 2:
                entry["data_offsets"] = draw.choice([[0, 0], [0, 2**60], [5, 1], [0, len(body)]])
            case 3:
                header[draw.choice(["../../x", "", "x" * 9999, name + ".y"])] = header.pop(name)
            case 4:
                other = draw.choice([n for n in header if n != "__metadata__"])
                header[name], header[other] = header[other], header[name]
            case 5:
                del header[name]
    text = json.dumps(header).encode()
    length = draw.choice([len(text)] * 9 + [2**63, 0, 10**8])
    return struct.pack("<Q", length) + text + body


def forged(files: dict[str, bytes], draw: random.Random) -> dict[str, bytes]:
    """A hostile config.json that the weights' metadata agree with."""
    config = hostile_config(files[CONFIG], draw)
    data = files[WEIGHTS]
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    saved = json.loads(header["__metadata__"][METADATA])
    try:
        saved["config"] = json.loads(config)
    except (ValueError, RecursionError):
        return files | {CONFIG: config}
    header["__metadata__"][METADATA] = json.dumps(saved)
    text = json.dumps(header).encode()
    return {CONFIG: config, WEIGHTS: struct.pack("<Q", len(text)) + text + data[8 + length :]}


def retouched(files: dict[str, bytes], draw: random.Random) -> dict[str, bytes]:
    """Other numbers or dtypes in one tensor or in all, with a checksum that agrees."""
    tensors = load(files[WEIGHTS])
    chosen = draw.choice([*tensors, *(name for name in tensors if name.startswith("prior."))])
    spot = draw.random() < 0.5

    def hostile(t: torch.Tensor) -> torch.Tensor:
        if draw.random() < 0.3:
            kinds = [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64]
            return t.to(draw.choice([*kinds, torch.uint8, torch.bool]))
        if not t.is_floating_point():
            return t + 1 if t.dtype is not torch.bool else ~t
        values = [float("nan"), float("inf"), float("-inf"), -1.0, -0.001, 0.0, 1.0]
        t, value = t.clone(), draw.choice(values)
        if spot:
            t.view(-1)[draw.randrange(t.numel())] = value
        else:
            t.fill_(value)
        return t

    names = list(tensors) if draw.random() < 0.1 else [chosen]
    tensors |= {name: hostile(tensors[name]) for name in names}
    saved = {"config": json.loads(files[CONFIG]), "sha256": digest(tensors)}
    return files | {WEIGHTS: save(tensors, {METADATA: json.dumps(saved)})}


def mutated(files: dict[str, bytes], draw: random.Random) -> tuple[dict[str, bytes], str]:
    """Files with one mutation, and what of the model may be another than it was."""
    match draw.randrange(7):
        case 0:
            return files | {CONFIG: damage(files[CONFIG], draw)}, ""
        case 1:
            return files | {CONFIG: hostile_config(files[CONFIG], draw)}, ""
        case 2 | 3:
            return files | {WEIGHTS: damage(files[WEIGHTS], draw)}, ""
        case 4:
            return files | {WEIGHTS: hostile_header(files[WEIGHTS], draw)}, ""
        case 5:
            return retouched(files, draw), "weights"
        case _:
            return forged(files, draw), "config"


class PeakMemory:
    """How much the process grew, at its peak, since it was made."""

    def __init__(self) -> None:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
        self.start = self.read("VmRSS")

    def read(self, name: str) -> int:
        with open("/proc/self/status") as f:
            return next(1024 * int(line.split()[1]) for line in f if line.startswith(name))

    def growth(self) -> int:
        return self.read("VmHWM") - self.start


def use(model) -> None:
    """What every model is for must give images."""
    height, width = model.config.size
    seed = torch.Generator().manual_seed(0)
    x = torch.rand(1, model.config.channels, height, width, generator=seed).round()
    out = model(x, seed)
    shown = [out.x_hat, model.reconstruct(x)]
    if model.prior.samples:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a mixture that was not fitted says so
            shown.append(model.sample(2, generator=seed))
    assert out.loss.isfinite()
    assert all(((s >= 0) & (s <= 1)).all() for s in shown)


@pytest.mark.parametrize(
    "mutations",
    [MUTATIONS, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
)
@pytest.mark.parametrize("family", families())
def test_no_mutation_crashes_costs_memory_or_loads_something_else(family, mutations, tmp_path):
    model = families()[family]().eval()
    model.save_pretrained(tmp_path)
    files = {name: (tmp_path / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    use(hfvae.from_pretrained(tmp_path))  # the first time imports what it needs
    draw = random.Random(family)
    loaded = refused = 0
    for i in range(mutations):
        changed, other = mutated(files, draw)
        for name, data in changed.items():
            (tmp_path / name).write_bytes(data)
        memory, again, words = PeakMemory(), None, ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                again = hfvae.from_pretrained(tmp_path)
        except (HubError, FileNotFoundError) as error:
            words = str(error)
        growth = memory.growth()
        if again is None:
            refused += 1
            assert 0 < len(words) < 1000, i
            assert words.isprintable(), i
        else:
            loaded += 1
            assert other == "config" or again.config == model.config, i
            if other != "weights":
                ours, theirs = model.state_dict(), again.state_dict()
                assert ours.keys() == theirs.keys(), i
                assert all(torch.equal(ours[k], theirs[k]) for k in ours), i
            use(again)
        assert growth < 2 * len(files[WEIGHTS]) + SLACK, i
    assert loaded > 0  # whitespace, for one
    assert refused > mutations / 2


def with_header(folder, change) -> None:
    """The weights with a header that was changed in place."""
    path = folder / WEIGHTS
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.alone
@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["__metadata__"].update({METADATA: "[1," * 10_000_000}),
        lambda h: h["__metadata__"].update({METADATA: '{"a":' + "[{}," * 20_000_000}),
        lambda h: h["__metadata__"].update({METADATA: "\x1b" * 5_000_000}),
        lambda h: h["likelihood.raw_scale"].update({"shape": [3] + [1] * 2_000_000}),
        lambda h: h.update({str(i): h["likelihood.raw_scale"] for i in range(100_000)}),
    ],
    ids=["30 MB", "80 MB", "escapes", "dimensions", "tensors"],
)
def test_a_long_header_is_refused_before_it_is_read(change, tmp_path):
    hfvae.VAE(hfvae.VAEConfig(image_size=8, widths=(4,))).save_pretrained(tmp_path)
    hfvae.from_pretrained(tmp_path)
    with_header(tmp_path, change)
    memory, start = PeakMemory(), time.perf_counter()
    with pytest.raises(HubError, match=r"header of model.safetensors has .* bytes, and .* tensors"):
        hfvae.from_pretrained(tmp_path)
    assert time.perf_counter() - start < 0.5
    assert memory.growth() < SLACK


@pytest.mark.alone
def test_the_longest_header_that_is_read_costs_little(tmp_path):
    hfvae.VAE(hfvae.VAEConfig(image_size=8, widths=(4,))).save_pretrained(tmp_path)
    hfvae.from_pretrained(tmp_path)
    with_header(
        tmp_path, lambda h: h["likelihood.raw_scale"].update({"shape": [3] + [1] * 300_000})
    )
    memory, start = PeakMemory(), time.perf_counter()
    with pytest.raises(HubError) as caught:
        hfvae.from_pretrained(tmp_path)
    assert len(str(caught.value)) < 1000
    assert time.perf_counter() - start < 2
    assert memory.growth() < 100 * 2**20


HOSTILE_WORDS = "\x1b]0;gone\x07\ud800\u202e\n" + "x" * 9999


@pytest.mark.parametrize("where", ["config", "metadata", "tensor", "values", "model_type"])
def test_what_a_file_says_is_quoted_printable_and_short(where, tmp_path):
    hfvae.VAE(hfvae.VAEConfig(image_size=8, widths=(4,))).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / CONFIG).read_text())
    if where == "config":
        settings[HOSTILE_WORDS] = 1
    elif where == "values":
        settings["prior"] = HOSTILE_WORDS
    elif where == "model_type":
        settings["model_type"] = HOSTILE_WORDS
    elif where == "metadata":
        saved = {"config": settings | {HOSTILE_WORDS: 1}, "sha256": ""}
        with_header(tmp_path, lambda h: h["__metadata__"].update({METADATA: json.dumps(saved)}))
    else:  # the format itself refuses surrogates
        name = HOSTILE_WORDS.replace("\ud800", "")
        with_header(tmp_path, lambda h: h.update({name: h.pop("likelihood.raw_scale")}))
    (tmp_path / CONFIG).write_text(json.dumps(settings))
    with pytest.raises(HubError) as caught:
        hfvae.from_pretrained(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
