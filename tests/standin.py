"""A stand-in for an OpenAI-compatible provider: a process of its own, over real HTTP, that counts and misbehaves on request.

    python tests/standin.py        prints its port; GET /counts gives what arrived
    with Running() as provider:    the same in a test: provider.url, provider.counts()

What it does is written in the question; without a mark it answers with the question's last word, as a stream when asked for one.
Once each, then well: `[429]`, `[429 date]`, `[500]`, `[503]`. Always: `[429 always]`, `[no money]`, `[504]`, `[bad request]`, `[case]`,
`[filter error]`, `[slow]`, `[drip]`, `[half]`, `[half stream]`, `[wrong json]`, `[html]`, `[no choices]`, `[null choices]`,
`[odd choices]`, `[error 200]`, `[refuse]`, `[filter]`, `[sensitive]`, `[cut]`, `[broken off]`, `[parts]`, `[think]`, `[end of thought]`,
`[reasoning]`, `[half a letter]`, `[no usage]`, `[long thought]`, `[my key]`, `[no stream]`, and what some models do not take:
`[no temperature]`, `[other field]`, `[stream only]`.
"""

from __future__ import annotations

import email.utils
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SEEN: Counter[str] = Counter()
ANSWERED: Counter[str] = Counter()
STATE: dict[str, Any] = {"now": 0, "most": 0, "keys": set(), "headers": set(), "pictures": 0, "sounds": [], "bytes": 0, "delay": 0.0}
LOCK = threading.Lock()


