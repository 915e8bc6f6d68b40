import io

import numpy as np
import pytest
import torch
from PIL import Image

import hfvae
from hfvae.data import ImageSet
from hfvae.images import first_row, preprocess
from hfvae.report import reconstructions_png

pytestmark = pytest.mark.quick


def gradient(width, height):
    """Grey from black on the left to white on the right."""
    row = np.linspace(0, 255, width).round().astype(np.uint8)
    return np.repeat(row[None], height, axis=0)


def one(image, size=(8, 8), channels=3):
    return preprocess(image, size, channels)[0]


def test_images_of_the_right_size_are_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    x = one(Image.fromarray(pixels), (8, 10))
    assert torch.equal(x, torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert np.array_equal(np.asarray(hfvae.to_pil(x)[0]), pixels)


def test_the_centre_is_kept():
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    assert (one(wide, channels=1) * 255 == 200).all()


def test_shrinking_is_antialiased():
    """Stripes of one pixel become grey, not one of the two."""
    stripes = np.tile(np.array([0, 255], np.uint8), (128, 64))
    assert (one(stripes, channels=1) - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "RGBA", "LA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_shows_the_same_picture(mode, channels):
    grey = gradient(16, 16)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "1":
        grey = (grey > 127).astype(np.uint8) * 255
        image = Image.fromarray(grey).convert("1")
    else:
        image = Image.fromarray(grey).convert("RGB" if mode == "P" else mode)
        image = image.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else image
    x = one(image, (16, 16), channels)
    expected = torch.from_numpy(grey) / 255
    assert (x - expected).abs().max() < 3 / 255


def test_sixteen_bits_keep_their_range(tmp_path):
    Image.fromarray(gradient(16, 16).astype(np.uint16) * 257).save(tmp_path / "16.png")
    x = one(tmp_path / "16.png", (16, 16), 1)
    torch.testing.assert_close(x[0], torch.from_numpy(gradient(16, 16)) / 255)


def test_exif_rotation_is_applied(tmp_path):
    image = Image.fromarray(gradient(16, 16))
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    x = one(str(tmp_path / "turned.png"), (16, 16), 1)
    torch.testing.assert_close(x[0], torch.from_numpy(gradient(16, 16).T.copy()) / 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_put_on_white_unless_kept(channels):
    rgba = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (one(rgba, channels=channels) == 1).all()
    assert (one(rgba, channels=4)[3] == 0).all()


def test_arrays_and_lists_and_other_channel_counts():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 5), dtype=np.uint8)
    x = one(pixels, channels=5)
    assert torch.equal(x, torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    batch = preprocess([pixels[..., 0], pixels[..., 0] / 255.0, Image.new("L", (9, 9))], (8, 8), 1)
    assert batch.shape == (3, 1, 8, 8)
    assert torch.equal(batch[0], batch[1])


def test_tensors_and_batches_are_images_too():
    x = torch.rand(3, 3, 8, 10)
    assert torch.equal(preprocess(x, (8, 10), 3), x)  # to the last bit
    assert torch.equal(preprocess([x[0], x[1:]], (8, 10), 3), x)
    levels = (x * 255).round().to(torch.uint8)
    assert torch.equal(preprocess(levels, (8, 10), 3), levels / 255)
    assert torch.equal(preprocess(levels.permute(0, 2, 3, 1).numpy(), (8, 10), 3), levels / 255)
    # Other sizes and channel counts as of the picture that they show.
    pictures = preprocess(hfvae.to_pil(levels / 255), (8, 8), 1)
    assert torch.equal(preprocess(levels / 255, (8, 8), 1), pictures)


def test_what_is_no_image_is_refused(tmp_path):
    for bad, error, words in [
        (np.zeros((8, 8, 7), np.uint8), ValueError, "expected an array"),
        (np.zeros((8, 8), np.int64), TypeError, "must be uint8"),
        (np.full((8, 8), 3.0), ValueError, r"must be in \[0, 1\]"),
        (torch.full((3, 8, 8), 3.0), ValueError, r"must be in \[0, 1\]"),
        (torch.full((3, 8, 8), -1.0), ValueError, r"\(x \+ 1\) / 2"),
        (torch.rand(8, 8), ValueError, r"expected a tensor \(C, H, W\)"),
        (torch.zeros((3, 8, 8), dtype=torch.int64), TypeError, "must be uint8"),
        ([], ValueError, "no images"),
        (tmp_path / "none.png", FileNotFoundError, "none.png"),
    ]:
        with pytest.raises(error, match=words):
            preprocess(bad, (8, 8), 3)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:1000])
    with pytest.raises(OSError, match="truncated"):
        preprocess(tmp_path / "cut.png", (8, 8), 3)


def test_a_way_is_one_row():
    assert hfvae.grid(torch.zeros(8, 1, 4, 4)).size == (8 * 6 - 2, 4)
    assert hfvae.grid(torch.zeros(9, 1, 4, 4)).size == (3 * 6 - 2, 3 * 6 - 2)


def test_the_grid_holds_every_image_in_reading_order():
    x = torch.arange(5).view(5, 1, 1, 1).expand(5, 1, 4, 4) / 255
    sheet = np.asarray(hfvae.grid(x, columns=3))
    assert sheet.shape == (10, 16)
    assert [sheet[0, 0], sheet[0, 6], sheet[0, 12], sheet[6, 0], sheet[6, 6]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [(10, 12), (8, 8), (30, 16), (70, 64)])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("n", [1, 3, 8, 11, 16])
def test_the_held_out_images_come_out_of_their_picture_as_they_went_in(size, channels, n):
    model = hfvae.Autoencoder(hfvae.AutoencoderConfig(image_size=size, channels=channels)).eval()
    pixels = torch.randint(0, 256, (n, channels, *size), dtype=torch.uint8)
    png = reconstructions_png(model, ImageSet("noise", "test", pixels))
    found = first_row(Image.open(io.BytesIO(png)), size)
    assert len(found) == min(8, n)
    for image, original in zip(found, hfvae.to_pil(pixels[:8] / 255), strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(original))


def test_what_is_no_such_picture_gives_no_images():
    row = hfvae.grid(torch.rand(8, 3, 10, 12), columns=8)
    large = (3 * row.width, 3 * row.height)
    assert len(first_row(row.resize(large, Image.Resampling.NEAREST), (10, 12))) == 8
    assert first_row(row.resize(large, Image.Resampling.BICUBIC), (10, 12)) == []
    assert first_row(row, (12, 10)) == []
    assert first_row(Image.effect_noise(row.size, 50), (10, 12)) == []  # no gaps
    assert first_row(Image.new("RGB", (1, 1)), (10, 12)) == []
