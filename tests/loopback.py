"""A small Hugging Face Hub on 127.0.0.1, for the real client: repositories kept in memory.

It speaks the routes that hfvae and `datasets` use. Large files lie on another origin, as on the
real Hub: what a client uploads by Xet in pieces (xet.py); what it uploads by LFS, or was there
already, as it is. Every request is kept, and faults can be ordered.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

import xet
import yaml

TOKENS = {"hf_me": ("me", "write"), "hf_reader": ("me", "read"), "hf_other": ("other", "write")}
SPACE_STUB = b"""---
title: Demo
sdk: gradio
sdk_version: 1.0
---

Check out the configuration reference at https://huggingface.co/docs/hub/spaces-config-reference
"""
BROWSERS = {  # what pages of other origins may read
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "X-Error-Code, X-Error-Message, X-Linked-Size, X-Repo-Commit",
}
LARGE = (".safetensors", ".png", ".parquet", ".bin", ".pt")


@dataclass
class Request:
    method: str
    origin: str  # "hub" or "storage"
    path: str
    token: str | None


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD path" matches a pattern."""

    pattern: str
    times: int
    # A status, "cut" (half of the body), "flip" (one bit), "huge" (it says 300 MB), or the seconds
    # that it takes.
    act: int | str | float


@dataclass
class Repo:
    owner: str
    private: bool = False
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)  # "main" -> commit
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)  # commit messages
    variables: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None
    sdk: str | None = None

    def commit(self, ref: str, files: dict[str, bytes], message: str) -> str:
        sha = hashlib.sha1(repr((message, self.log, sorted(files.items()))).encode()).hexdigest()
        self.commits[sha], self.refs[ref] = files, sha
        self.log.append(message)
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.refs.get(revision, revision)]


