"""The web page's door when the server has an API key: a browser cannot send a header, so it is asked for the key once.

It is then known by a cookie, until it is closed or the server stops. The cookie opens the page only: programs send the key itself.
"""

from __future__ import annotations

import hmac
import secrets
import urllib.parse

from tonggan.serve.guards import SIGN_IN
from tonggan.types import MissingExtra

try:
    from fastapi import Request
    from fastapi.responses import HTMLResponse, RedirectResponse, Response
except ImportError:
    raise MissingExtra("the server", "serve") from None

COOKIE = "tonggan-page"
SAYS = {
    "en": {
        "key": "API key",
        "hint": "The secret that this server was started with (<code>TONGGAN_API_KEY</code>).",
        "enter": "Enter",
        "wrong": "This is not the key of this server.",
    },
    "zh": {
        "key": "API 密钥",
        "hint": "启动服务器时在 <code>TONGGAN_API_KEY</code> 中设置的密钥。",
        "enter": "进入",
        "wrong": "密钥不正确，请重新输入。",
    },
}
_PAGE = """<!DOCTYPE html>
<html lang="{lang}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Tonggan 通感</title><style>
body {{ font: 1rem system-ui, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif }}
body {{ max-width: 24rem; margin: 20vh auto; padding: 0 1rem }}
input, button {{ font: inherit; padding: .5rem; margin: .5rem 0; box-sizing: border-box; width: 100% }}
</style></head><body><h1>Tonggan 通感</h1><form method="post" action="{action}">
<label for="key">{key}</label><input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<small>{hint}</small><p role="alert">{wrong}</p><button>{enter}</button></form></body></html>"""
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


class SignIn:
    """Asks for `api_key`, and knows the browsers that had it."""

    def __init__(self, api_key: str) -> None:
        self._key, self._token = api_key.encode(), secrets.token_urlsafe(32)

    def known(self, request: Request) -> bool:
        """Whether this is a browser that has signed in, and no other site that uses it."""
        origin = request.headers.get("origin")
        if origin and origin.partition("://")[2] != request.headers.get("host"):
            return False
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._token.encode())

    def ask(self, request: Request, wrong: bool = False) -> Response:
        """The form, in the browser's language."""
        lang = "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en"
        says = {**SAYS[lang], "wrong": SAYS[lang]["wrong"] if wrong else ""}
        return HTMLResponse(_PAGE.format(lang=lang, action=SIGN_IN, **says), status_code=401, headers=_HEADERS)

    async def enter(self, request: Request) -> Response:
        """To the page with a cookie when the form has the key, else the form again."""
        form = urllib.parse.parse_qs((await request.body()).decode("utf-8", "replace"))
        if not hmac.compare_digest(form.get("key", [""])[0].strip().encode(), self._key):
            return self.ask(request, wrong=True)
        reply = RedirectResponse("/", status_code=303)
        reply.set_cookie(COOKIE, self._token, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return reply
