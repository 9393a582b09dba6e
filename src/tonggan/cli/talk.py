"""`tonggan chat`, `caption`, `ask`, `transcribe`: a model's words about pictures, sounds and clips, or about words alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonggan.cli.shared import Json, open_media, plural, print_json
from tonggan.types import Answer, Audio, CannotError, ChatOptions, Image, Message, Model, Part, Text, TongganError, UsageError, Video

if TYPE_CHECKING:
    from collections.abc import Generator

ModelName = Annotated[str, typer.Argument(help="A model that chats: a directory, hf:ID, ms:ID, PROVIDER:MODEL, openai+URL#MODEL.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0, help="0: always the likeliest word; higher: freer.")]
Seed = Annotated[int | None, typer.Option(help="Of the draws where the temperature is not 0.")]
Lang = Annotated[str, typer.Option(help="Language of the question: en or zh.")]

KINDS: dict[str, type[Image] | type[Audio] | type[Video]] = {"image": Image, "audio": Audio, "video": Video}
ENDINGS = {
    "audio": {".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac"},
    "video": {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v"},
}
HELP = """/image PATH, /audio PATH, /video PATH  attach to the next message
/new  forget what was said      /save FILE.jsonl  keep it, as rows that `tonggan data` reads
/help  this list                /quit  leave (or Ctrl-D)"""


def caption(
    model: ModelName,
    files: Annotated[list[Path], typer.Argument(help="Pictures, sounds or clips.")],
    lang: Lang = "en",
    prompt: Annotated[str | None, typer.Option(help="What to ask instead of a description in one sentence.")] = None,
    max_tokens: MaxTokens = 512,
    json: Json = False,
) -> None:
    """Describe pictures, sounds or clips in one sentence each.

    Example: `tonggan caption dashscope:qwen-vl-max photos/*.jpg --lang zh`
    """
    from tonggan.evaluate.tasks.captions import PROMPTS

    if prompt is None and lang not in PROMPTS:
        raise UsageError(f"--lang {lang}: expected {' or '.join(sorted(PROMPTS))}; for others give --prompt in that language")
    words = prompt or PROMPTS[lang]
    media, answers = [_medium(file) for file in files], []
    talks = _talker(model, *{part.kind for part in media})
    # One at a time: who reads along sees each as it comes, and Ctrl-C loses none that was printed.
    # A captioner describes what it sees without being asked: words would be the beginning of its sentence.
    said = (Text(words, lang),) if prompt or talks.instructed else ()
    for file, part in zip(files, media, strict=True):
        (answer,) = talks.chat([[Message("user", (part, *said))]], ChatOptions(max_tokens=max_tokens))
        answers.append(answer)
        if not json:
            _print_one(answer, max_tokens, f"{file}: " if len(files) > 1 else "")
    if json:
        print_json([{"file": str(file)} | _plain(answer) for file, answer in zip(files, answers, strict=True)])
    _finish(answers)


def ask(
    model: ModelName,
    file: Annotated[Path, typer.Argument(help="A picture, a sound or a clip.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Ask about a picture, a sound or a clip.

    Example: `tonggan ask dashscope:qwen-vl-max photo.jpg "图中有几只鸟？"`
    """
    if not question.strip():
        raise UsageError("the question is empty")
    part = _medium(file)
    conversation = [Message("user", (part, Text(question)))]
    (answer,) = _talker(model, part.kind).chat([conversation], ChatOptions(max_tokens=max_tokens, temperature=temperature, seed=seed))
    if json:
        print_json({"file": str(file), "question": question} | _plain(answer))
    else:
        _print_one(answer, max_tokens)
    _finish([answer])


def transcribe(
    model: ModelName,
    files: Annotated[list[Path], typer.Argument(help="Sounds with speech.")],
    lang: Annotated[str | None, typer.Option(help="Language that is spoken, e.g. zh. Default: heard by the model.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What a model that also reads words is asked, e.g. 请转写这段录音。")] = None,
    max_tokens: MaxTokens = 512,
    json: Json = False,
) -> None:
    """Write down what is said in sounds.

    Example: `tonggan transcribe models/whisper talk.wav --lang zh`
    """
    sounds, answers = [open_media(Audio, file) for file in files], []
    talks = _talker(model, "audio")
    for file, sound in zip(files, sounds, strict=True):
        parts: tuple[Part, ...] = (replace(sound, role=lang), *([Text(prompt)] if prompt else []))
        (answer,) = talks.chat([[Message("user", parts)]], ChatOptions(max_tokens=max_tokens))
        answers.append(answer)
        if not json:
            _print_one(answer, max_tokens, f"{file}: " if len(files) > 1 else "")
    if json:
        print_json([{"file": str(file)} | _plain(answer) for file, answer in zip(files, answers, strict=True)])
    _finish(answers)


