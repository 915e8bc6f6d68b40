"""The Hub client's own errors in plain words."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from ..errors import HubError, quoted


@contextmanager
def explained(
    repo: str,
    endpoint: str,
    revision: str | None = None,
    what: str = "this model",
    writing: bool = False,
) -> Generator[None]:
    """Tell apart, in a sentence each, what can go wrong between here and the Hub.

    Args:
        repo: the repository that is asked for.
        endpoint: where the Hub is.
        revision: the revision that is asked for.
        what: the file or thing that is asked for.
        writing: whether it is to be changed.

    Raises:
        FileNotFoundError: the repository, the revision or the file does not exist.
        HubError: anything else.
    """
    from huggingface_hub import errors

    try:
        yield
    except HubError:
        raise
    except errors.HFValidationError as error:
        raise FileNotFoundError(f"{repo!r} is neither a folder nor a repository id") from error
    except errors.GatedRepoError as error:
        raise HubError(
            f"{repo} is gated: ask for access on its page, then hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no folder and no Hub repository {repo}, or it is private and this token "
            "may not read it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo} has no revision {revision!r}") from error
    except (errors.RevisionResolutionError, errors.LocalEntryNotFoundError) as error:
        cause = error.__cause__
        why = f"the Hub cannot be reached at {endpoint}"
        if isinstance(cause, errors.HfHubHTTPError):
            why = _answer(cause, repo, endpoint, writing)
        elif cause is None or isinstance(cause, errors.OfflineModeIsEnabled):
            why = "it may not be fetched (HF_HUB_OFFLINE or local_files_only)"
        raise HubError(f"{repo} is no folder, {what} is not in the cache, and {why}") from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(f"{repo} has no {what}") from error
    except errors.OfflineModeIsEnabled as error:
        raise HubError("offline mode is on (HF_HUB_OFFLINE), so the Hub is not asked") from error
    except errors.LocalTokenNotFoundError as error:
        raise HubError("token=True, but there is no Hub token here: run hf auth login") from error
    except errors.FileMetadataError as error:
        raise HubError(
            f"what answers at {endpoint} is no Hub: check HF_ENDPOINT, and any proxy between"
        ) from error
    except errors.HfHubHTTPError as error:
        raise HubError(_answer(error, repo, endpoint, writing)) from error
    except ValueError as error:
        cause = error.__cause__
        if isinstance(cause, errors.HTTPError) and not isinstance(cause, errors.HfHubHTTPError):
            # With force_download the client does not look into its cache.
            raise HubError(f"the Hub cannot be reached at {endpoint}") from error
        # A card that the Hub refuses, or settings that do not go together.
        raise HubError(f"{repo}: {quoted(error)}") from error
    except (errors.HTTPError, ConnectionError, RuntimeError) as error:  # the last one is hf_xet's
        if "connect" in type(error).__name__.lower():
            raise HubError(f"the Hub cannot be reached at {endpoint}") from error
        raise HubError(f"the transfer of {what} was cut short: try again") from error
    except OSError as error:
        if type(error).__module__ != "hf_xet":
            raise
        raise HubError(
            f"the Hub's storage refused {what} of {repo} ({quoted(error)}): try again, or run "
            "hf auth login again"
        ) from error


def _answer(error: Any, repo: str, endpoint: str, writing: bool) -> str:
    """What an HTTP status of the Hub means here."""
    status = error.response.status_code
    rights = (
        f"this token may not write to {repo}: use one with write access there, or a name of your "
        "own"
        if writing
        else f"access to {repo} is denied: this token may not read it"
    )
    words = {
        401: "the Hub does not know this token: run hf auth login again, or renew HF_TOKEN",
        402: (
            f"the Hub asks for a paid plan (402) for {repo}: Spaces on cpu-basic need one, and a "
            "free account may have two on ZeroGPU (zero-a10g); the model itself costs nothing"
        ),
        403: rights,
        429: "the Hub had too many requests from here: try again later",
    }
    later = ": try again later" if status >= 500 else ""
    text = words.get(status, f"the Hub at {endpoint} answered {status} for {repo}{later}")
    said = quoted(getattr(error, "server_message", None) or "")
    return f"{text} (it says: {said})" if said else text
