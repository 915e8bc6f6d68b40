"""The error that loading and publishing raise."""


class HubError(OSError):
    """A model cannot be loaded, saved or published; the message says why and what to do."""
