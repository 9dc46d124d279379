"""Files of the hub: fetched once, checked, kept. The hub is on this machine, its users are processes of their own."""

import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from zoo.models.entries import HubFile, WeightTag
from zoo.models.fetch import hub_file

REPOSITORY, FILE = "timm/tiny.a1_in1k", "model.safetensors"
FIRST, SECOND = "1" * 40, "2" * 40
CONTENT = save({"weight": np.arange(1000, dtype=np.float32)})
NEWER = save({"weight": np.ones(1000, np.float32)})
CLIENT = """
import json, sys
from huggingface_hub import hf_hub_download
from zoo.models import fetch
from zoo.models.entries import HubFile, WeightTag

fetch._ANSWER_SECONDS = 1
said = []
for call in json.loads(sys.argv[1]):
    tag = WeightTag("timm/tiny", HubFile(**call), (0,), (1,), 8, 1.0, "bilinear", 8, 50.0, "Apache-2.0")
    try:
        said.append(str(fetch.hub_file(tag)))
    except FileNotFoundError as error:
        said.append(f"error: {error}")
print(json.dumps(said))
"""


class Hub(http.server.ThreadingHTTPServer):
    """The part of the hub's protocol that fetching one file needs; what it was asked is in `asked`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.files = {FIRST: CONTENT}  # a file a commit
        self.main = FIRST
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, range
        self.cuts: list[int] = []  # bytes after which the next answers break off
        self.stalls = threading.Event()  # the next answer stops half way until this is set
        self.stalls.set()
        self.refusal: tuple[int, str] | None = None
        self.sent = lambda content: content  # what goes over the wire instead of the content

    def ranges(self, method="GET"):
        """The range of each request for a file; the library also asks for things of its own, once a day."""
        return [span for asked, path, span in self.asked if asked == method and "/resolve/" in path]


class Answer(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        hub = self.server
        hub.asked.append((self.command, self.path, self.headers["Range"]))
        repository, _, place = self.path.strip("/").partition("/resolve/")
        revision, _, name = place.partition("/")
        commit = hub.main if revision == "main" else revision
        refusal = hub.refusal
        if refusal is None and (repository, commit in hub.files, name) != (REPOSITORY, True, FILE):
            code = "RepoNotFound" if repository != REPOSITORY else "EntryNotFound" if name != FILE else None
            refusal = 404, code or "RevisionNotFound"
        if refusal:
            self.send_response(refusal[0])
            self.send_header("X-Error-Code", refusal[1])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = hub.files[commit]
        digest = hashlib.sha256(content).hexdigest()
        sent = hub.sent(content) if body else content
        start = int((self.headers["Range"] or "bytes=0-")[len("bytes=") : -1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(sent) - 1}/{len(sent)}")
        for name, value in {
            "ETag": f'"{digest}"',
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": len(content),
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
            "Content-Length": len(sent) - start,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if not body:
            return
        end = hub.cuts.pop(0) if hub.cuts else len(sent)
        if not hub.stalls.is_set():
            self.wfile.write(sent[start : len(sent) // 2])
            self.wfile.flush()
            hub.stalls.wait(30)
            self.close_connection = True
            return
        self.wfile.write(sent[start:end])
        if end < len(sent):
            self.close_connection = True


@pytest.fixture
def hub():
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.stalls.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "hf"


def environment(home, address, offline=False):
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    ours |= {"HF_HOME": str(home), "HF_ENDPOINT": address, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return ours | ({"HF_HUB_OFFLINE": "1"} if offline else {})


def fetch(home, hub, *calls, offline=False, code=CLIENT):
    """What another process gets for each call: a path, or the text of the error."""
    calls = [{"repository": REPOSITORY, **call} for call in calls or [{}]]
    address = hub if isinstance(hub, str) else hub.address
    command = [sys.executable, "-W", "error", "-c", code, json.dumps(calls)]
    done = subprocess.run(
        command, env=environment(home, address, offline), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    fetch.stderr = done.stderr
    return said if len(said) > 1 else said[0]


def snapshots(home):
    return list((home / "hub").glob(f"models--*/snapshots/*/{FILE}"))


def blob(path):
    """The file behind a snapshot's link."""
    return Path(path).resolve()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def alter(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def copied(path):
    """Makes a file of its own out of a snapshot's link, as copying without links does; the blob goes."""
    path, original = Path(path), blob(path)
    path.unlink()
    shutil.move(original, path)
    return path


def forget(home):
    """Leaves the cache as other tools would have filled it: without notes on what was checked."""
    for note in (home / "hub").glob("*/.zoo"):
        shutil.rmtree(note)


def test_a_file_is_fetched_once_and_then_used_without_a_request(home, hub):
    path = fetch(home, hub)
    assert path == str(home / "hub" / "models--timm--tiny.a1_in1k" / "snapshots" / FIRST / FILE)
    assert Path(path).read_bytes() == CONTENT
    np.testing.assert_array_equal(load_file(path)["weight"], np.arange(1000))
    assert fetch.stderr == ""  # no progress bar where nobody watches
    assert len(hub.ranges()) == 1
    hub.asked.clear()
    assert fetch(home, hub, {}, {}) == [path, path]
    assert not hub.asked


def test_the_first_commit_is_kept_until_the_folder_is_deleted(home, hub):
    path = fetch(home, hub)
    hub.files[SECOND], hub.main = NEWER, SECOND
    another_tool = (
        f"from huggingface_hub import hf_hub_download as fetch; fetch({REPOSITORY!r}, {FILE!r})\nprint('[0]')"
    )
    fetch(home, hub, code=another_tool)
    assert len(snapshots(home)) == 2
    assert fetch(home, hub) == path
    shutil.rmtree(home / "hub" / "models--timm--tiny.a1_in1k")
    assert Path(fetch(home, hub)).read_bytes() == NEWER


def test_a_pinned_commit_is_what_is_fetched(home, hub):
    hub.files[SECOND], hub.main = NEWER, SECOND
    path = fetch(home, hub, {"revision": FIRST, "sha256": hashlib.sha256(CONTENT).hexdigest()})
    assert Path(path).read_bytes() == CONTENT


def test_a_broken_connection_is_taken_up_where_it_stopped(home, hub):
    hub.files[FIRST] = save({"weight": np.arange(6_000_000, dtype=np.float32)})
    hub.cuts = [22_000_000]
    assert Path(fetch(home, hub)).read_bytes() == hub.files[FIRST]
    first, second = hub.ranges()
    assert first is None
    assert 10_000_000 <= int(second[len("bytes=") : -1]) <= 22_000_000


def test_a_download_that_is_killed_leaves_no_file(home, hub):
    hub.stalls.clear()
    call = json.dumps([{"repository": REPOSITORY}])
    with subprocess.Popen([sys.executable, "-c", CLIENT, call], env=environment(home, hub.address)) as process:
        deadline = time.monotonic() + 30
        while not list((home / "hub").glob("*/blobs/*.incomplete")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    assert not snapshots(home)
    assert [path.suffix for path in (home / "hub").glob("*/blobs/*")] == [".incomplete"]
    hub.stalls.set()
    assert Path(fetch(home, hub)).read_bytes() == CONTENT


def test_an_answer_of_another_length_leaves_no_file(home, hub):
    hub.sent = lambda content: content[:-8]
    assert "could not be fetched (Consistency check failed: file should be of size" in fetch(home, hub)
    assert not snapshots(home)
    assert not list((home / "hub").glob("*/blobs/*"))


@pytest.mark.parametrize(
    ("spoil", "noted", "plain"),
    [(truncate, True, True), (alter, True, True), (truncate, False, True), (alter, False, True), (alter, False, False)],
)
def test_a_damaged_file_is_fetched_again(spoil, noted, plain, home, hub):
    path = fetch(home, hub)
    if not plain:  # the hub's cache may keep a blob as a link into a store under yet another name
        kept = Path(path).parent / os.readlink(path)
        store = home / "hub" / "blobs" / ("a" * 64)
        store.parent.mkdir()
        shutil.move(kept, store)
        kept.symlink_to(store)
    hub.asked.clear()
    assert fetch(home, hub) == path
    assert not hub.asked
    spoil(blob(path))
    if not noted:
        forget(home)
    hub.main = "gone"  # the commit stays
    assert fetch(home, hub) == path
    assert Path(path).read_bytes() == CONTENT
    assert len(hub.ranges()) == 1


@pytest.mark.parametrize(("spoil", "noted"), [(truncate, True), (truncate, False), (alter, True)])
def test_a_damaged_copy_without_links_is_fetched_again(spoil, noted, home, hub):
    path = copied(fetch(home, hub))
    hub.asked.clear()
    assert fetch(home, hub) == str(path)
    assert not hub.asked
    spoil(path)
    if not noted:
        forget(home)
    message = fetch(home, hub, offline=True)
    assert f"'{path}' is damaged (" in message
    assert ") and could not be fetched again (HF_HUB_OFFLINE is set). Delete it, pass another file" in message
    assert fetch(home, hub) == str(path)
    assert path.read_bytes() == CONTENT


def test_offline_the_cache_is_used(home, hub):
    path = fetch(home, hub)
    hub.asked.clear()
    assert fetch(home, hub, offline=True) == path
    forget(home)
    assert fetch(home, hub, offline=True) == path
    assert not hub.asked


def test_offline_a_file_of_another_commit_serves_if_its_checksum_is_right(home, hub):
    path = fetch(home, hub)
    known = hashlib.sha256(CONTENT).hexdigest()
    found, missing = fetch(
        home, hub, {"revision": SECOND, "sha256": known}, {"revision": SECOND, "sha256": "0" * 64}, offline=True
    )
    assert found == path
    assert "is another version (" in missing
    assert "could not be fetched again (HF_HUB_OFFLINE is set)" in missing


def test_offline_a_missing_file_is_an_error_that_says_what_to_do(home, hub):
    assert fetch(home, hub, offline=True) == (
        f"error: The weights 'timm/tiny' need the file '{FILE}' of '{REPOSITORY}' on the Hugging Face hub; it is not "
        f"in '{home / 'hub' / 'models--timm--tiny.a1_in1k'}' and could not be fetched (HF_HUB_OFFLINE is set). Copy "
        "that folder here, pass another file (`weights=PATH`), or start from fresh weights (`weights=None`)."
    )
    assert not hub.asked


def test_offline_a_damaged_file_is_an_error_that_names_it(home, hub):
    path = fetch(home, hub)
    alter(blob(path))
    found, known = (hashlib.sha256(content).hexdigest()[:12] for content in (Path(path).read_bytes(), CONTENT))
    message = fetch(home, hub, offline=True)
    assert f"'{path}' is damaged (its SHA-256 starts with {found} instead of {known}) and could not be" in message


def test_a_file_with_another_checksum_is_refused_before_it_is_fetched(home, hub):
    message = fetch(home, hub, {"sha256": "0" * 64})
    known = hashlib.sha256(CONTENT).hexdigest()[:12]
    assert f"could not be fetched (the SHA-256 of the hub's starts with {known} instead of 000000000000)" in message
    assert not hub.ranges()
    fetch(home, hub)  # the same file, under a tag that does not know its checksum
    assert f"{FILE}' is another version (its SHA-256 starts with {known}" in fetch(home, hub, {"sha256": "0" * 64})


def test_a_file_that_changes_on_its_way_is_refused(home, hub):
    hub.sent = lambda content: bytes(len(content))
    first, second = fetch(home, hub, {}, {})
    assert f"{FILE}', just fetched from the Hugging Face hub, is damaged (its SHA-256" in first
    assert second == first
    hub.sent = lambda content: content
    assert Path(fetch(home, hub)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"repository": "timm/none"}, "the hub has no such repository for you"),
        ({"revision": SECOND}, "the repository has no such revision"),
        ({"name": "other.safetensors"}, "the repository has no such file"),
    ],
)
def test_what_the_hub_does_not_have_is_one_sentence(call, reason, home, hub):
    message = fetch(home, hub, call)
    assert f"and could not be fetched ({reason}). Copy" in message
    assert "http" not in message
    assert "\n" not in message


def test_a_hub_out_of_order_is_one_sentence(home, hub):
    hub.refusal = (503, "")
    assert "could not be fetched (the hub answered with status 503)" in fetch(home, hub)


def test_a_dead_network_fails_in_seconds(home):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        swallows = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        assert "could not be fetched (timed out)" in fetch(home, swallows)
        assert time.monotonic() - start < 15
    start = time.monotonic()
    assert "could not be fetched ([Errno 111] Connection refused)" in fetch(home, swallows)
    assert time.monotonic() - start < 15


def test_a_pickle_is_never_asked_for():
    tag = WeightTag("timm/tiny", HubFile(REPOSITORY, name="pytorch_model.bin"), (0,), (1,), 8, 1.0, "", 8, 50.0, "")
    with pytest.raises(ValueError, match="Only .safetensors files are taken from the hub. .*pytorch_model.bin"):
        hub_file(tag)
