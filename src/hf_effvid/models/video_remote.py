"""Download of a video over http(s), bounded and confined to public hosts. Standard library only."""

import http.client
import ipaddress
import os
import socket
import ssl
import time
from urllib.parse import urljoin, urlsplit

from .video_errors import VideoNotFound, VideoNotReadable, VideoSourceNotAllowed, VideoTimeout, VideoTooLarge


MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 1 << 16


def download(url, limits, allow_remote):
    """Fetch a URL into memory.

    Every hop is resolved once, refused if any of its addresses is not globally routable, and connected to by the
    very address that was checked, so that a name cannot change its answer in between (DNS rebinding).

    Args:
        url: http or https URL.
        limits: Gives `max_download_bytes` and `timeout`.
        allow_remote: Must be true; the default of every caller is False.

    Returns:
        The body as bytes.

    Raises:
        VideoSourceNotAllowed: without permission, offline, for a private host or a foreign scheme.
        VideoTooLarge, VideoTimeout, VideoNotFound, VideoNotReadable: as their names say.
    """
    if not allow_remote:
        raise VideoSourceNotAllowed(url, "a URL", "Pass allow_remote=True to download it, or give a local file")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise VideoSourceNotAllowed(url, "a URL while HF_HUB_OFFLINE is set", "Unset it, or give a local file")
    end = time.monotonic() + limits.timeout
    hop = url
    for _ in range(MAX_REDIRECTS + 1):
        connection, target = _prepare(hop, url, end)
        try:
            connection.request("GET", target, headers={"User-Agent": "hf_effvid", "Accept-Encoding": "identity"})
            response = connection.getresponse()
            if response.status in _REDIRECTS:
                hop = urljoin(hop, response.getheader("Location") or "")
                continue
            if response.status != 200:
                found = f"the server answered {response.status} {response.reason}"
                raise VideoNotFound(url, found, "Check the URL")
            return _read_body(response, url, limits, end, connection.socket)
        except TimeoutError:
            raise _timeout(url, limits) from None
        except (OSError, http.client.HTTPException) as error:
            raise VideoNotReadable(url, f"the download failed ({error})", "Try again") from None
        finally:
            connection.close()
    raise VideoSourceNotAllowed(url, f"more than {MAX_REDIRECTS} redirects", "Give the final URL")


def resolve_public(host, port, url):
    """Return one address of `host`, after checking that all of them are globally routable."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError) as error:
        raise VideoNotFound(url, f"host {host!r} cannot be resolved ({error})", "Check the URL") from None
    addresses = [answer[4][0] for answer in answers]
    for address in addresses:
        if not is_public(address):
            raise VideoSourceNotAllowed(
                url, f"host {host!r} resolves to {address}, which is no public address", "Give a local file instead"
            )
    return addresses[0]


def is_public(address):
    """Whether an IP address is globally routable, also when it wraps an IPv4 one (mapped, 6to4, NAT64, Teredo)."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback or ip.is_link_local:
        return False
    if ip.version == 6:
        wrapped = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            wrapped.append(ipaddress.ip_address(int(ip) & 0xFFFFFFFF))
        if any(inner is not None and not is_public(str(inner)) for inner in wrapped):
            return False
    return ip.is_global


def _prepare(hop, url, end):
    """Check one hop and return (connection that is not open yet, request target)."""
    try:
        parts = urlsplit(hop)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise VideoSourceNotAllowed(url, f"a malformed URL {hop!r} ({error})", "Check the URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise VideoSourceNotAllowed(url, f"a redirect to {hop!r}", "Only http and https URLs are followed")
    if parts.username is not None or parts.password is not None:
        raise VideoSourceNotAllowed(url, "a URL with credentials", "Download the file first")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(not 33 <= ord(letter) <= 126 for letter in target):
        raise VideoSourceNotAllowed(url, "a URL with unescaped characters", "Percent-encode it")
    address = resolve_public(parts.hostname, port, url)
    seconds = max(end - time.monotonic(), 0.001)
    return _PinnedConnection(parts.hostname, port, address, parts.scheme == "https", seconds), target


class _PinnedConnection(http.client.HTTPConnection):
    """A connection to an address that was checked, with the host name kept for TLS and the Host header."""

    def __init__(self, host, port, address, tls, seconds):
        super().__init__(host, port, timeout=seconds)
        self._address = address
        self._tls = tls
        self.default_port = 443 if tls else 80  # what the Host header leaves out
        self.socket = None

    def connect(self):
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._tls:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
        self.socket = self.sock  # http.client forgets its own while the body is still to be read


def _read_body(response, url, limits, end, connected):
    declared = response.getheader("Content-Length") or ""
    expected = int(declared) if declared.isdigit() else None
    if expected is not None and expected > limits.max_download_bytes:
        raise _too_large(url, f"{expected} bytes", limits)
    chunks, total = [], 0
    while True:
        seconds = end - time.monotonic()
        if seconds <= 0:
            raise _timeout(url, limits)
        # Each wait is bounded by what is left of the whole budget: a server that drips bytes gains nothing.
        connected.settimeout(seconds)
        chunk = response.read1(_CHUNK)
        if not chunk:
            break
        total += len(chunk)
        if total > limits.max_download_bytes:
            raise _too_large(url, f"more than {limits.max_download_bytes} bytes", limits)
        chunks.append(chunk)
    if expected is not None and total < expected:
        raise VideoNotReadable(url, f"the download ended after {total} of {expected} bytes", "Try again")
    return b"".join(chunks)


def _too_large(url, found, limits):
    return VideoTooLarge(
        url, f"{found}, the limit is {limits.max_download_bytes}", "Raise VideoLimits.max_download_bytes"
    )


def _timeout(url, limits):
    return VideoTimeout(url, f"not downloaded within {limits.timeout:g} s", "Raise VideoLimits.timeout")
