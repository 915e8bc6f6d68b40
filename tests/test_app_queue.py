"""Many visitors of the demo at once: each gets their own, and none stops the others."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlsplit

import gradio_client
import numpy as np
import pytest
import torch
from gradio.queueing import Event
from gradio.server_messages import EstimationMessage
from memory import Memory
from PIL import Image
from visiting import Visitors, pixels

import hfvae
from hfvae.demo import fair
from hfvae.demo.actions import make_actions
from hfvae.demo.entry import Entry
from hfvae.demo.menu import Models
from hfvae.demo.page import build


def test_the_queue_cannot_be_passed_by(client):
    import httpx

    answer = httpx.post(f"{client.src}gradio_api/run/generate", json={"data": [None, 1, 1, 1.0]})
    assert answer.status_code >= 400
    assert httpx.get(f"{client.src}monitoring/summary").status_code >= 400


def test_a_call_that_takes_too_long_is_stopped_in_words(demo_models, picture, monkeypatch):
    act = make_actions(Models([str(demo_models / "fitted")]))
    image = Image.open(picture()["path"])
    act.reconstruct(None, image)
    monkeypatch.setattr("hfvae.demo.work.MAX_SECONDS", 0)
    for call in (lambda: act.generate(None, 2, 1), lambda: act.reconstruct(None, image)):
        with pytest.raises(Exception, match="This took more than 0 seconds: ask for fewer images"):
            call()


@pytest.mark.parametrize("calls", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_twenty_visitors_at_once_get_each_their_own(calls, client, demo_url, demo_models, picture):
    files = [picture(f"{i}.png", seed=i) for i in range(4)]
    model = hfvae.from_pretrained(demo_models / "colour")
    codes = hfvae.from_pretrained(demo_models / "codes")

    def same(file, x):
        return np.array_equal(pixels(file), np.asarray(hfvae.to_pil(x)[0]))

    def visit(visitor):
        mine = gradio_client.Client(demo_url, verbose=False)
        for i in range(calls):
            seed, kind = 100 * visitor + i, (visitor + i) % 4
            file, other = files[seed % 4], files[(seed + 1) % 4]
            while True:
                try:
                    if kind == 0:
                        images, used = mine.predict("colour", 2, seed, 1.0, api_name="/generate")
                        noise = torch.Generator().manual_seed(seed)
                        assert used == seed
                        assert same(images[1], model.sample(2, generator=noise)[1:])
                    elif kind == 1:
                        _, copy, _ = mine.predict("codes", file, api_name="/reconstruct")
                        assert same(copy, codes.reconstruct(codes.preprocess(file["path"])))
                    elif kind == 2:
                        strip, _ = mine.predict("colour", file, other, 3, "lerp",
                                                api_name="/interpolate")  # fmt: skip
                        a, b = (model.preprocess(f["path"]) for f in (file, other))
                        assert same(strip[1], model.interpolate(a, b, 3, "lerp")[1:2])
                    else:
                        found = mine.predict("colour", file, seed % 4, 1.0, api_name="/explore")
                        x = model.preprocess(file["path"])
                        assert same(found, model.traverse(x, seed % 4, [1.0]))
                    break
                except Exception as error:
                    if "queue is full" not in str(error).lower():
                        raise
                    time.sleep(0.2)
        return visitor

    before = Memory()
    with ThreadPoolExecutor(20) as pool:
        assert sorted(pool.map(visit, range(20))) == list(range(20))
    assert before.read("VmRSS") - before.start < 300


@pytest.fixture
def visitors(client):
    """They leave an empty queue."""
    found = Visitors(client)
    yield found
    found.until(0)


@pytest.fixture
def held(visitors, monkeypatch):
    """Draws of the seed 666 take until the test ends."""
    draws, go = Entry.draws, threading.Event()

    def slow(self, count, seed, temperature=1.0):
        if seed == 666:
            assert go.wait(60)
        return draws(self, count, seed, temperature)

    monkeypatch.setattr(Entry, "draws", slow)
    yield
    go.set()


@pytest.mark.alone
def test_a_visitor_with_two_hundred_calls_keeps_nobody_waiting(visitors, held):
    with ThreadPoolExecutor(20) as pool:
        posted = list(pool.map(lambda _: visitors.post("10.0.0.1", None, 1, 666, 1), range(200)))
    refused = [answer.json()["detail"] for answer in posted if answer.status_code == 503]
    assert set(refused) == {"The queue is full for you: 24 of your calls wait."}
    assert len(posted) - len(refused) == 25  # one of them runs
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda i: visitors.answer(f"10.0.1.{i}", None, 1, i, 1), range(8))
        for text, seconds in answers:
            assert "event: complete" in text
            assert seconds < 5


def test_who_was_served_longest_ago_is_next(visitors, monkeypatch):
    draws, go, order = Entry.draws, threading.Event(), []

    def noted(self, count, seed, temperature=1.0):
        assert seed or go.wait(20)
        order.append(seed)
        return draws(self, count, seed, temperature)

    monkeypatch.setattr(Entry, "draws", noted)
    for address in ("10.0.2.1", "10.0.2.2"):
        visitors.post(address, None, 1, 0, 1)  # both places are taken
    for seed in range(1, 11):
        visitors.post("10.0.2.3", None, 1, seed, 1)
    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(visitors.answer, "10.0.2.4", None, 1, 100, 1)
        visitors.until(11)
        go.set()
        assert "event: complete" in last.result()[0]
    assert order.index(100) < 4


@pytest.mark.parametrize(
    ("peer", "told", "visitor"),
    [
        ("8.8.8.8", None, "8.8.8.8"),
        ("8.8.8.8", "1.1.1.1", "8.8.8.8"),  # no proxy, but a visitor who says so
        ("10.16.3.80", "9.9.9.9, 1.1.1.1, 10.0.0.7", "1.1.1.1"),  # as on a Space
        ("192.168.0.2", "", "192.168.0.2"),
        ("127.0.0.1", "nonsense,", "127.0.0.1"),
        ("10.16.3.80", "2606:4700::1111", "2606:4700::1111"),
    ],
)
def test_visitors_behind_proxies_are_told_apart(peer, told, visitor):
    headers = {} if told is None else {"x-forwarded-for": told}
    assert (
        fair.address(SimpleNamespace(client=SimpleNamespace(host=peer), headers=headers)) == visitor
    )


def test_an_answer_that_nobody_fetches_stops_nothing(demo_models):
    queue = build(Models([str(demo_models / "plain")]))._queue
    function = next(iter(queue.blocks.fns.values()))
    queue.send_message(Event("gone", function, None, None), EstimationMessage(queue_size=0))


@pytest.mark.alone
def test_models_that_take_long_to_arrive_keep_nobody_waiting(visitors, hub, model, monkeypatch):
    load, go = hfvae.demo.entry.load, threading.Event()

    def slow(*args, **kwargs):
        assert go.wait(60)
        return load(*args, **kwargs)

    monkeypatch.setattr("hfvae.demo.entry.load", slow)
    with ThreadPoolExecutor(4) as pool:
        for i in range(3):
            model.push_to_hub(f"me/slow{i}")
        late = [
            pool.submit(visitors.answer, f"10.0.3.{i}", f"me/slow{i}", 1, 1, 1) for i in range(3)
        ]
        try:
            visitors.are_answered("10.0.3", within=5)
        finally:
            go.set()
        assert all("event: complete" in answer.result()[0] for answer in late)


@pytest.mark.alone
def test_a_connection_that_only_posts_keeps_nobody_waiting(visitors):
    where = urlsplit(visitors.url)
    body = b'{"data": [null, 1, 1, 1]}'
    request = (
        f"POST {where.path} HTTP/1.1\r\nhost: {where.netloc}\r\nx-forwarded-for: 10.0.4.1\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body
    done = threading.Event()

    def flood():
        while not done.is_set():
            with (
                socket.create_connection((where.hostname, where.port), timeout=0.5) as connection,
                contextlib.suppress(ConnectionError),  # who is refused has to connect again
            ):
                while not done.is_set():
                    with contextlib.suppress(TimeoutError):  # the server reads no more for now
                        connection.sendall(request)

    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood)
        try:
            visitors.are_answered("10.0.5", within=3)
        finally:
            done.set()
        flooding.result()
