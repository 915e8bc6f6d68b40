"""What visitors send to the demo, of any kind: it gets a picture or words, and costs little."""

import base64
import gc
import io
import json
import time

import gradio_client
import numpy as np
import pytest
import torch
from memory import Memory
from PIL import Image
from visiting import call, encoded, post, uploaded

import hfvae
from hfvae.demo.inputs import MAX_BODY, open_safely


def test_files_that_are_no_picture_get_words(client, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    for name, words in [
        ("text.png", "cannot be read as a picture"),
        ("bomb.png", "10000 x 10000 pixels"),
    ]:
        file = gradio_client.handle_file(str(tmp_path / name))
        with pytest.raises(Exception, match=words):
            client.predict(image=file, api_name="/reconstruct")


@pytest.mark.parametrize("meta", [{}, {"meta": {}}, {"meta": {"_type": "gradio.FileData"}}])
def test_no_file_of_the_server_can_be_named(client, tmp_path, meta):
    import httpx

    Image.new("RGB", (9, 9)).save(tmp_path / "private.png")
    call = f"{client.src}gradio_api/call/reconstruct"
    body = {"data": [None, {"path": str(tmp_path / "private.png")} | meta]}
    event = httpx.post(call, json=body).json()["event_id"]
    answer = httpx.get(f"{call}/{event}").text
    assert answer.startswith("event: error"), answer
    assert str(tmp_path) not in answer


def bad_files():
    yield "bomb.png", encoded(Image.new("1", (13_000, 13_000)))
    yield "bomb2.png", encoded(Image.new("1", (20_000, 20_000)))
    yield "text.png", b"no picture"
    yield "empty.png", b""
    yield "cut.png", encoded(Image.effect_noise((90, 90), 50))[:999]
    yield "a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"
    progressive = encoded(Image.new("L", (200, 200)), "JPEG", progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    yield "scans.jpg", progressive[:-2] + progressive[scan:-2] * 400 + progressive[-2:]
    large = Image.new("L", (5000, 5000))
    yield "large-progressive.jpg", encoded(large, "JPEG", progressive=True)
    yield "float.tiff", encoded(Image.new("F", (9, 9)), "TIFF")


def good_files():
    transparent = Image.new("RGBA", (40, 32), (255, 0, 0, 0))
    yield "clear.png", encoded(transparent), (255, 255, 255)
    yield "grey16.png", encoded(Image.fromarray(np.full((32, 40), 32768, np.uint16))), (128,) * 3
    yield "a.gif", encoded(Image.new("P", (40, 32)), "GIF"), (0, 0, 0)
    yield "png-named.gif", encoded(Image.new("RGB", (40, 32), (9, 8, 7))), (9, 8, 7)
    large = Image.new("RGBA", (4000, 4000), (0, 255, 0, 255))
    yield "large.png", encoded(large), (0, 255, 0)
    yield "huge.jpg", encoded(Image.new("RGB", (9000, 7000), (0, 0, 254)), "JPEG"), (0, 0, 254)


@pytest.mark.parametrize(
    ("name", "data"), list(bad_files()), ids=lambda v: v if isinstance(v, str) else ""
)
@pytest.mark.parametrize("how", ["upload", "url"])
def test_bad_pictures_get_words_and_cost_little(client, name, data, how):
    file = uploaded(client, data, name) if how == "upload" else {
        "url": "data:image/png;base64," + base64.b64encode(data).decode()
    }  # fmt: skip
    memory, start = Memory(), time.perf_counter()
    event, text = call(client, "reconstruct", None, file)
    assert event == "error"
    assert "cannot be read as a picture" in text or "pixels; the limit is 16 million" in text
    assert "/" not in text.replace("\\n", "")
    assert time.perf_counter() - start < 1
    assert memory.growth() < 300


@pytest.mark.parametrize(("name", "data", "colour"), list(good_files()), ids=lambda v: str(v)[:12])
def test_odd_pictures_are_seen_as_they_look(client, name, data, colour):
    file = uploaded(client, data, name)
    memory = Memory()
    event, text = call(client, "reconstruct", None, file)
    assert event == "complete", text
    assert memory.growth() < 300
    image = open_safely(io.BytesIO(data))
    x = hfvae.images.preprocess(image, (16, 20), 3)[0]
    assert torch.allclose(x.mean((1, 2)) * 255, torch.tensor(colour).float(), atol=2)


@pytest.mark.parametrize("value", [float("nan"), 1e300, -5, 2.5, None, "7", [1], True, {}, 10**400])
@pytest.mark.parametrize("place", ["count", "seed", "temperature"])
def test_numbers_that_are_none_are_refused_cheaply(client, place, value):
    data = {"model": None, "count": 2, "seed": 1, "temperature": 1.0} | {place: value}
    memory, start = Memory(), time.perf_counter()
    event, text = call(client, "generate", *data.values())
    fine = (place, value) in [
        ("seed", None),
        ("count", True),
        ("seed", True),
        ("temperature", True),
    ]
    fine = fine or (place, value) == ("temperature", True)
    if event == "complete":
        assert fine or isinstance(value, bool)
    else:
        assert json.loads(text.partition("data: ")[2])["error"]  # words, whatever was wrong
        assert "Traceback" not in text
        assert "site-packages" not in text
    assert time.perf_counter() - start < 1
    assert memory.growth() < 300


@pytest.mark.parametrize("picture", ["/etc/passwd", 5, [], {"path": 7}])
def test_what_is_no_picture_at_all_gets_words(client, picture):
    event, text = call(client, "reconstruct", None, picture)
    assert event == "error"
    assert "not of the kind" in text or "choose a picture" in text


def test_bodies_over_the_limit_are_refused(client):
    import httpx

    url = f"{client.src}gradio_api/call/generate"
    large = b'{"data": ["' + b"x" * MAX_BODY + b'"]}'
    memory = Memory()
    assert httpx.post(url, content=large).status_code == 413

    def unannounced():
        for i in range(0, len(large), 2**20):
            yield large[i : i + 2**20]

    assert httpx.post(url, content=unannounced()).status_code == 413
    files = {"files": ("a.png", large)}
    assert httpx.post(f"{client.src}gradio_api/upload", files=files).status_code == 413
    assert memory.growth() < 300
    assert client.predict(count=1, api_name="/generate")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"[" + b"[]," * 6_500_000 + b"[]]", "more than 256 lists and objects"),
        (b"[" + b"0," * 9_900_000 + b"0]", "more than 20,000 commas"),
        (b'{"a":' * 1000 + b"0" + b"}" * 1000, "more than 256 lists and objects"),
        (b"[" + b"[]," * 300_000 + b"[]]", "more than 256 lists and objects"),
    ],
    ids=["lists", "numbers", "deep", "small"],
)
@pytest.mark.parametrize("announced", [True, False])
def test_json_that_is_costly_to_parse_is_not_parsed(client, value, words, announced):
    body = b'{"data": [null, 2, 7, ' + value + b"]}"
    memory = Memory()
    parts = (body[i : i + 2**16] for i in range(0, len(body), 2**16))
    answer, waited = post(client, body if announced else parts)
    assert answer.status_code == 413
    assert words in answer.json()["detail"]
    assert waited < 1
    assert memory.growth() < 150


def test_what_visitors_send_does_not_stay(client):
    picture = {"url": "data:image/png;base64," + "A" * 9_000_000}
    memory = None
    gc.disable()  # Python's own turn may not come for hundreds of calls
    try:
        for i in range(12):
            event, text = call(client, "reconstruct", None, picture, session=f"visitor{i}")
            assert event == "error", text
            memory = memory or (i > 2 and Memory()) or None
        until = time.monotonic() + 5
        while memory.read("VmRSS") - memory.start >= 50:  # what is freed goes after the answer
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        gc.enable()
