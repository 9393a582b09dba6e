"""Which handles on media may be followed, and what stands behind those that may: files, data URIs, addresses on the network."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import socket
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tonggan.types import Media, MediaError

MAX_BYTES = 20_000_000
"""Largest data URI or download that `resolve` takes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which handles may be followed. Bytes, arrays and data URIs always are; paths and addresses only when allowed.

    `private_hosts` lets addresses point into the local network; a public server must leave it off.
    """

    paths: bool = False
    urls: bool = False
    private_hosts: bool = False
    max_bytes: int = MAX_BYTES
    timeout: float = 10.0


LOADER = Policy(paths=True)
"""Training and evaluation: files, never the network."""
SERVER = Policy()
"""Requests from outside: what they carry themselves, nothing of ours."""

AnyMedia = TypeVar("AnyMedia", bound=Media)


def resolve(part: AnyMedia, policy: Policy = LOADER) -> AnyMedia:
    """The part with its content at hand (a path that may be read, bytes or an array); raises `MediaError` when refused."""
    if part.path is not None:
        if not policy.paths:
            raise MediaError(part.where, "paths are not read here; send the file as a data URI")
        return part
    if part.url is None:
        return part
    if part.url[:5].lower() == "data:":
        return replace(part, url=None, data=parse_data_uri(part.url, policy.max_bytes))
    if not policy.urls:
        raise MediaError(part.where, "addresses are not followed here; send the file as a data URI or download it first")
    return replace(part, url=None, data=_download(part.url, part.where, policy))


def parse_data_uri(uri: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of `data:[type][;base64],...`; raises `MediaError` on damage and on more than `max_bytes`."""
    where = uri if len(uri) < 60 else uri[:40] + "…"
    head, comma, body = uri.partition(",")
    if head[:5].lower() != "data:" or not comma:
        raise MediaError(where, "not a data URI")
    if len(body) * 3 // 4 > max_bytes + 2:
        raise MediaError(where, f"larger than {max_bytes / 1e6:g} MB")
    if not head.lower().rstrip().endswith(";base64"):
        return urllib.parse.unquote_to_bytes(body)
    try:
        data = decode_base64(urllib.parse.unquote(body))
    except ValueError:
        raise MediaError(where, "its base64 is damaged") from None
    if not data:
        raise MediaError(where, "empty data URI")
    return data


def decode_base64(text: str) -> bytes:
    """Base64 as people write it: either alphabet, with line breaks, with or without the padding. Raises ValueError."""
    plain = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is a new address and is checked like one."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> urllib.request.Request | None:
        _check_host(newurl, self.policy)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_host(url: str, policy: Policy) -> None:
    """Refuse other schemes, and hosts inside the local network unless allowed (a request must not reach our own services)."""
    parsed = urllib.parse.urlsplit(url)
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise MediaError(url[:60], "only http and https addresses are followed")
    if policy.private_hosts:
        return
    for entry in socket.getaddrinfo(parsed.hostname, None):
        if not ipaddress.ip_address(str(entry[4][0]).split("%")[0]).is_global:
            raise MediaError(url[:60], "its host is in a private network")


def _download(url: str, where: str, policy: Policy) -> bytes:
    opener = urllib.request.build_opener(_CheckedRedirects(policy))
    try:
        _check_host(url, policy)
        with opener.open(url, timeout=policy.timeout) as reply:
            data: bytes = reply.read(policy.max_bytes + 1)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise MediaError(where, f"cannot be downloaded ({str(error)[:60]})") from None
    if len(data) > policy.max_bytes:
        raise MediaError(where, f"larger than {policy.max_bytes / 1e6:g} MB")
    return data