def chat(
    model: ModelName,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Talk with a model about words, pictures, sounds and clips; `/help` lists what else can be typed.

    Example: `tonggan chat dashscope:qwen-vl-max`
    """
    talks = _talker(model)
    options = ChatOptions(max_tokens=max_tokens, temperature=temperature, seed=seed)
    dialogue = Dialogue(talks, options, system, json=json)
    typer.echo(f"{talks.name}; it takes: {', '.join(sorted(talks.modalities))}\n{HELP}", err=True)
    if sys.stdin.isatty():
        import readline  # noqa: F401 - arrows and history in `input`
    while (line := _line(dialogue)) is not None:
        try:
            if not dialogue.take(line):
                return
        except TongganError as error:  # a wrong path, say: what was said until now is not lost
            typer.secho(f"error: {error}", err=True, fg="red")
        except KeyboardInterrupt:
            typer.secho("stopped by Ctrl-C", err=True, fg="yellow")


class Dialogue:
    """What was said, and what is to be sent with the next message."""

    def __init__(self, model: Model, options: ChatOptions, system: str | None = None, *, json: bool = False) -> None:
        self._model, self._options, self._json = model, options, json
        self._first = [Message("system", (Text(system),))] if system else []
        self.said: list[Message] = [*self._first]
        self.attached: list[Part] = []

    def take(self, line: str) -> bool:
        """One line of the user's; False when that was the last."""
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip().strip("\"'")
        if not word.startswith("/"):
            self._say(line.strip())
            return True
        kind = word.removeprefix("/")
        commands: dict[str, Callable[[], None]] = {
            **{name: partial(self._attach, name, rest) for name in KINDS},
            "new": self._forget,
            "save": lambda: self._save(rest),
            "help": lambda: typer.echo(HELP, err=True),
        }
        if kind in ("quit", "exit"):
            return False
        if kind not in commands:
            raise UsageError(f"{word} is not known; a message that begins with / can be sent with a blank before it\n{HELP}")
        commands[kind]()
        return True

    def _attach(self, kind: str, path: str) -> None:
        if not path:
            raise UsageError(f"/{kind} needs a path")
        if kind not in self._model.modalities:
            raise CannotError(f"{self._model.name} takes no {kind}; it takes: {', '.join(sorted(self._model.modalities))}")
        self.attached.append(open_media(KINDS[kind], Path(path)))
        typer.echo(f"attached: {', '.join(part.kind for part in self.attached)}; now say something about it", err=True)

    def _forget(self) -> None:
        self.said, self.attached = [*self._first], []

    def _say(self, words: str) -> None:
        if not words:
            if self.attached:
                raise UsageError("say something about what is attached, or /new to leave it out")
            return
        asked = Message("user", (*self.attached, Text(words)))
        before = self.said if self._model.remembers else []
        answer = self._spoken(self._model.stream([*before, asked], self._options))
        if answer.outcome in ("answered", "truncated"):
            # An answer that failed is not remembered, and neither is its question: it can be put again.
            self.said += [asked, Message("assistant", (Text(answer.text),))]
            self.attached = []

    def _spoken(self, pieces: Generator[str, None, Answer]) -> Answer:
        """Print an answer as it comes."""
        try:
            while True:
                piece = next(pieces)
                if not self._json:
                    typer.echo(piece, nl=False)
        except StopIteration as end:
            answer: Answer = end.value
        except KeyboardInterrupt:
            pieces.close()
            typer.echo()
            raise
        if self._json:
            print_json(_plain(answer), indent=None)
        elif answer.text:
            typer.echo()
        _say_outcome(answer, self._options.max_tokens)
        return answer

    def _save(self, path: str) -> None:
        from tonggan.data.rows import Dataset
        from tonggan.types import Row

        if not path.endswith(".jsonl"):
            raise UsageError(f"/save needs a file that ends in .jsonl, not {path or 'nothing'}")
        if self.said == self._first:
            raise UsageError("nothing was said yet")
        Dataset.from_rows([Row(id=Path(path).stem, messages=tuple(self.said))]).write(path)
        typer.echo(f"saved: {path}", err=True)


def _line(dialogue: Dialogue) -> str | None:
    try:
        return input("> ") if sys.stdin.isatty() else next(iter(sys.stdin.readline, ""), None)
    except EOFError:
        return None
    except KeyboardInterrupt:
        typer.echo(err=True)
        return None


def _talker(name: str, *kinds: str) -> Model:
    """The model, which must chat, and take these kinds of input."""
    from tonggan.backends import load

    found = load(name)
    if "chat" not in found.can:
        raise CannotError(
            f"{found.name} cannot chat; it can: {', '.join(sorted(found.can)) or 'nothing'}. Models that can: an image-text-to-text "
            "directory, or an endpoint such as dashscope:MODEL"
        )
    if lacks := sorted(set(kinds) - set(found.modalities)):
        raise CannotError(f"{found.name} takes no {lacks[0]}; it takes: {', '.join(sorted(found.modalities))}")
    return found


def _medium(file: Path) -> Image | Audio | Video:
    """A file by its ending; what is neither a sound nor a clip is taken for a picture."""
    kind = next((kind for kind, endings in ENDINGS.items() if file.suffix.lower() in endings), "image")
    return open_media(KINDS[kind], file)


def _plain(answer: Answer) -> dict[str, Any]:
    usage = {"input_tokens": answer.usage.input_tokens, "output_tokens": answer.usage.output_tokens}
    return {"text": answer.text, "outcome": answer.outcome, "finish_reason": answer.finish_reason, "usage": usage, "error": answer.error}


def _print_one(answer: Answer, longest: int, where: str = "") -> None:
    if answer.text:
        typer.echo(f"{where}{answer.text}")
    _say_outcome(answer, longest, where)


def _say_outcome(answer: Answer, longest: int, where: str = "") -> None:
    match answer.outcome:
        case "error":
            typer.secho(f"{where}error: {answer.error}", err=True, fg="red")
        case "truncated":
            most = answer.usage.output_tokens or longest
            why = "--max-tokens allows more" if most >= longest else "the model has room for no more"
            typer.secho(f"{where}cut at {most} tokens: {why}", err=True, fg="yellow")
        case "refused" | "filtered":
            typer.secho(f"{where}{answer.outcome}{': ' + answer.error if answer.error else ''}", err=True, fg="yellow")


def _finish(answers: Sequence[Answer]) -> None:
    failed = sum(answer.outcome == "error" for answer in answers)
    if failed:
        if len(answers) > 1:
            typer.secho(f"{plural(failed, 'file')} of {len(answers)} without an answer", err=True, fg="red")
        raise typer.Exit(1)
