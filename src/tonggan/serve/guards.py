"""What keeps a served model safe: loopback by default, data URIs only, bounded bodies, no foreign web page as a caller."""

from __future__ import annotations

import hmac
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tonggan.types import UsageError

SIGN_IN = "/sign-in"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "[::1]", "testserver"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request."""

    body_bytes: int = 32 * 1024 * 1024
    items: int = 256
    labels: int = 1000
    prompts: int = 5000
    """Labels times templates."""
    results: int = 100
    answers: int = 16
    """To one conversation."""
    beams: int = 16


class BodyLimit:
    """ASGI middleware: answers 413 once a body is larger than `most` bytes, whatever its headers promised."""

    def __init__(self, app: Any, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(("/v1/", SIGN_IN)):
            await self._app(scope, receive, send)
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._most:
                await self._refuse(send)
                return
        replayed = False

        async def replay() -> Any:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)

    async def _refuse(self, send: Any) -> None:
        told = {"message": f"the request is larger than {self._most} bytes", "type": "invalid_request_error", "param": None, "code": None}
        content = json.dumps({"error": told}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, api_key: str | None) -> None:
    """Listening beyond this machine needs a key: without one anybody on the network could use the model and read the index."""
    if not is_loopback(host) and not api_key:
        raise UsageError(f"--host {host} would be reachable from other machines; set TONGGAN_API_KEY to a secret first")


def refusal(headers: Mapping[str, str], *, loopback: bool, api_key: str | None) -> tuple[int, str] | None:
    """HTTP status and reason when a request must not be served, else None.

    On loopback the Host header must name this machine, and so must the Origin of a browser: otherwise any web page could
    rebind its name to 127.0.0.1 and read the index through the visitor's browser.
    """
    if api_key:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), api_key.encode()):
            return 401, "missing or wrong API key: send 'Authorization: Bearer KEY'"
        return None
    if loopback:
        for name in ("host", "origin"):
            value = headers.get(name, "")
            bare = value.split("://", 1)[-1]
            bare = bare if bare.startswith("[") and bare.endswith("]") else bare.rsplit(":", 1)[0] if ":" in bare else bare
            if value and bare.lower() not in LOOPBACK_NAMES:
                return 403, f"{name} {value!r} is not this machine"
    return None
