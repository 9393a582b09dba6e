"""The web page: talk, search by words or by a picture, and classify with one's own labels, as far as the model can. Chinese and English.

It talks to the same `Engine` as the HTTP API, so that what a person sees is what a program gets.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from tonggan.search import Hit
from tonggan.serve.engine import Engine
from tonggan.serve.guards import Limits
from tonggan.types import Image, MediaError, MissingExtra, Text, TongganError

if TYPE_CHECKING:
    from fastapi import FastAPI

try:
    import gradio as gr
    from PIL import Image as Pil

    from tonggan.studio.talk import Talk
except ImportError:
    raise MissingExtra("the web page", "studio") from None

_SOURCES = ["upload", "clipboard"]
_MOST = 48
_STYLE = """
#found .gallery-item > button { display: flex; flex-direction: column; overflow: hidden }
#found .gallery-item > button > img { flex: 1; min-height: 0 }
#found .caption-label { position: static; max-width: 100%; width: 100%; flex: none; max-height: 60%; overflow: hidden auto; border: 0 }
#found .caption-label, #found .caption { white-space: normal; overflow-wrap: anywhere }
.gradio-container .toast-body .toast-title { display: none }
"""
"""Captions stand below their pictures and in full, where Gradio lays them over the picture and cuts them; the title of a message is
"Error" in every language."""
LANGUAGES = {"English": "en", "中文": "zh"}
SAYS: dict[str, dict[str, str]] = {
    "en": {
        "title": "# Tonggan 通感\nSearch pictures by words or by a picture, or sort a picture into labels of your own.",
        "title_chat": "# Tonggan 通感\nTalk about pictures, sounds and clips.",
        "language": "Language",
        "search": "Search",
        "classify": "Classify",
        "words": "Words",
        "hint": "a red bird",
        "picture": "Or a picture",
        "limit": "How many",
        "found": "Found, best first",
        "labels": "Labels, one per line",
        "labels_hint": "cat\ndog\nbird",
        "to_sort": "Picture",
        "answer": "Probabilities",
        "no_query": "Type some words or give a picture.",
        "no_picture": "Give a picture first.",
        "few_labels": "Write at least two different labels, one per line.",
        "no_index": "No index is being served: start with `tonggan serve MODEL --index DIR`.",
        "count": "{} pictures can be found.",
        "unreadable": "The picture cannot be read ({}). Try another file.",
        "failed": "{}",
    },
    "zh": {
        "title": "# 通感 Tonggan\n用文字或图片搜索图片，或按您自己的标签给图片分类。",
        "title_chat": "# 通感 Tonggan\n就图片、声音和视频与模型对话。",
        "language": "语言",
        "search": "搜索",
        "classify": "分类",
        "words": "文字",
        "hint": "一只红色的鸟",
        "picture": "或者一张图片",
        "limit": "显示几张",
        "found": "搜索结果（最相近的在前）",
        "labels": "标签，每行一个",
        "labels_hint": "猫\n狗\n鸟",
        "to_sort": "图片",
        "answer": "概率",
        "no_query": "请输入文字，或上传一张图片。",
        "no_picture": "请先上传一张图片。",
        "few_labels": "请至少写两个不同的标签，每行一个。",
        "no_index": "当前没有可搜索的索引：请用 `tonggan serve 模型 --index 目录` 启动。",
        "count": "共有 {} 张图片可供搜索。",
        "unreadable": "无法读取这张图片：文件可能已损坏，或者不是图片。请换一张试试。",
        "failed": "服务器返回了错误：{}",
    },
}


def build(engine: Engine) -> gr.Blocks:
    """The page for one engine."""

    def status(lang: str) -> str:
        says = SAYS[lang]
        return says["no_index"] if engine.index is None else says["count"].format(len(engine.index))

    def find(words: str, sent: dict[str, Any] | None, limit: float, language: str) -> list[tuple[Pil.Image, str]]:
        lang = LANGUAGES[language]
        # Words win where both are given: the picture may be left over from the search before.
        query = Text(words.strip()) if (words or "").strip() else _picture(sent, lang) if sent else None
        if query is None:
            raise _error(lang, "no_query")
        if engine.index is None:
            raise _error(lang, "no_index")
        try:
            hits = engine.search(query, max(1, min(int(limit), _MOST)))
        except TongganError as error:
            raise _told(error, lang) from None
        return [(Pil.open(io.BytesIO(hit.thumbnail)), " · ".join(_about(hit, lang))) for hit in hits]

    def sort(sent: dict[str, Any] | None, labels: str, language: str) -> dict[str, float]:
        lang = LANGUAGES[language]
        if not sent:
            raise _error(lang, "no_picture")
        names = list(dict.fromkeys(line.strip() for line in (labels or "").splitlines() if line.strip()))
        if len(names) < 2:
            raise _error(lang, "few_labels")
        try:
            # Labels choose the prompts' language themselves: Chinese ones are asked about in Chinese.
            prompt = "zh" if any("\u4e00" <= c <= "\u9fff" for name in names for c in name) else "en"
            return engine.classify([_picture(sent, lang)], names, lang=prompt)[0]
        except TongganError as error:
            raise _told(error, lang) from None

    with gr.Blocks(title="Tonggan 通感", analytics_enabled=False) as page:
        says = SAYS["en"]
        with gr.Row():
            titled = "title" if "embed" in engine.model.can else "title_chat"
            title = gr.Markdown(says[titled])
            language = gr.Radio(list(LANGUAGES), value="English", label=says["language"], scale=0, min_width=220, elem_id="language")
        talk = Talk(engine, LANGUAGES, _words) if "chat" in engine.model.can else None
        embeds = "embed" in engine.model.can
        with gr.Tab(says["search"], id="search", visible=embeds) as search_tab, gr.Row():
            with gr.Column(scale=1, min_width=280):
                words = gr.Textbox(label=says["words"], placeholder=says["hint"], elem_id="words")
                picture = gr.Image(label=says["picture"], sources=_SOURCES, height=200, elem_id="query-picture")
                limit = gr.Slider(1, _MOST, value=12, step=1, label=says["limit"], elem_id="limit")
                go = gr.Button(says["search"], variant="primary", elem_id="go-search")
                note = gr.Markdown(status("en"))
            with gr.Column(scale=2, min_width=320):
                found = gr.Gallery(label=says["found"], columns=4, object_fit="contain", height="auto", elem_id="found")
        with gr.Tab(says["classify"], id="classify", visible=embeds) as classify_tab, gr.Row():
            with gr.Column(min_width=280):
                subject = gr.Image(label=says["to_sort"], sources=_SOURCES, height=240, elem_id="subject")
                labels = gr.Textbox(label=says["labels"], placeholder=says["labels_hint"], lines=4, elem_id="labels")
                decide = gr.Button(says["classify"], variant="primary", elem_id="go-classify")
            answer = gr.Label(label=says["answer"], elem_id="answer")

        def speak(chosen: str) -> list[Any]:
            s = SAYS[LANGUAGES[chosen]]
            return [
                gr.update(value=s[titled]),
                gr.update(label=s["language"]),
                gr.update(label=s["search"]),
                gr.update(label=s["classify"]),
                gr.update(label=s["words"], placeholder=s["hint"]),
                gr.update(label=s["picture"]),
                gr.update(label=s["limit"]),
                gr.update(value=s["search"]),
                gr.update(value=status(LANGUAGES[chosen])),
                gr.update(label=s["found"]),
                gr.update(label=s["to_sort"]),
                gr.update(label=s["labels"], placeholder=s["labels_hint"]),
                gr.update(value=s["classify"]),
                gr.update(label=s["answer"]),
                *(talk.speak(LANGUAGES[chosen]) if talk else []),
            ]

        def greet(request: gr.Request) -> str:
            return "中文" if request.headers.get("accept-language", "").lower().startswith("zh") else "English"

        spoken = [title, language, search_tab, classify_tab, words, picture, limit, go, note, found, subject, labels, decide, answer]
        if talk:
            spoken += talk.spoken()
            talk.listen(language)
        language.change(speak, language, spoken, api_visibility="private")
        page.load(greet, None, language, api_visibility="private")
        # The file itself reaches the model. What Gradio makes of it would show what transparency hides, and it opens fewer kinds.
        as_sent: dict[str, Any] = {"preprocess": False, "api_visibility": "private"}
        gr.on([go.click, words.submit], find, [words, picture, limit, language], found, **as_sent)
        decide.click(sort, [subject, labels, language], answer, **as_sent)
    return page


def _picture(sent: dict[str, Any], lang: str) -> Image:
    """What was uploaded; Gradio has checked that its path lies among the uploads."""
    try:
        return Image.open(sent["path"])
    except MediaError as error:
        raise _told(error, lang) from None


def _about(hit: Hit, lang: str) -> list[str]:
    """Score, words, and of a clip the seconds."""
    return [f"{hit.score:.3f}", _title(hit, lang), *([hit.moment] if hit.moment else [])]


def _title(hit: Hit, lang: str) -> str:
    """The hit's words in the page's language, where it has them."""
    texts = json.loads(hit.meta).get("texts", [])
    return next((t["text"] for t in texts if (t["lang"] or "").partition("-")[0] == lang), hit.title or hit.id)


def _error(lang: str, what: str, *details: object) -> gr.Error:
    return gr.Error(SAYS[lang][what].format(*details), print_exception=False)


def _words(error: TongganError, lang: str) -> str:
    """What went wrong, in the page's language."""
    return SAYS[lang]["unreadable"].format(error.reason) if isinstance(error, MediaError) else SAYS[lang]["failed"].format(error)


def _told(error: TongganError, lang: str) -> gr.Error:
    return gr.Error(_words(error, lang), print_exception=False)


def mount(app: FastAPI, engine: Engine, path: str = "/") -> FastAPI:
    """Put the page into the server's application. Its theme names system fonts only: the page loads nothing from elsewhere."""
    theme = gr.themes.Soft(font=["system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"], font_mono=["monospace"])
    most = Limits().body_bytes
    page = build(engine)
    page.has_launched = True  # or a mounted page takes any path on the server for an upload
    return gr.mount_gradio_app(
        app, page, path=path, theme=theme, footer_links=[], show_error=True, ssr_mode=False, max_file_size=most, css=_STYLE
    )
