"""The queue of a demo: whose turn it is, and how many calls may wait."""

import gc
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from itertools import count
from typing import Any

from gradio.queueing import Event, EventQueue, Queue
from gradio.utils import LRUCache

from ..machine import give_back_memory

WAITING = 64  # calls in the queue
EACH = 24  # of one visitor: one address may be that of a whole class
UNREAD = 256  # sessions whose answers are kept until they are fetched
SERVED = 1000  # visitors and sessions of whom is known when they were served
VISITING = 2  # calls at once whose model a visitor brought


class FairQueue(Queue):
    """Gradio's queue, in which no visitor stands in everybody's way.

    A visitor is a network address. One call of each runs at a time, and whoever was served longest
    ago is next; so it goes among the sessions of an address. Calls of models that visitors brought,
    which have to be fetched first and may be slow, have places of their own to run.

    Args:
        visits: whether the model of a call with these arguments is a visitor's.
        settings: see Gradio's.
    """

    def __init__(self, visits: Callable[[list[Any]], bool], **settings: Any) -> None:
        super().__init__(**settings)
        self.visits = visits
        self.visiting = EventQueue("visiting", VISITING)
        self.event_queue_per_concurrency_id["visiting"] = self.visiting
        self.pending_messages_per_session = LRUCache(UNREAD)
        self.pending_event_ids_session = LRUCache(UNREAD)
        self.served: LRUCache[Any, int] = LRUCache(SERVED)  # when, counted in calls
        self.clock = count(1)
        self.failed = False  # a call, since garbage was collected
        gc.freeze()  # what is here now stays, and need not be looked through then

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        visitor = address(request)
        if sum(address(event.request) == visitor for event in self.waiting()) >= EACH:
            return False, f"The queue is full for you: {EACH} of your calls wait.", "queue_full"
        return await super().push(body, request, username)

    def send_message(self, event: Event, event_message: Any) -> None:
        """Tell a session, unless nobody fetched what it was told before and it is forgotten.

        Gradio's own would then end its loop, and all calls with it.
        """
        self.failed |= not getattr(event_message, "success", True)
        if event.session_hash in self.pending_messages_per_session:
            super().send_message(event, event_message)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """The next call to run, which no longer waits; None if there is none, or no place."""
        running = {
            (event.concurrency_id, address(event.request))
            for job in self.active_jobs
            for event in job or ()
        }
        may_run = []
        for event in self.waiting():
            place = self.place(event)
            free = place.concurrency_limit is None or (
                place.current_concurrency < place.concurrency_limit
            )
            if free and (place.concurrency_id, address(event.request)) not in running:
                may_run.append(event)
        if not may_run:
            return None
        event = min(may_run, key=lambda event: [self.served.get(w, 0) for w in who(event)])
        for key in who(event):
            self.served[key] = next(self.clock)
        self.event_queue_per_concurrency_id[event.concurrency_id].queue.remove(event)
        event.concurrency_id = self.place(event).concurrency_id
        return [event], False, event.concurrency_id

    async def process_events(self, events: Any, batch: bool, begin_time: float, fn: Any) -> None:
        await super().process_events(events, batch, begin_time, fn)
        if not any(self.active_jobs) and not len(self):
            if self.failed:  # Gradio's frames hold the error, which holds them and what was sent
                self.failed = False
                gc.collect()
            give_back_memory()

    def waiting(self) -> list[Event]:
        """All calls that wait, in the order in which they came."""
        return [e for group in self.event_queue_per_concurrency_id.values() for e in group.queue]

    def place(self, event: Event) -> EventQueue:
        """Where a call would run now."""
        if event.data is not None and self.visits(event.data.data):
            return self.visiting
        return self.event_queue_per_concurrency_id[event.concurrency_id]


def address(request: Any) -> str:
    """Of a visitor.

    Behind proxies, as on a Space, it is the last that they tell of which lies in no private
    network: what stands before it the visitor may have written.
    """
    host = request.client.host if request.client else ""
    told = request.headers.get("x-forwarded-for", "").split(",")
    for found in map(str.strip, [host, *reversed(told)]):
        with suppress(ValueError):
            if ip_address(found).is_global:
                return found
    return host


def who(event: Event) -> list[Any]:
    """A visitor, and one of the visitor's sessions."""
    visitor = address(event.request)
    return [visitor, (visitor, event.session_hash)]
