"""The web page: search by words or by a picture, and classify with one's own labels. Chinese and English.

It talks to the same `Engine` as the HTTP API, so that what a person sees is what a program gets.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from tonggan.serve.engine import Engine
from tonggan.serve.guards import Limits
from tonggan.types import Image, Item, MissingExtra, Text, TongganError

if TYPE_CHECKING:
    from fastapi import FastAPI

try:
    import gradio as gr
    from PIL import Image as Pil
except ImportError:
    raise MissingExtra("the web page", "studio") from None

_AS_SENT: dict[str, Any] = {"type": "filepath", "image_mode": None, "sources": ["upload", "clipboard"]}
"""The file itself reaches the model: Gradio's own conversion would show what transparency hides, in other pixels than the API's."""
LANGUAGES = {"English": "en", "中文": "zh"}
SAYS: dict[str, dict[str, str]] = {
    "en": {
        "title": "# Tonggan 通感\nSearch pictures by words or by a picture, or sort a picture into labels of your own.",
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
    },
    "zh": {
        "title": "# 通感 Tonggan\n用文字或图片搜索图片，或按您自己的标签给图片分类。",
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
    },
}


def build(engine: Engine) -> gr.Blocks:
    """The page for one engine."""

    def status(lang: str) -> str:
        says = SAYS[lang]
        return says["no_index"] if engine.index is None else says["count"].format(len(engine.index))

    def find(words: str, picture: str | None, limit: float, language: str) -> list[tuple[Pil.Image, str]]:
        says = SAYS[LANGUAGES[language]]
        try:
            # Words win where both are given: the picture may be left over from the search before.
            query: Item | None = Text(words.strip()) if (words or "").strip() else Image.open(picture) if picture is not None else None
            if query is None:
                raise gr.Error(says["no_query"])
            hits = engine.search(query, int(limit))
        except TongganError as error:
            raise gr.Error(says["no_index"] if engine.index is None else str(error)) from None
        return [(Pil.open(io.BytesIO(hit.thumbnail)), f"{hit.score:.3f} · {hit.title}") for hit in hits]

    def sort(picture: str | None, labels: str, language: str) -> dict[str, float]:
        lang = LANGUAGES[language]
        if picture is None:
            raise gr.Error(SAYS[lang]["no_picture"])
        names = list(dict.fromkeys(line.strip() for line in (labels or "").splitlines() if line.strip()))
        if len(names) < 2:
            raise gr.Error(SAYS[lang]["few_labels"])
        try:
            # Labels choose the prompts' language themselves: Chinese ones are asked about in Chinese.
            prompt = "zh" if any("\u4e00" <= c <= "\u9fff" for name in names for c in name) else "en"
            return engine.classify([Image.open(picture)], names, lang=prompt)[0]
        except TongganError as error:
            raise gr.Error(str(error)) from None

    with gr.Blocks(title="Tonggan 通感", analytics_enabled=False) as page:
        says = SAYS["en"]
        with gr.Row():
            title = gr.Markdown(says["title"])
            language = gr.Radio(list(LANGUAGES), value="English", label=says["language"], scale=0, min_width=220, elem_id="language")
        with gr.Tab(says["search"], id="search") as search_tab, gr.Row():
            with gr.Column(scale=1, min_width=280):
                words = gr.Textbox(label=says["words"], placeholder=says["hint"], elem_id="words")
                picture = gr.Image(label=says["picture"], **_AS_SENT, height=200, elem_id="query-picture")
                limit = gr.Slider(1, 48, value=12, step=1, label=says["limit"], elem_id="limit")
                go = gr.Button(says["search"], variant="primary", elem_id="go-search")
                note = gr.Markdown(status("en"))
            with gr.Column(scale=2, min_width=320):
                found = gr.Gallery(label=says["found"], columns=4, object_fit="contain", height="auto", elem_id="found")
        with gr.Tab(says["classify"], id="classify") as classify_tab, gr.Row():
            with gr.Column(min_width=280):
                subject = gr.Image(label=says["to_sort"], **_AS_SENT, height=240, elem_id="subject")
                labels = gr.Textbox(label=says["labels"], placeholder=says["labels_hint"], lines=4, elem_id="labels")
                decide = gr.Button(says["classify"], variant="primary", elem_id="go-classify")
            answer = gr.Label(label=says["answer"], elem_id="answer")

        def speak(chosen: str) -> list[Any]:
            s = SAYS[LANGUAGES[chosen]]
            return [
                gr.update(value=s["title"]),
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
            ]

        def greet(request: gr.Request) -> str:
            return "中文" if request.headers.get("accept-language", "").lower().startswith("zh") else "English"

        spoken = [title, language, search_tab, classify_tab, words, picture, limit, go, note, found, subject, labels, decide, answer]
        language.change(speak, language, spoken, api_visibility="private")
        page.load(greet, None, language, api_visibility="private")
        gr.on([go.click, words.submit], find, [words, picture, limit, language], found, api_visibility="private")
        decide.click(sort, [subject, labels, language], answer, api_visibility="private")
    return page


def mount(app: FastAPI, engine: Engine, path: str = "/") -> FastAPI:
    """Put the page into the server's application. Its theme names system fonts only: the page loads nothing from elsewhere."""
    theme = gr.themes.Soft(font=["system-ui", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"], font_mono=["monospace"])
    most = Limits().body_bytes
    return gr.mount_gradio_app(
        app, build(engine), path=path, theme=theme, footer_links=[], show_error=True, ssr_mode=False, max_file_size=most
    )