class Running:
    """A stand-in in a process of its own: its address, and what it counted."""

    def __init__(self, delay: float = 0.0) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, str(delay)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def counts(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + "/counts") as reply:
            found: dict[str, Any] = json.load(reply)
            return found

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        with LOCK:
            told = {"seen": dict(SEEN), "answered": dict(ANSWERED), "most": STATE["most"], "pictures": STATE["pictures"]}
            told |= {"keys": sorted(STATE["keys"]), "headers": sorted(STATE["headers"]), "sounds": STATE["sounds"], "bytes": STATE["bytes"]}
        self.reply(200, told)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        content = body["messages"][-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        question = " ".join(part["text"] for part in parts if part["type"] == "text")
        with LOCK:
            STATE["now"] += 1
            STATE["most"] = max(STATE["most"], STATE["now"])
            STATE["keys"].add(self.headers.get("authorization", ""))
            STATE["headers"] |= {name.lower() for name in self.headers}
            STATE["bytes"] += int(self.headers["content-length"])
            STATE["sounds"] += [part["input_audio"] for part in parts if part["type"] == "input_audio"]
            STATE["pictures"] += sum(part["type"] == "image_url" for part in parts)
            SEEN[question] += 1
            first = SEEN[question] == 1
        try:
            time.sleep(STATE["delay"])
            self.behave(question, body, first)
            with LOCK:
                ANSWERED[question] += 1
        except OSError:
            self.close_connection = True  # the client gave up waiting
        finally:
            with LOCK:
                STATE["now"] -= 1

    def behave(self, question: str, body: dict[str, Any], first: bool) -> None:
        if self.misbehave(question, body, first):
            return None
        said = question.split()[-1]
        message: dict[str, Any] = {"role": "assistant", "content": said}
        finish, words = "stop", len(question.split())
        usage: dict[str, Any] | None = {"prompt_tokens": words, "completion_tokens": 1, "total_tokens": words + 1}
        if "[refuse]" in question:
            message = {"role": "assistant", "content": None, "refusal": "I would rather not."}
        if "[filter]" in question:
            message["content"], finish = "", "content_filter"
        if "[sensitive]" in question:
            message["content"], finish = "", "sensitive"
        if "[cut]" in question:
            finish = "length"
        if "[broken off]" in question:
            finish = "network_error"
        if "[parts]" in question:
            message["content"] = [
                {"type": "reasoning", "text": "A or B?"},
                {"type": "text", "text": said[:1]},
                {"type": "text", "text": said[1:]},
            ]
        if "[think]" in question:
            message["content"] = f"<think>is it A or B?\n</think>\n{said}"
        if "[end of thought]" in question:
            message["content"] = f"is it A or B?\n</think>\n\n{said}"
        if "[reasoning]" in question:
            message["reasoning_content"] = "is it A or B?"
        if "[half a letter]" in question:
            message["content"] = f"{said}\ud83d"
        if "[my key]" in question:
            message["content"] = f"{said} {self.headers['authorization'].removeprefix('Bearer ')}"
        if "[no usage]" in question:
            usage = None
        if "[long thought]" in question:
            usage = {"prompt_tokens": 2, "completion_tokens": 100_000, "completion_tokens_details": {"reasoning_tokens": 99_999}}
        if body.get("stream") and "[no stream]" not in question:
            return self.stream(message, finish, usage, half="[half stream]" in question)
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return self.reply(200, {"id": "chat-1", "model": "stand-in-2026", "choices": [choice], "usage": usage})

    def misbehave(self, question: str, body: dict[str, Any], first: bool) -> bool:
        """Answer with something that is no answer; False when the question asks for none of it."""
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        date = email.utils.formatdate(time.time() + 2, usegmt=True)
        soon = {"retry-after": "0.05"}
        once: dict[str, tuple[int, dict[str, Any], dict[str, str]]] = {
            "[429]": (429, {"error": {"message": f"slow down, sk-abcdefghijklmnop, {key}", "code": "rate_limit"}}, soon),
            "[429 date]": (429, {"error": {"message": "slow down"}}, {"retry-after": date}),
            "[500]": (500, {"error": {"message": "oops"}}, soon),
            "[503]": (503, {"error": {"message": "overloaded"}}, soon),
        }
        always: dict[str, tuple[int, dict[str, Any], dict[str, str]]] = {
            "[429 always]": once["[429]"],
            "[no money]": (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, soon),
            "[504]": (504, {"error": {"message": "gateway"}}, {"retry-after": "0"}),
            "[bad request]": (400, {"error": {"message": f"no such model, sk-abcdefghijklmnop, {key}", "code": "model_not_found"}}, {}),
            "[case]": (404, {"error": {"message": "no such model; names are case-sensitive content"}}, {}),
            "[filter error]": (400, {"error": {"message": "inappropriate", "code": "data_inspection_failed"}}, {}),
            "[no choices]": (200, {"id": "x", "choices": []}, {}),
            "[null choices]": (200, {"id": "x", "choices": None, "usage": []}, {}),
            "[odd choices]": (200, {"id": 7, "choices": {"message": "yes"}}, {}),
            "[error 200]": (200, {"error": {"message": f"upstream is down, {key}", "code": 502}}, {}),
        }
        for mark, told in ((once if first else {}) | always).items():
            if mark in question:
                self.reply(*told)
                return True
        if "[no temperature]" in question and "temperature" in body:
            message = "Unsupported value: 'temperature' does not support 0.0 with this model."
        elif "[other field]" in question and "max_tokens" in body:
            message = "Unsupported parameter: use 'max_completion_tokens' instead."
        elif "[stream only]" in question and not body.get("stream"):
            message = "This model only support stream mode, please enable the stream parameter to access the model."
        else:
            return self.broken(question)
        self.reply(400, {"error": {"message": message}})
        return True

    def broken(self, question: str) -> bool:
        """Something that is not even of the API's form."""
        if "[slow]" in question:
            time.sleep(3)
        if "[wrong json]" in question:
            self.send(200, b'{"choices": [{"mess')
        elif "[html]" in question:
            key = self.headers.get("authorization", "")
            self.send(200, f"<html><body>502 Bad gateway {key}</body></html>".encode(), {"content-type": "text/html"})
        elif "[half]" in question or "[drip]" in question:
            self.send_response(200)
            self.send_header("content-length", "5000")
            self.end_headers()
            for _ in range(30 if "[drip]" in question else 0):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
            self.wfile.write(b'{"choices": [')
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            return False
        return True

    def stream(self, message: dict[str, Any], finish: str, usage: dict[str, Any] | None, *, half: bool) -> None:
        """The same answer as deltas, a few characters each."""
        events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
        for name in ("reasoning_content", "content", "refusal"):
            text = message.get(name) or ""
            events += [{"choices": [{"index": 0, "delta": {name: text[i : i + 2]}}]} for i in range(0, len(text), 2)]
        if not half:
            events += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, {"choices": [], "usage": usage}]
        lines = [f"data: {json.dumps({'id': 'chat-1', 'model': 'stand-in-2026', **event}, ensure_ascii=False)}\n\n" for event in events]
        ending = "" if half else "data: [DONE]\n\n"
        self.send(200, (": keep alive\n\n" + "".join(lines) + ending).encode(), {"content-type": "text/event-stream"})

    def reply(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(body).encode(), headers)

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


if __name__ == "__main__":
    STATE["delay"] = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    print(server.server_port, flush=True)
    server.serve_forever()
