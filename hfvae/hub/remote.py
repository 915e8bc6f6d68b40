"""Talking to the Hugging Face Hub: fetching files of one commit, and committing files at once."""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import HubError
from .card import CARD, is_edited
from .files import CONFIG, WEIGHTS
from .words import explained

NO_TOKEN = (
    "there is no Hub token here: run hf auth login, or set HF_TOKEN to a token that may write"
)
COMMIT = re.compile(r"[0-9a-f]{40}")


def hub_api(token: str | bool | None = None) -> Any:
    """The Hub's client; by default with the token that `hf auth login` or HF_TOKEN gave."""
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="hfvae", library_version=__version__)


class Repository:
    """A model repository at one commit, whoever pushes meanwhile.

    Raises:
        FileNotFoundError, HubError: see `explained`; by all methods.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> None:
        self.name, self.revision = name, revision
        self.api = hub_api(token)
        self.how: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only}
        self.force_download = force_download
        with explained(name, self.api.endpoint, revision):
            self.commit = self._resolve()

    def _resolve(self) -> str:
        """The commit that its revision names now; from the cache, warning, if the Hub is away."""
        from huggingface_hub import try_to_load_from_cache

        name, revision, how = self.name, self.revision, self.how
        if revision and COMMIT.fullmatch(revision) and not how["local_files_only"]:
            # Nothing to resolve; but a download would try an unreachable Hub for 23 seconds.
            cached = try_to_load_from_cache(name, CONFIG, how["cache_dir"], revision)
            if not isinstance(cached, str):
                self.api.model_info(name, revision=revision)
            return revision
        return _patiently(lambda: self.api.resolve_revision(name, revision=revision, **how))

    def get(self, file: str) -> Path:
        """Where a file lies once it was fetched."""
        with explained(self.name, self.api.endpoint, self.revision, file):
            if self.force_download:
                self._forget_copy(file)
            path = _patiently(
                lambda: self.api.hf_hub_download(
                    self.name,
                    file,
                    revision=self.commit,
                    force_download=self.force_download,
                    **self.how,
                )
            )
        return Path(path)

    def _forget_copy(self, file: str) -> None:
        """Without symbolic links (on Windows) the client fetches a file anew and keeps the old."""
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.name, file, self.how["cache_dir"], self.commit)
        if isinstance(cached, str) and not Path(cached).is_symlink():
            Path(cached).unlink()

    def saves(self) -> tuple[bool, Any]:
        """What `Folder.saves` says: one commit stays as it is."""
        return False, self.commit

    @contextmanager
    def reading(self) -> Generator[None]:
        """What is wrong with a file that was fetched may have come about on its way here."""
        try:
            yield
        except HubError as error:
            raise HubError(
                f"{error}; if it was damaged on its way here, load with force_download=True"
            ) from error

    def sizes(self) -> Counter[str]:
        """Bytes of each file, before any of them is fetched."""
        with explained(self.name, self.api.endpoint, self.revision):
            info = self.api.model_info(self.name, revision=self.commit, files_metadata=True)
        # A size that the Hub does not tell counts as too large for any limit.
        return Counter({f.rfilename: 2**62 if f.size is None else f.size for f in info.siblings})

    def names(self) -> list[str]:
        """All its files."""
        with explained(self.name, self.api.endpoint, self.revision):
            return self.api.list_repo_files(self.name, revision=self.commit)


def _patiently(ask: Callable[[], Any]) -> Any:
    """Ask again when the Hub answers 5xx: it may be down for a moment only."""
    from huggingface_hub import errors

    for seconds in (0.5, 1.0):
        try:
            return ask()
        except (errors.HfHubHTTPError, errors.RevisionResolutionError) as error:
            answer = error if isinstance(error, errors.HfHubHTTPError) else error.__cause__
            if not isinstance(answer, errors.HfHubHTTPError) or answer.response.status_code < 500:
                raise
        time.sleep(seconds)
    return ask()


def make_repository(
    repo: str,
    *,
    kind: str = "model",
    private: bool | None = None,
    token: str | bool | None = None,
    sdk: str = "gradio",
    hardware: str | None = None,
) -> str:
    """Make a repository unless it is there.

    Args:
        repo: `owner/name`, or a name of one's own.
        kind: "model" or "space".
        private: of a new repository; the account's default if None.
        token: one that may write.
        sdk, hardware: of a new Space.

    Returns:
        `owner/name`.

    Raises:
        HubError: no token, one that may not write, or no connection.
    """
    from huggingface_hub import get_token

    if not isinstance(token, str) and get_token() is None:
        raise HubError(NO_TOKEN)
    api = hub_api(token)
    settings = {"space_sdk": sdk, "space_hardware": hardware} if kind == "space" else {}
    with explained(repo, api.endpoint, writing=True):
        if "/" not in repo:
            repo = f"{api.whoami()['name']}/{repo}"
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True, **settings)
        if private and not api.repo_info(repo, repo_type=kind).private:
            raise HubError(
                f"{repo} is there already and is public: choose another name, or make it private "
                "in its settings"
            )
    return repo


def check_write_access(repo: str, *, kind: str = "model") -> None:
    """Raise HubError unless the token may write to a repository that is there."""
    api = hub_api()
    with explained(repo, api.endpoint, writing=True):
        api.auth_check(repo, repo_type=kind, write=True)


def commit(
    repo: str,
    files: Mapping[str, bytes],
    message: str,
    *,
    delete: Sequence[str] = (),
    kind: str = "model",
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Publish files as one commit; a card that a person edited stays as it is.

    Args:
        repo: `owner/name`.
        files: name -> content.
        message: the commit's title.
        delete: names of files to remove, of those that are there.
        kind: "model" or "space".
        token: one that may write.
        revision: branch, made if it is missing; main by default.
        create_pr: propose the commit instead of making it.

    Returns:
        The address of the commit or of the pull request.

    Raises:
        HubError: see `explained`.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api = hub_api(token)
    with explained(repo, api.endpoint, revision, "the upload", writing=True):
        if revision and not create_pr:
            api.create_branch(repo, branch=revision, repo_type=kind, exist_ok=True)
        keep = _card_is_edited(api, repo, kind, revision)
        there = api.list_repo_files(repo, repo_type=kind, revision=revision) if delete else ()
        operations: list[Any] = [
            CommitOperationAdd(name, data)
            for name, data in files.items()
            if not (name == CARD and keep)
        ]
        operations += [CommitOperationDelete(name) for name in delete if name in there]
        done = api.create_commit(
            repo,
            operations,
            commit_message=message,
            repo_type=kind,
            revision=revision,
            create_pr=create_pr,
        )
    return done.pr_url or done.commit_url


def _card_is_edited(api: Any, repo: str, kind: str, revision: str | None) -> bool:
    """Whether a person edited the card that is there."""
    from huggingface_hub import errors

    try:
        path = api.hf_hub_download(repo, CARD, repo_type=kind, revision=revision)
    except errors.RemoteEntryNotFoundError:
        return False
    return is_edited(Path(path).read_text("utf-8", errors="replace"))


def has_weights(
    repo: str, weights: bytes, *, token: str | bool | None = None, revision: str | None = None
) -> bool:
    """Whether a repository's model.safetensors is this one already."""
    from huggingface_hub import errors

    api = hub_api(token)
    with explained(repo, api.endpoint, revision):
        try:
            found = api.get_paths_info(repo, WEIGHTS, revision=revision)
        except errors.RevisionNotFoundError:  # a branch that is still to be made
            return False
    sha = hashlib.sha256(weights).hexdigest()
    return any(file.lfs and file.lfs.sha256 == sha for file in found)
