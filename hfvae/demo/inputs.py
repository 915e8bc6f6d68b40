"""What visitors send: checked, bounded, and answered in words when it will not do."""

import base64
import functools
import io
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image
from torch import Tensor

from ..base import BaseAutoencoder
from ..images import open_image
from .fair import WAITING, FairQueue

MAX_BODY = 20_000_000  # bytes of a request
MAX_BRACKETS = 256  # in a request as JSON: its lists and objects, and so how deep they are
MAX_COMMAS = 20_000  # in one: a code grid has one for each of its cells
MAX_PIXELS = 16_000_000  # of a picture, once it is opened: 20 KB can unpack to gigabytes
MAX_JPEG = 100_000_000  # pixels of a JPEG that can be opened at a fraction of its size
MAX_SCANS = 32  # of a JPEG: each costs time, and takes 31 bytes
ENOUGH = 1024  # pixels a side: more of a photograph is not decoded
CLOSE = (b"connection", b"close")  # a header
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


def words(message: str) -> gr.Error:
    """An error that the visitor reads, and the log does not."""
    return gr.Error(message, print_exception=False)


def in_words(act: Callable[..., Any]) -> Callable[..., Any]:
    """What nobody foresaw goes to the log; the visitor gets words and not a blank "Error"."""

    @functools.wraps(act)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return act(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise gr.Error("Something went wrong here; the server's log says what.") from error

    return wrapper


def whole(value: Any, low: int, high: int, name: str) -> int:
    """A number from a visitor: through the API it may be anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise words(f"{name} must be a whole number.")
    if not low <= value <= high:
        raise words(f"{name} must be from {low} to {high}.")
    return int(value)


def real(value: Any, low: float, high: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise words(f"{name} must be a number from {low:g} to {high:g}.")
    return float(value)


def several(value: Any, n: int, check: Callable[[Any], Any]) -> list[Any]:
    """A list of exactly n things from a visitor."""
    if not isinstance(value, list) or len(value) != n:
        raise words(f"Expected a list of {n}.")
    return [check(item) for item in value]


def places(value: Any, n: int) -> list[float]:
    """Where a visitor stopped: n numbers from 0 to 1."""
    return several(value, n, lambda t: real(t, 0, 1, "Place"))


def open_safely(source: Any) -> Image.Image:
    """An uploaded file as a picture, or words."""
    try:
        data = source.read() if hasattr(source, "read") else Path(source).read_bytes()
        image = Image.open(io.BytesIO(data), formats=FORMATS)  # the header only
        if image.format == "JPEG" and image.width * image.height <= MAX_JPEG:
            if data.count(b"\xff\xda") > MAX_SCANS:
                raise ValueError("too many scans")
            if not image.info.get("progressive") and image.mode in ("RGB", "L"):
                image.draft(image.mode, (ENOUGH, ENOUGH))  # decoded at a fraction
        if image.width * image.height <= MAX_PIXELS:
            return open_image(image)
    except Exception:  # decoders fail in many ways
        raise words(f"This file cannot be read as a picture ({', '.join(FORMATS)}).") from None
    size = f"{image.width} x {image.height}"
    raise words(f"This picture has {size} pixels; the limit is {MAX_PIXELS // 10**6} million.")


def seen(model: BaseAutoencoder, image: Image.Image | None) -> Tensor:
    """A picture as the model sees it, (1, C, H, W) in [0, 1]."""
    if image is None:
        raise words("Please choose a picture first.")
    return model.likelihood.nearest(model.preprocess(image))


class Page(gr.Blocks):
    """gr.Blocks with words for what a program sends of the wrong kind, and not a blank "Error".

    Of what visitors send and get, their sessions keep nothing: Gradio would, for links to it that
    this page does not have.
    """

    def take_turns(self, visits: Callable[[list[Any]], bool]) -> "Page":
        """Give it a `FairQueue`."""
        # Without api_open=False a second way in skips the queue and its limits.
        self.queue(api_open=False)
        self._queue = FairQueue(
            visits, live_updates=True, concurrency_count=self.max_threads, update_intervals=1,
            max_size=WAITING, blocks=self,
        )  # fmt: skip
        return self

    async def preprocess_data(
        self, block_fn: Any, inputs: Any, state: Any, explicit_call: bool = False
    ) -> Any:
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except gr.Error:
            raise
        except Exception:  # each component has its own
            raise words("An argument is not of the kind that this takes.") from None
        finally:
            forget(state)

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> Any:
        try:
            return await super().postprocess_data(block_fn, predictions, state)
        finally:
            forget(state)


def forget(state: Any) -> None:
    """Drop the values of a session's components."""
    if state is not None:
        state.config_values.clear()


class Picture(gr.Image):
    """gr.Image that opens uploads itself: any mode, upright, within limits, and words if it cannot.

    Gradio's own preprocessing drops transparency without blending it, clips 16-bit pictures, and
    lets API clients name any picture on the server. There must be no `__init__` here: Gradio reads
    the signature, and shows the stock component because of `is_template`.
    """

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        if payload is None:
            return None
        if payload.url and payload.url.startswith("data:"):
            try:
                data = base64.b64decode(payload.url.partition(",")[2], validate=True)
            except ValueError:
                raise words("This is not a picture.") from None
            return open_safely(io.BytesIO(data))
        uploads = Path(self.GRADIO_CACHE).resolve()
        if not payload.path or uploads not in Path(payload.path).resolve().parents:
            raise words("Please upload the picture.")
        return open_safely(payload.path)


class Body:
    """What was read of a request, and what there is too much of in it, if anything.

    In JSON, brackets and commas are counted before it is parsed, because parsing stops everybody:
    20 MB of brackets take seconds and gigabytes, and one long string, as a picture is, takes
    neither. Those in strings count too, which hold no more of them than a name does.
    """

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        self.announced = int(headers.get(b"content-length", 0))
        self.json = not headers.get(b"content-type", b"").startswith(b"multipart/")
        self.bytes = self.brackets = self.commas = 0

    def read(self, some: bytes) -> None:
        self.bytes += len(some)
        if self.json:
            self.brackets += some.count(b"[") + some.count(b"{")
            self.commas += some.count(b",")

    @property
    def excess(self) -> str:
        if max(self.announced, self.bytes) > MAX_BODY:
            return f"This is more than {MAX_BODY // 10**6} MB."
        if self.brackets > MAX_BRACKETS:
            return f"This has more than {MAX_BRACKETS} lists and objects."
        if self.commas > MAX_COMMAS:
            return f"This has more than {MAX_COMMAS:,} commas."
        return ""


class BodyLimit:
    """Refuse request bodies that are too much: Gradio limits uploads, not what it reads as JSON.

    Whoever is refused, here or by Gradio, has to connect again: of requests that are sent without
    waiting for answers, the server would read a thousand more with each that it answers.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        body, refused = Body(dict(scope["headers"])), False
        if body.excess:
            return await self._refuse(send, body)

        async def counted() -> Any:
            message = await receive()
            body.read(message.get("body", b""))
            if body.excess:
                raise ValueError(body.excess)
            return message

        async def answer(message: Any) -> None:
            nonlocal refused
            if message.get("status", 0) >= 400:
                message["headers"] = [*message["headers"], CLOSE]
            if not body.excess:
                await send(message)
            elif not refused:  # whatever the application makes of the error above
                refused = True
                await self._refuse(send, body)

        await self.app(scope, counted, answer)

    async def _refuse(self, send: Any, body: Body) -> None:
        headers = [(b"content-type", b"application/json"), CLOSE]
        detail = json.dumps({"detail": body.excess}).encode()
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": detail})