class Hub:
    """The server: `url`, `repos`, `requests`, `faults`, `start()`, `stop()`."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}  # "models/me/x" -> repository
        self.large: dict[str, bytes] = {}
        self.xet = xet.Store()
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.spaces_cost_money = False
        self.ports = {"hub": 0, "storage": 0}
        self.start()

    def start(self) -> None:
        self.servers = []
        for origin, port in self.ports.items():
            handler = type("Handler", (_Handler,), {"hub": self, "origin": origin})
            server = _Server(("127.0.0.1", port), handler)
            self.ports[origin] = server.server_port
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            self.servers.append(server)
        self.xet.url = self.storage

    def stop(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def reset(self) -> None:
        """Forget everything but what lies in Xet: a client does not send the same chunk twice."""
        for kept in (self.repos, self.large, self.requests, self.faults):
            kept.clear()
        self.spaces_cost_money = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['hub']}"

    @property
    def storage(self) -> str:
        return f"http://localhost:{self.ports['storage']}"  # another host name as well

    def fail(self, pattern: str, act: int | str | float, times: int = 10**6) -> None:
        self.faults.append(Fault(pattern, times, act))

    def add(self, key: str, files: dict[str, bytes] | None = None, **settings) -> Repo:
        """A repository that is there already, such as "models/me/x"."""
        repo = self.repos[key] = Repo(key.split("/")[1], **settings)
        repo.commit("main", files or {".gitattributes": b""}, "initial commit")
        return repo


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def get_request(self):
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open = [*getattr(self, "open", []), connection]
        return connection, address

    def server_close(self) -> None:
        super().server_close()
        for connection in getattr(self, "open", []):  # kept-alive ones would go on answering
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_) -> None:
        pass  # a client that went away


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    origin: str

    def log_message(self, *_) -> None:
        pass

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        path = unquote(url.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(self.command, self.origin, path, token))
        self.token, self.user, self.role = token, *TOKENS.get(token or "", (None, None))
        fault = next(
            (
                f
                for f in self.hub.faults
                if f.times and re.search(f.pattern, f"{self.command} {path}")
            ),
            None,
        )
        if fault:
            fault.times -= 1
        if fault and isinstance(fault.act, float):
            time.sleep(fault.act)
        try:
            if fault and isinstance(fault.act, int):
                raise _Refused(fault.act)
            if self.origin == "hub" and token and token not in TOKENS:
                raise _Refused(401, message="Invalid credentials in Authorization header")
            routes = HUB if self.origin == "hub" else STORAGE
            for method, pattern, route in routes:
                match = re.fullmatch(pattern, path)
                if match and method == self.command:
                    status, headers, body = route(self, **match.groupdict())
                    break
            else:
                raise _Refused(404, message=f"no route {self.command} {path}")
        except _Refused as refused:
            status, headers, body = refused.status, refused.headers, b"{}"
        size = len(body)
        if fault and fault.act == "flip":
            body = body[:-9] + bytes([body[-9] ^ 1]) + body[-8:]
        if fault and fault.act == "cut":
            body = body[: size // 2]
            self.close_connection = True
        if fault and fault.act == "huge":
            size = 300_000_000
            self.close_connection = True
        self.send_response(status)
        for name, value in {"Content-Length": str(size), **BROWSERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any

    # Repositories and who may do what with them

    def repo(self, kind: str, name: str, write: bool = False) -> Repo:
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None or (repo.private and self.user != repo.owner):
            raise _Refused(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if write and (self.user != repo.owner or self.role != "write"):
            raise _Refused(403, message="You don't have the required permissions")
        return repo

    def files(self, repo: Repo, revision: str) -> tuple[str, dict[str, bytes]]:
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repo.commits[sha]

    # Routes

    def whoami(self):
        if not self.user:
            raise _Refused(401, message="Invalid username or password.")
        token = {"type": "access_token", "accessToken": {"role": self.role, "displayName": "t"}}
        return answer({"type": "user", "name": self.user, "orgs": [], "auth": token})

    def create(self):
        wanted = json.loads(self.body)
        owner = wanted["organization"] or self.user
        name = f"{owner}/{wanted['name']}"
        if not self.user:
            raise _Refused(401, message="Invalid username or password.")
        if owner != self.user or self.role != "write":
            raise _Refused(403, message=f"You don't have the rights to create in {owner}")
        kind = wanted.get("type", "model") + "s"
        url = {"url": f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{name}"}
        if f"{kind}/{name}" in self.hub.repos:
            return answer(url, 409)
        if kind == "spaces" and self.hub.spaces_cost_money:
            raise _Refused(402, message="Payment required")
        repo = self.hub.add(f"{kind}/{name}", private=wanted.get("visibility") == "private")
        repo.hardware, repo.sdk = wanted.get("hardware"), wanted.get("sdk")
        if kind == "spaces":
            repo.commits[repo.refs["main"]]["README.md"] = SPACE_STUB
        return answer(url)

    def info(self, kind, name, revision="main"):
        repo = self.repo(kind, name)
        sha, files = self.files(repo, revision)
        siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
        return answer(
            {
                "id": name,
                "modelId": name,
                "sha": sha,
                "private": repo.private,
                "gated": repo.gated,
                "siblings": siblings,
                "tags": [],
                "usedStorage": sum(map(len, files.values())),
            }
        )

    def tree(self, kind, name, revision, folder=""):
        _, files = self.files(self.repo(kind, name), revision)
        start = folder and folder + "/"
        inside = {path: data for path, data in files.items() if path.startswith(start)}
        folders = {str(p) for path in inside for p in PurePosixPath(path).parents} - {"."}
        entries = [{"type": "directory", "path": p, "size": 0, "oid": "0" * 40} for p in folders]
        entries += [entry(path, data) for path, data in inside.items()]
        deep = self.query.get("recursive", [""])[0].lower() == "true"
        return answer(
            [
                e
                for e in entries
                if e["path"].startswith(start) and (deep or "/" not in e["path"][len(start) :])
            ]
        )

    def paths_info(self, kind, name, revision):
        _, files = self.files(self.repo(kind, name), revision)
        asked = parse_qs(self.body.decode())["paths"]
        return answer([entry(path, files[path]) for path in asked if path in files])

    def auth_check(self, kind, name):
        self.repo(kind, name, write=True)
        return answer({})

    def preupload(self, kind, name, revision):
        repo = self.repo(kind, name, write="create_pr" not in self.query)
        _, there = self.files(repo, revision)
        return answer(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                        "oid": git_id(file["path"], there[file["path"]])
                        if file["path"] in there
                        else None,
                    }
                    for file in json.loads(self.body)["files"]
                ]
            }
        )

    def lfs_batch(self, prefix=None, name=""):
        return answer(
            {
                "transfer": "basic",
                "objects": [
                    {
                        "oid": object["oid"],
                        "size": object["size"],
                        "actions": {"upload": {"href": f"{self.hub.storage}/{object['oid']}"}},
                    }
                    for object in json.loads(self.body)["objects"]
                ],
            }
        )

    def commit(self, kind, name, revision):
        pull_request = "create_pr" in self.query
        repo = self.repo(kind, name, write=not pull_request)
        _, before = self.files(repo, revision)
        files, message = dict(before), ""
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                oid = value["oid"]
                large = self.hub.large
                files[value["path"]] = large[oid] if oid in large else self.hub.xet.read(oid)
            elif item["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise _Refused(400, message=f"unknown {item['key']}")
        number = sum(ref.startswith("refs/pr/") for ref in repo.refs) + 1
        sha = repo.commit(f"refs/pr/{number}" if pull_request else revision, files, message)
        url = f"{self.hub.url}/{name}"
        found = {"commitUrl": f"{url}/commit/{sha}", "commitOid": sha}
        return answer(found | {"pullRequestUrl": f"{url}/discussions/{number}"})

    def branch(self, kind, name, branch):
        repo = self.repo(kind, name, write=True)
        if branch in repo.refs:
            raise _Refused(409, message="Reference already exists")
        repo.refs[branch] = repo.refs["main"]
        return answer({})

    def variables(self, name):
        wanted = json.loads(self.body)
        self.repo("spaces", name, write=True).variables[wanted["key"]] = wanted["value"]
        return answer({k: {"value": v} for k, v in self.repo("spaces", name).variables.items()})

    def validate(self):
        text = json.loads(self.body)["content"]
        data = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}
        bad = [
            k for k in ("license", "library_name", "sdk") if not isinstance(data.get(k, ""), str)
        ]
        if data.get("model-index"):
            result = data["model-index"][0]["results"][0]
            kind = result["dataset"]["type"]
            bad += ["dataset.type"] * (not re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", kind))
        for name in [*data.get("datasets", []), data.get("base_model", "a/b")]:
            bad += ["id"] * (not re.fullmatch(r"[\w-]+/[\w.-]+", name))
        bad += ["short_description"] * (len(data.get("short_description", "")) > 60)
        errors = [{"message": f'"{key}" is not valid'} for key in bad]
        return answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def resolve(self, name, revision, path, prefix=None):
        repo = self.repo((prefix or "models/").rstrip("/"), name)
        sha, files = self.files(repo, revision)
        if repo.gated and self.user != repo.owner:
            raise _Refused(403 if self.user else 401, "GatedRepo", "Access is restricted")
        if path not in files:
            refused = _Refused(404, "EntryNotFound", "Entry not found")
            refused.headers["X-Repo-Commit"] = sha
            raise refused
        data = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{git_id(path, data)}"'}
        if not path.endswith(LARGE):
            return 200, headers, data
        key = hashlib.sha256(data).hexdigest()
        self.hub.large[key] = data
        headers |= {"X-Linked-Etag": f'"{key}"', "X-Linked-Size": str(len(data))}
        headers["Location"] = f"{self.hub.storage}/{key}"
        if key in self.hub.xet.hashes:
            token = f"{self.hub.url}/api/models/{name}/xet-read-token/{sha}"
            headers |= {
                "X-Xet-Hash": self.hub.xet.hashes[key],
                "Link": f'<{token}>; rel="xet-auth"',
            }
        return 302, headers, b""

    def xet_token(self, kind, name, access, revision):
        self.repo(kind, name, write=access == "write" and "create_pr" not in self.query)
        found = self.hub.xet.access()
        token, expires = found["token"], found["token_expiry_unix_secs"]
        status, headers, body = answer(
            {"casUrl": self.hub.storage, "accessToken": token, "exp": expires}
        )
        headers |= {"X-Xet-Cas-Url": self.hub.storage, "X-Xet-Access-Token": token}
        return status, headers | {"X-Xet-Token-Expiration": str(expires)}, body

    # Storage

    def put(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(400, message="damaged upload")
        self.hub.large[oid] = self.body
        return 200, {}, b""

    def get(self, oid):
        return self.part_of(self.hub.large[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def part_of(self, data, headers):
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(match[1]), int(match[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return 206, headers, data[first : last + 1]
        return 200, headers, data

    def put_xorb(self, xorb):
        self.hub.xet.xorbs[xorb] = self.body
        return answer({"was_inserted": True})

    def put_shard(self):
        self.hub.xet.add_shard(self.body)
        return answer({"result": 1})

    def places(self, file):
        # Clients ask for 256 MB at a time, so all of a file here; some look beyond its end.
        first = re.match(r"bytes=(\d+)", self.headers.get("Range") or "bytes=0")[1]
        if int(first) >= self.hub.xet.size(file):
            raise _Refused(416)
        return answer(self.hub.xet.places(file))

    def get_xorb(self, xorb):
        return self.part_of(self.hub.xet.xorbs[xorb], {})


def answer(content: object, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(content).encode()


def git_id(path: str, data: bytes) -> str:
    """What git would call the file: for a large one, the id of its pointer."""
    if path.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry(path: str, data: bytes) -> dict:
    found = {"type": "file", "path": path, "size": len(data), "oid": git_id(path, data)}
    if path.endswith(LARGE):
        found["lfs"] = {"oid": git_id(path, data), "size": len(data), "pointerSize": 134}
    return found


NAME, REVISION = r"(?P<name>[^/]+/[^/]+)", r"(?P<revision>.+)"
KIND = r"/api/(?P<kind>models|datasets|spaces)/"
HUB: list[tuple[str, str, Callable]] = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/spaces/{NAME}/variables", _Handler.variables),
    ("GET", rf"{KIND}{NAME}", _Handler.info),
    ("GET", rf"{KIND}{NAME}/revision/{REVISION}", _Handler.info),
    ("GET", rf"{KIND}{NAME}/auth-check/write", _Handler.auth_check),
    ("GET", rf"{KIND}{NAME}/tree/(?P<revision>[^/]+)", _Handler.tree),
    ("GET", rf"{KIND}{NAME}/tree/(?P<revision>[^/]+)/(?P<folder>.+)", _Handler.tree),
    ("POST", rf"{KIND}{NAME}/paths-info/{REVISION}", _Handler.paths_info),
    ("POST", rf"{KIND}{NAME}/preupload/{REVISION}", _Handler.preupload),
    ("POST", rf"{KIND}{NAME}/commit/{REVISION}", _Handler.commit),
    ("POST", rf"{KIND}{NAME}/branch/(?P<branch>.+)", _Handler.branch),
    ("GET", rf"{KIND}{NAME}/xet-(?P<access>read|write)-token/{REVISION}", _Handler.xet_token),
    (
        "POST",
        rf"/(?P<prefix>datasets/|spaces/)?{NAME}\.git/info/lfs/objects/batch",
        _Handler.lfs_batch,
    ),
    *(
        (
            method,
            rf"/(?P<prefix>datasets/|spaces/)?{NAME}/resolve/(?P<revision>refs/pr/\d+|[^/]+)/(?P<path>.+)",
            _Handler.resolve,
        )
        for method in ("HEAD", "GET")
    ),
]
STORAGE: list[tuple[str, str, Callable]] = [
    ("PUT", r"/(?P<oid>[0-9a-f]{64})", _Handler.put),
    ("HEAD", r"/(?P<oid>[0-9a-f]{64})", _Handler.get),
    ("GET", r"/(?P<oid>[0-9a-f]{64})", _Handler.get),
    ("POST", r"/v1/xorbs/default/(?P<xorb>[0-9a-f]{64})", _Handler.put_xorb),
    ("POST", r"/v1/shards", _Handler.put_shard),
    ("GET", r"/v1/reconstructions/(?P<file>[0-9a-f]{64})", _Handler.places),
    ("GET", r"/xorb/(?P<xorb>[0-9a-f]{64})", _Handler.get_xorb),
]
