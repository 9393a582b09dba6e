"""A stand-in for an OpenAI-compatible provider: a process of its own, over real HTTP, that counts and misbehaves on request.

    python tests/standin.py        prints its port; GET /counts gives what arrived

What it does is written in the question: `[429]`, `[500]` once each, `[429 always]`, `[slow]`, `[half]`, `[wrong json]`, `[no choices]`,
`[refuse]`, `[filter]`, `[filter error]`, `[cut]`, `[no temperature]`, `[think]`; else it answers with the question's last word.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SEEN: Counter[str] = Counter()
ANSWERED: Counter[str] = Counter()
STATE: dict[str, Any] = {"now": 0, "most": 0, "keys": set(), "pictures": 0, "delay": 0.0}
LOCK = threading.Lock()


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        with LOCK:
            told = {"seen": dict(SEEN), "answered": dict(ANSWERED), "most": STATE["most"], "pictures": STATE["pictures"]}
            told["keys"] = sorted(STATE["keys"])
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
            STATE["pictures"] += sum(part["type"] == "image_url" for part in parts)
            SEEN[question] += 1
            first = SEEN[question] == 1
        try:
            time.sleep(STATE["delay"])
            self.behave(question, body, first)
            with LOCK:
                ANSWERED[question] += 1
        finally:
            with LOCK:
                STATE["now"] -= 1

    def behave(self, question: str, body: dict[str, Any], first: bool) -> None:
        message: dict[str, Any] = {"role": "assistant", "content": question.split()[-1]}
        finish = "stop"
        if "[429 always]" in question or ("[429]" in question and first):
            return self.reply(429, {"error": {"message": "slow down, sk-abcdefghijklmnop", "code": "rate_limit"}}, {"retry-after": "0.05"})
        if "[500]" in question and first:
            return self.reply(500, {"error": {"message": "oops"}}, {"retry-after": "0.05"})
        if "[no temperature]" in question and "temperature" in body:
            return self.reply(400, {"error": {"message": "Unsupported value: 'temperature' does not support 0.0 with this model."}})
        if "[other field]" in question and "max_tokens" in body:
            return self.reply(400, {"error": {"message": "Unsupported parameter: use 'max_completion_tokens' instead."}})
        if "[bad request]" in question:
            return self.reply(400, {"error": {"message": "no such model", "code": "model_not_found"}})
        if "[filter error]" in question:
            return self.reply(400, {"error": {"message": "inappropriate", "code": "data_inspection_failed"}})
        if "[slow]" in question:
            time.sleep(3)
        if "[wrong json]" in question:
            return self.send(200, b'{"choices": [{"mess')
        if "[no choices]" in question:
            return self.reply(200, {"id": "x", "choices": []})
        if "[half]" in question:
            self.send_response(200)
            self.send_header("content-length", "5000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        if "[refuse]" in question:
            message = {"role": "assistant", "content": None, "refusal": "I would rather not."}
        if "[filter]" in question:
            message, finish = {"role": "assistant", "content": ""}, "content_filter"
        if "[cut]" in question:
            finish = "length"
        if "[think]" in question:
            message["content"] = f"<think>is it A or B?\n</think>\n{message['content']}"
        words = len(question.split())
        usage = {"prompt_tokens": words, "completion_tokens": 1, "total_tokens": words + 1}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return self.reply(200, {"id": "chat-1", "model": "stand-in-2026", "choices": [choice], "usage": usage})

    def reply(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(body).encode(), headers)

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    STATE["delay"] = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    print(server.server_port, flush=True)
    server.serve_forever()
