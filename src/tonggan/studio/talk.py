"""The page's tab in which one talks with the model: words, pictures, sounds and clips, answers as they come."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from tonggan.serve.engine import Engine
from tonggan.types import Answer, Audio, ChatOptions, Image, Message, Part, Text, TongganError, Video

SAYS: dict[str, dict[str, str]] = {
    "en": {
        "chat": "Chat",
        "hint": "Ask about a picture, a sound or a clip, or simply say something",
        "again": "Start anew",
        "stop": "Stop",
        "nothing": "Say something first.",
        "cut": " … (cut: there was no room for more)",
        "empty": "(The model said nothing.)",
    },
    "zh": {
        "chat": "对话",
        "hint": "就图片、声音或视频提问，也可以直接说话",
        "again": "重新开始",
        "stop": "停止",
        "nothing": "请先输入内容。",
        "cut": "……（回答超出可用的长度，已截断）",
        "empty": "（模型没有给出回答。）",
    },
}
_READY = gr.update(submit_btn=True, stop_btn=False)
_KINDS: dict[str, type[Image] | type[Audio] | type[Video]] = {"image": Image, "audio": Audio, "video": Video}


class Talk:
    """The tab's parts, and what happens when something is said."""

    def __init__(self, engine: Engine, languages: dict[str, str], told: Callable[[TongganError, str], str]) -> None:
        self._engine, self._languages, self._told = engine, languages, told
        # Who takes one message is asked without what went before, and may be shown a picture, or played a sound, without words.
        self._alone = not (engine.model.remembers and engine.model.instructed)
        says = SAYS["en"]
        takes = [kind for kind in _KINDS if kind in engine.model.modalities]
        with gr.Tab(says["chat"], id="chat") as self.tab:
            self.shown = gr.Chatbot(height=440, show_label=False, sanitize_html=True, buttons=[], elem_id="talk")
            self.box = gr.MultimodalTextbox(
                placeholder=says["hint"], show_label=False, sources=["upload"] if takes else [], file_types=takes or None,
                file_count="multiple", elem_id="say",
            )  # fmt: skip
            self.again = gr.Button(says["again"], elem_id="again")
        self.said = gr.State([])

    def spoken(self) -> list[Any]:
        """The parts whose words change with the language."""
        return [self.tab, self.box, self.again]

    @staticmethod
    def speak(lang: str) -> list[Any]:
        """Their words."""
        says = SAYS[lang]
        return [gr.update(label=says["chat"]), gr.update(placeholder=says["hint"]), gr.update(value=says["again"])]

    def listen(self, language: gr.Radio) -> None:
        """Answer what is said."""
        # The files themselves reach the model, not what Gradio would make of them.
        event = self.box.submit(
            self._answer, [self.box, self.shown, self.said, language], [self.shown, self.said, self.box],
            preprocess=False, api_visibility="private",
        )  # fmt: skip
        self.box.stop(lambda: _READY, None, self.box, cancels=[event], api_visibility="private")
        anew = [self.shown, self.said, self.box]
        gr.on([self.again.click, self.shown.clear], lambda: ([], [], _READY), None, anew, cancels=[event], api_visibility="private")

    def _answer(
        self, sent: dict[str, Any] | None, shown: list[Any] | None, said: list[Message] | None, language: str
    ) -> Iterator[tuple[Any, ...]]:
        lang = self._languages[language]
        words, files = ((sent or {}).get("text") or "").strip(), (sent or {}).get("files") or []
        before, history = list(shown or []), list(said or [])
        try:
            if not words and not (files and self._alone):
                gr.Warning(SAYS[lang]["nothing"], title="")
                yield before, history, gr.skip()
                return
            parts: tuple[Part, ...] = (*(_part(file["path"]) for file in files), *([Text(words)] if words else []))
            said_before = history if self._engine.model.remembers else []
            pieces = self._engine.chat([*said_before, Message("user", parts)], ChatOptions())
        except TongganError as error:
            gr.Warning(self._told(error, lang), title="")
            yield before, history, gr.skip()
            return
        shown_now = [*({"path": file["path"]} for file in files), *([words] if words else [])]
        asked = [*before, *({"role": "user", "content": content} for content in shown_now)]
        yield asked, history, gr.update(value=None, submit_btn=False, stop_btn=True)
        text = ""
        try:
            while True:
                text += next(pieces)
                yield [*asked, {"role": "assistant", "content": text}], history, gr.skip()
        except StopIteration as end:
            answer: Answer = end.value
        finally:
            pieces.close()
        if answer.outcome == "error":
            # Neither the question nor what came of it is remembered: it stands in the box again.
            gr.Warning(self._told(TongganError(answer.error or ""), lang), title="")
            yield before, history, {**_READY, "value": sent}
            return
        told = (answer.text or SAYS[lang]["empty"]) + (SAYS[lang]["cut"] if answer.outcome == "truncated" else "")
        history += [Message("user", parts), Message("assistant", (Text(answer.text),))]
        yield [*asked, {"role": "assistant", "content": told}], history, _READY


def _part(path: str) -> Part:
    """An uploaded file, by its type."""
    kind = (mimetypes.guess_type(path)[0] or "image").split("/")[0]
    return _KINDS.get(kind, Image).open(path)
