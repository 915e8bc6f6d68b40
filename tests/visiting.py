"""Ways to call the demo as a visitor, well-behaved or not."""

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from hfvae.demo.actions import make_actions
from hfvae.demo.menu import Models


def pixels(file):
    return np.asarray(Image.open(file["image"] if isinstance(file, dict) else file))


def call(client, name, *data, session=None):
    """The last event of a raw call: (its kind, its text)."""
    import httpx

    body = {"data": list(data)} | ({"session_hash": session} if session else {})
    url = f"{client.src}gradio_api/call/{name}"
    answer = httpx.post(url, content=json.dumps(body), headers={"content-type": "application/json"})
    if answer.status_code != 200:
        return "refused", answer.text
    text = httpx.get(f"{url}/{answer.json()['event_id']}", timeout=60).text
    event, _, rest = text.strip().rpartition("event: ")[2].partition("\n")
    return event, rest


def uploaded(client, data: bytes, name="a.png"):
    import httpx

    files = {"files": (name, data)}
    (path,) = httpx.post(f"{client.src}gradio_api/upload", files=files).json()
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def encoded(image, format="PNG", **kwargs):
    file = io.BytesIO()
    image.save(file, format, **kwargs)
    return file.getvalue()


def post(client, body, name="generate", **kwargs):
    """The answer to a raw call, with how long it and an onlooker had to wait, in seconds."""
    import httpx

    waits = []

    def onlooker():
        with httpx.Client() as mine:
            while len(waits) < 2 or not done.is_set():
                start = time.perf_counter()
                assert mine.get(f"{client.src}gradio_api/startup-events").status_code == 200
                waits.append(time.perf_counter() - start)

    done, url = threading.Event(), f"{client.src}gradio_api/call/{name}"
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(onlooker)
        try:
            answer = httpx.post(url, content=body, timeout=60, **kwargs)
        finally:
            done.set()
        watching.result()
    return answer, max(waits)


def actions(folder):
    return make_actions(Models([str(folder)]))


def seeded(model, n):
    return model.sample(n, generator=torch.Generator().manual_seed(0))


class Visitors:
    """Calls from any address, as a proxy on this machine tells of them."""

    def __init__(self, client):
        self.url = f"{client.src}gradio_api/call/generate"

    def post(self, address, *data):
        import httpx

        return httpx.post(
            self.url, json={"data": list(data)}, headers={"x-forwarded-for": address}, timeout=20
        )

    def answer(self, address, *data):
        """The text of an answer, and the seconds that it took."""
        import httpx

        start = time.perf_counter()
        event = self.post(address, *data).json()["event_id"]
        text = httpx.get(f"{self.url}/{event}", timeout=20).text
        return text, time.perf_counter() - start

    def are_answered(self, network, within):
        """Four visitors of a network, such as "10.0.5", get images in so many seconds each."""
        for i in range(4):
            text, seconds = self.answer(f"{network}.{i}", None, 1, i, 1)
            assert "event: complete" in text
            assert seconds < within

    def until(self, waiting):
        """Return when so many calls wait."""
        import httpx

        deadline = time.monotonic() + 20
        status = self.url.replace("call/generate", "queue/status")
        while httpx.get(status).json()["queue_size"] != waiting:
            assert time.monotonic() < deadline
