"""http(s) sources: only with permission, only public hosts, bounded. A local server stands in for the internet."""

import http.server
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from hf_effvid.models import video_remote
from hf_effvid.models.video_errors import (
    VideoError,
    VideoNotFound,
    VideoNotReadable,
    VideoSourceNotAllowed,
    VideoTimeout,
    VideoTooLarge,
)
from hf_effvid.models.video_reader import VideoLimits, iterate_video, probe_video, read_video
from tests.video_corpus.cases import base_file


PUBLIC = "93.184.215.14"
DNS = {"videos.example": [PUBLIC], "rebinding.example": [PUBLIC], "mixed.example": [PUBLIC, "10.0.0.7"]}
DNS |= {"intranet.example": ["192.168.1.10"], "localhost": ["127.0.0.1"], "six.example": ["::ffff:127.0.0.1"]}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, self.headers["Host"]))
        path = urlsplit(self.path)
        action = path.path.removeprefix("/")
        if action == "redirect":
            self.send_response(302)
            self.send_header("Location", path.query)
            self.end_headers()
        elif action == "missing.mp4":
            self.send_error(404)
        elif action == "endless.mp4":
            self._send(None, lambda: self.wfile.write(bytes(1 << 16)))
        elif action == "drip.mp4":
            self._send(None, lambda: (self.wfile.write(b"x"), self.wfile.flush(), time.sleep(0.05)))
        elif action == "huge.mp4":
            self._send(10**12)
        elif action == "short.mp4":
            self._send(10**6)
            self.wfile.write(b"only this")
        else:
            data = base_file("h264.mp4")
            self._send(len(data))
            self.wfile.write(data)

    def _send(self, length, forever=None):
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        try:
            while forever is not None:
                forever()
        except OSError:
            return

    def log_message(self, *_):
        """Keep the test output clean."""


@pytest.fixture
def internet(monkeypatch):
    """A resolver with made-up names, and a server that is reached by the one public address among them."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.seen, server.resolved, server.connected = [], [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def getaddrinfo(host, port, *_, **__):
        server.resolved.append(host)
        try:
            addresses = [str(video_remote.ipaddress.ip_address(host))]
        except ValueError:
            if host not in DNS:
                raise socket.gaierror(f"no such host {host}") from None
            addresses = DNS[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    def create_connection(address, timeout=None, *_, **__):
        server.connected.append(address)
        assert address[0] == PUBLIC, f"connected to {address}, which was never checked"
        connected = socket.socket()
        connected.settimeout(timeout)
        connected.connect(server.server_address)
        return connected

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(video_remote.socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(video_remote.socket, "create_connection", create_connection)
    yield server
    monkeypatch.undo()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_video_is_fetched_by_the_address_that_was_checked(internet):
    url = "http://videos.example/clip.mp4?token=1"
    video = read_video(url, num_frames=2, allow_remote=True)
    assert video.frames.shape == (2, 3, 48, 64)
    assert video.info.source == url
    assert internet.seen == [("/clip.mp4?token=1", "videos.example")]
    assert internet.resolved == ["videos.example"], "resolving twice would let the name change its answer"
    assert internet.connected == [(PUBLIC, 80)]
    assert probe_video(url, allow_remote=True).num_frames == 24
    assert len(list(iterate_video({"path": url, "bytes": None}, target_fps=1, allow_remote=True))) == 2
    assert read_video(url, num_frames=2, allow_remote=True, isolate=True).indices == video.indices


@pytest.mark.parametrize("reading", [read_video, probe_video, lambda source: list(iterate_video(source))])
def test_not_without_permission(internet, reading):
    for source in ("http://videos.example/clip.mp4", "HTTPS://videos.example/a", {"path": "https://videos.example/a"}):
        with pytest.raises(VideoSourceNotAllowed, match="allow_remote=True"):
            reading(source)
    assert internet.resolved == []


def test_not_while_offline(internet, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(VideoSourceNotAllowed, match="HF_HUB_OFFLINE"):
        read_video("http://videos.example/clip.mp4", allow_remote=True)
    assert internet.resolved == []


PRIVATE = [
    "intranet.example",
    "mixed.example",
    "localhost",
    "six.example",
    "127.0.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "[::1]",
    "[fe80::1]",
    "[fd00::1]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_hosts_that_are_not_public(internet, host):
    for url in (f"http://{host}/clip.mp4", f"http://{host}:8080/clip.mp4"):
        with pytest.raises(VideoSourceNotAllowed, match="no public address"):
            read_video(url, allow_remote=True)
        with pytest.raises(VideoSourceNotAllowed, match="no public address"):
            read_video(f"http://videos.example/redirect?{url}", allow_remote=True)
    assert {address for address, _ in internet.connected} <= {PUBLIC}


def test_redirects_are_checked_one_by_one(internet):
    assert read_video("http://videos.example/redirect?/clip.mp4", num_frames=1, allow_remote=True).indices == [12]
    assert internet.resolved == ["videos.example"] * 2
    for target in ("file:///etc/passwd", "ftp://videos.example/a", "gopher://x/", "http://u:p@videos.example/a", "//"):
        with pytest.raises(VideoSourceNotAllowed):
            read_video(f"http://videos.example/redirect?{target}", allow_remote=True)
    with pytest.raises(VideoSourceNotAllowed, match="more than 5 redirects"):
        read_video("http://videos.example/redirect?/redirect?/redirect", allow_remote=True)


@pytest.mark.parametrize(
    "url", ["http://", "http://videos.example:99999/a", "http://videos.example/a b", "http://[::1/a"]
)
def test_malformed_urls(internet, url):
    with pytest.raises(VideoSourceNotAllowed):
        read_video(url, allow_remote=True)


def test_what_a_server_can_do_wrong(internet):
    wrong = {
        "missing.mp4": (VideoNotFound, "404"),
        "huge.mp4": (VideoTooLarge, "1000000000000 bytes"),
        "short.mp4": (VideoNotReadable, "9 of 1000000 bytes"),
        "endless.mp4": (VideoTooLarge, "more than 1000000 bytes"),
        "drip.mp4": (VideoTimeout, "not downloaded within 0.5 s"),
    }
    for name, (kind, found) in wrong.items():
        limits = VideoLimits(max_download_bytes=10**6, timeout=0.5 if kind is VideoTimeout else 60.0)
        with pytest.raises(kind, match=found) as caught:
            read_video(f"http://videos.example/{name}", allow_remote=True, limits=limits)
        assert isinstance(caught.value, VideoError)
        assert name in caught.value.source
    with pytest.raises(VideoNotFound, match="cannot be resolved"):
        read_video("http://nowhere.example/clip.mp4", allow_remote=True)


def test_tls_is_verified_for_the_name_and_not_the_address(internet):
    """The stand-in server speaks no TLS, so the handshake fails: an error, never a fallback to plain http."""
    with pytest.raises(VideoNotReadable, match="the download failed"):
        read_video("https://videos.example/clip.mp4", allow_remote=True, limits=VideoLimits(timeout=5.0))
    assert internet.connected == [(PUBLIC, 443)]
    assert internet.seen == []
