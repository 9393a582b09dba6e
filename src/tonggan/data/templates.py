"""Chat templates: how a conversation is written out as one text, in Jinja as it is published beside tokenizers, and one of our own.

A template is given `messages` (role and content: a string, or a list of parts `{"type": "text", "text": …}`, `{"type": "image"}`),
`add_generation_prompt` (go on to where the assistant speaks), `bos_token`, `eos_token` and `raise_exception`.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NoReturn

from tonggan.types import MissingExtra, TongganError, UsageError

CHATML = """\
{%- for message in messages -%}
    {{- bos_token + message.role + '\\n' -}}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- else -%}
        {%- for part in message.content -%}
            {{- part.text if part.type == 'text' else '<' + part.type + '>' -}}
        {%- endfor -%}
    {%- endif -%}
    {{- eos_token + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- bos_token + 'assistant\\n' -}}
{%- endif -%}
"""
"""Our own, after ChatML: each turn is a start token, the role, a new line, what is said, an end token, a new line. A picture is `<image>`
where it stands, a sound `<audio>`, a clip `<video>`. The tokens are `bos_token` and `eos_token`, so that any tokenizer with a start and
an end can take it: our own BPE as it is, Qwen's with `<|im_start|>` and `<|im_end|>`."""

_PROBE = "probe"


class Template:
    """A compiled template; it runs in a sandbox, since it comes with a model from anywhere."""

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "") -> None:
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._compiled = _compiled(source)

    @cached_property
    def takes_parts(self) -> bool:
        """Whether content may be a list of parts; older templates know strings only."""
        asked = [{"role": "user", "content": [{"type": "text", "text": _PROBE}]}]
        try:
            written = self.render(asked)
        except TongganError:
            return False
        return _PROBE in written and "'type'" not in written  # it may have written the list itself

    def render(self, messages: Sequence[Mapping[str, Any]], *, prompt: bool = False) -> str:
        """The text; `prompt`: up to where the assistant is to speak. Raises `TongganError` where the template refuses the conversation."""
        import jinja2

        try:
            return str(self._compiled.render(messages=list(messages), add_generation_prompt=prompt, **self._tokens))
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            raise TongganError(f"the chat template refuses this conversation: {error}") from None


def _compiled(source: str) -> Any:
    try:
        import jinja2
        import jinja2.ext
        import jinja2.sandbox
    except ImportError:
        raise MissingExtra("a chat template (jinja2)", "report") from None

    class Generation(jinja2.ext.Extension):
        """`{% generation %}`, by which some templates mark what the assistant says, writes what is in it."""

        tags = {"generation"}  # noqa: RUF012 as Jinja declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **({"ensure_ascii": False} | options))
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda pattern: datetime.datetime.now().strftime(pattern)
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"the chat template, line {error.lineno}: {error.message}") from None


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)  # `render` says whose it is
