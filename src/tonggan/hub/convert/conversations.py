"""How a published model's conversations are written out: the template beside its tokenizer, what stands for a picture, what ends a turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tonggan.data.chat import ChatProcessing, Placeholder, TileProcessing
from tonggan.data.templates import Template
from tonggan.data.text import Tokenizer
from tonggan.hub.convert.tokenizer import content_of, read_said, token_of
from tonggan.hub.weights import read_json
from tonggan.types import TongganError, UsageError

TEMPLATE, OLDER = "chat_template.jinja", "chat_template.json"
PROCESSOR = "processor_config.json"


def template_in(directory: Path, said: Mapping[str, Any]) -> str | None:
    """The template of a directory, from the first of the places where releases of the library have kept it; None where there is none."""
    if (directory / TEMPLATE).is_file():
        if not (written := (directory / TEMPLATE).read_text("utf-8")).strip():
            raise TongganError(f"{directory / TEMPLATE}: the chat template is empty; restore it, or remove the file to have no chat")
        return written
    files = [read_json(directory / name) for name in (OLDER, PROCESSOR) if (directory / name).is_file()]
    for settings in (*files, said):
        found = settings.get("chat_template")
        if isinstance(found, list):  # several under names, one of which is used where nobody names another
            found = next((one["template"] for one in found if one["name"] == "default"), None)
        if isinstance(found, str):
            return found
    return None


def conversations_in(
    directory: Path,
    text: Tokenizer,
    *,
    ends: Sequence[int],
    context: int,
    image: Placeholder | None = None,
    video: Placeholder | None = None,
    tiles: TileProcessing | None = None,
    framed: bool = False,
    default: str | None = None,
) -> ChatProcessing | None:
    """The settings of a directory's conversations; None where it has no template, and the format no `default`.

    `framed`: what a template has written is encoded as any text is, as the library's processors of pictures and words do it. A tokenizer
    that puts a start token before every text then puts it before a conversation too, where the template has not; else nobody does.
    """
    said = read_said(directory)
    template = template_in(directory, said) or default
    if template is None:
        return None
    try:
        Template(template)
    except UsageError as error:
        raise TongganError(f"{directory}: {error}") from None
    start, end = (content_of(said.get(name)) or "" for name in ("bos_token", "eos_token"))
    if framed and start and text.encode([""])[0][0][:1] == [text.id_of(start)] and not _begins(template, start, end):
        template = "{{- bos_token -}}" + template
    return ChatProcessing(
        template=template,
        bos_token=start,
        eos_token=end,
        ends=tuple(token_of(text, one) for one in ends if one < text.vocab_size),
        image=image,
        video=video,
        tiles=tiles,
        context=context,
    )


def placeholder_in(directory: Path, text: Tokenizer, token: int, count: int, kind: Literal["image", "video"] = "image") -> Placeholder:
    """What stands for a picture of `count` features, as processor_config.json has it; raises `TongganError` where the model has another."""
    file = directory / PROCESSOR
    said = read_json(file) if file.is_file() else {}
    name = content_of(said.get(f"{kind}_token")) or f"<{kind}>"
    if text.id_of(name) != token:
        raise TongganError(f"{file}: {kind}_token {name!r} is {text.id_of(name)} by the tokenizer, {token} by the model's config.json")
    return Placeholder(text=name, id=token, count=count)


def _begins(template: str, start: str, end: str) -> bool:
    """Whether the template writes the start token itself."""
    made = Template(template, bos_token=start, eos_token=end)
    content: Any = [{"type": "text", "text": "probe"}] if made.takes_parts else "probe"
    try:
        return made.render([{"role": "user", "content": content}], prompt=True).startswith(start)
    except TongganError:
        return "bos_token" in template  # one that wants other conversations than this refuses it
