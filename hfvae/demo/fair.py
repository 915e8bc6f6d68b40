"""The queue of a demo: whose turn it is, and how many calls may wait."""

from collections.abc import Callable
from itertools import count
from typing import Any

from gradio.queueing import Event, EventQueue, Queue
from gradio.utils import LRUCache

WAITING = 96  # calls in the queue
EACH = 24  # of one visitor: one address may be that of a whole class
UNREAD = 256  # sessions whose answers are kept until they are fetched
SERVED = 1000  # visitors and sessions of whom is known when they were served
FETCHING = 2  # calls at once whose model is to be fetched first


class FairQueue(Queue):
    """Gradio's queue, in which no visitor stands in everybody's way.

    A visitor is a network address. One call of each runs at a time, and whoever was served longest
    ago is next; so it goes among the sessions of an address. Calls whose model has to be fetched
    first have places of their own to run.

    Args:
        fetches: whether a call with these arguments fetches a model.
        settings: see Gradio's.
    """

    def __init__(self, fetches: Callable[[list[Any]], bool], **settings: Any) -> None:
        super().__init__(**settings)
        self.fetches = fetches
        self.fetching = EventQueue("fetch", FETCHING)
        self.event_queue_per_concurrency_id["fetch"] = self.fetching
        self.pending_messages_per_session = LRUCache(UNREAD)
        self.served: LRUCache[Any, int] = LRUCache(SERVED)  # when, counted in calls
        self.clock = count(1)

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        visitor = address(request)
        if sum(address(event.request) == visitor for event in self.waiting()) >= EACH:
            return False, f"The queue is full for you: {EACH} of your calls wait.", "queue_full"
        return await super().push(body, request, username)

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

    def waiting(self) -> list[Event]:
        """All calls that wait, in the order in which they came."""
        return [e for group in self.event_queue_per_concurrency_id.values() for e in group.queue]

    def place(self, event: Event) -> EventQueue:
        """Where a call would run now."""
        if event.data is not None and self.fetches(event.data.data):
            return self.fetching
        return self.event_queue_per_concurrency_id[event.concurrency_id]


def address(request: Any) -> str:
    """Of a visitor: that which the server's proxy tells, if it is behind one."""
    return request.client.host if request.client else ""


def who(event: Event) -> list[Any]:
    """A visitor, and one of the visitor's sessions."""
    visitor = address(event.request)
    return [visitor, (visitor, event.session_hash)]
