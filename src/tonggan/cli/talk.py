"""`tonggan chat`, `caption`, `ask`, `transcribe`: a model's words about pictures, sounds and clips, or about words alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonggan.cli.moments import moment
from tonggan.cli.shared import Json, open_media, plural, print_json
from tonggan.types import Answer, Audio, CannotError, ChatOptions, Image, Message, Model, Part, Text, TongganError, UsageError, Video

if TYPE_CHECKING:
    from collections.abc import Generator

ModelName = Annotated[str, typer.Argument(help="A model that chats: a directory, hf:ID, ms:ID, PROVIDER:MODEL, openai+URL#MODEL.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0, help="0: always the likeliest word; higher: freer.")]
Seed = Annotated[int | None, typer.Option(help="Of the draws where the temperature is not 0.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="Draw among the fewest words that have this probability together.")]
TopK = Annotated[int | None, typer.Option(min=1, help="Draw among the so many likeliest words.")]
MinP = Annotated[float | None, typer.Option(min=0, max=1, help="Draw among words of at least this share of the likeliest one's chance.")]
Repetition = Annotated[float | None, typer.Option(min=0.01, help="Above 1: words that were used already count less.")]
Beams = Annotated[int, typer.Option(min=1, help="Beginnings followed at once, for a likelier answer; it comes as a whole.")]
OwnBeams = Annotated[int | None, typer.Option(min=1, help="Beginnings followed at once. Default: as the model's directory says, or 1.")]
LengthPenalty = Annotated[float | None, typer.Option(help="With beams: above 0 favours longer answers, below 0 shorter ones.")]
Samples = Annotated[int, typer.Option(min=1, help="How many answers; with a temperature, or the best of the beams.")]
Stop = Annotated[list[str] | None, typer.Option(help="A text at which an answer ends. May be repeated.")]
Lang = Annotated[str, typer.Option(help="Language of the question: en or zh.")]

KINDS: dict[str, type[Image] | type[Audio] | type[Video]] = {"image": Image, "audio": Audio, "video": Video}
SOUNDS = frozenset({".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac"})
HELP = """/image PATH, /audio PATH, /video PATH  attach to the next message      /drop  leave out what is attached
/new  forget what was said      /save FILE.jsonl  keep it, as a dialogue that `tonggan data` reads
/help  this list                /quit  leave (or Ctrl-D)"""


def caption(
    model: ModelName,
    files: Annotated[list[Path], typer.Argument(help="Pictures, sounds or clips.")],
    lang: Lang = "en",
    prompt: Annotated[str | None, typer.Option(help="What to ask instead of a description in one sentence.")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    repetition_penalty: Repetition = None,
    beams: OwnBeams = None,
    length_penalty: LengthPenalty = None,
    json: Json = False,
) -> None:
    """Describe pictures, sounds or clips in one sentence each.

    Example: `tonggan caption dashscope:qwen-vl-max photos/*.jpg --lang zh`
    """
    from tonggan.evaluate.tasks.captions import PROMPTS

    if prompt is None and lang not in PROMPTS:
        raise UsageError(f"--lang {lang}: expected {' or '.join(sorted(PROMPTS))}; for others give --prompt in that language")
    if prompt is not None and not prompt.strip():
        raise UsageError("the prompt is empty; leave --prompt out for a description in one sentence")
    words = prompt or PROMPTS[lang]
    options = _options(
        max_tokens, temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed, repetition_penalty=repetition_penalty, beams=beams,
        length_penalty=length_penalty,
    )  # fmt: skip
    media, answers = [_medium(file) for file in files], []
    talks = _talker(model, *{part.kind for part in media})
    # One at a time: who reads along sees each as it comes, and Ctrl-C loses none that was printed.
    # A captioner describes what it sees without being asked: words would be the beginning of its sentence.
    said = (Text(words, lang),) if prompt or talks.instructed else ()
    for file, part in zip(files, media, strict=True):
        _say_rate(talks, part)
        (answer,) = talks.chat([[Message("user", (part, *said))]], options)
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
    at: Annotated[str | None, typer.Option(help="Only a moment of a clip: 12.4-17.9 (seconds), 1:02-1:07; 12.4- to its end.")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    repetition_penalty: Repetition = None,
    beams: Beams = 1,
    length_penalty: LengthPenalty = None,
    samples: Samples = 1,
    stop: Stop = None,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="With --json: each token and its log-probability.")] = False,
    json: Json = False,
) -> None:
    """Ask about a picture, a sound or a clip, or about a moment of a clip.

    Example: `tonggan ask dashscope:qwen-vl-max photo.jpg "图中有几只鸟？"`
    """
    if not question.strip():
        raise UsageError("the question is empty")
    if logprobs and not json:
        raise UsageError("--logprobs go with --json")
    options = _options(
        max_tokens, temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed, repetition_penalty=repetition_penalty, beams=beams,
        length_penalty=length_penalty, samples=samples, stop=tuple(stop or ()), logprobs=logprobs,
    )  # fmt: skip
    part = _medium(file) if at is None else moment(file, at)
    talks = _talker(model, part.kind)
    _say_rate(talks, part)
    (answer,) = talks.chat([[Message("user", (part, Text(question)))]], options)
    if json:
        print_json({"file": str(file), "at": at, "question": question} | _plain(answer))
    else:
        for number, one in enumerate((answer, *answer.others), 1):
            _print_one(one, max_tokens, f"{number}. " if samples > 1 else "")
    _finish([answer])


def transcribe(
    model: ModelName,
    files: Annotated[list[Path], typer.Argument(help="Sounds with speech.")],
    lang: Annotated[str | None, typer.Option(help="Language that is spoken, e.g. zh. Default: heard by the model.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What a model that also reads words is asked, e.g. 请转写这段录音。")] = None,
    max_tokens: MaxTokens = 512,
    beams: OwnBeams = None,
    length_penalty: LengthPenalty = None,
    json: Json = False,
) -> None:
    """Write down what is said in sounds.

    Example: `tonggan transcribe models/whisper talk.wav --lang zh`
    """
    options = _options(max_tokens, beams=beams, length_penalty=length_penalty)
    sounds, answers = [open_media(Audio, file) for file in files], []
    talks = _talker(model, "audio")
    if lang is not None and not talks.languages:
        raise CannotError(
            f"{talks.name} cannot be told which language is spoken: leave --lang out, or say it in --prompt if it reads words"
        )
    for file, sound in zip(files, sounds, strict=True):
        _say_rate(talks, sound)
        parts: tuple[Part, ...] = (replace(sound, role=lang), *([Text(prompt)] if prompt else []))
        (answer,) = talks.chat([[Message("user", parts)]], options)
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
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    repetition_penalty: Repetition = None,
    beams: Beams = 1,
    length_penalty: LengthPenalty = None,
    stop: Stop = None,
    json: Json = False,
) -> None:
    """Talk with a model about words, pictures, sounds and clips; `/help` lists what else can be typed.

    Example: `tonggan chat dashscope:qwen-vl-max`
    """
    options = _options(
        max_tokens, temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed, repetition_penalty=repetition_penalty, beams=beams,
        length_penalty=length_penalty, stop=tuple(stop or ()),
    )  # fmt: skip
    talks = _talker(model)
    if system and not talks.remembers:
        raise CannotError(f"{talks.name} has no template for conversations: it takes one message, and no --system before it")
    dialogue = Dialogue(talks, options, system, json=json)
    typer.echo(f"{talks.name}; it takes: {', '.join(sorted(talks.modalities))}\n{HELP}", err=True)
    if sys.stdin.isatty():
        import readline  # noqa: F401 - arrows and history in `input`
    while (line := _line()) is not None:
        try:
            if not dialogue.take(line):
                return
        except TongganError as error:  # a wrong path, say: what was said until now is not lost
            typer.secho(f"error: {error}", err=True, fg="red")
        except OSError as error:  # a folder that is not there, a full disk
            typer.secho(f"error: {error.filename or 'writing'}: {error.strerror or error}", err=True, fg="red")
        except KeyboardInterrupt:
            typer.secho("stopped by Ctrl-C", err=True, fg="yellow")


class Dialogue:
    """What was said, and what is to be sent with the next message."""

    def __init__(self, model: Model, options: ChatOptions, system: str | None = None, *, json: bool = False) -> None:
        self._model, self._options, self._json = model, options, json
        self._first = [Message("system", (Text(system),))] if system else []
        self.said: list[Message] = [*self._first]
        self.attached: list[Part] = []
        self._saved: Path | None = None
        # Who takes one message may be shown a picture, or played a sound, without words.
        self._alone = not (model.remembers and model.instructed)

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
            "drop": self.attached.clear,
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
        _say_rate(self._model, self.attached[-1])
        then = "an empty line sends it, or words with it" if self._alone else "now say something about it"
        typer.echo(f"attached: {', '.join(part.kind for part in self.attached)}; {then}", err=True)

    def _forget(self) -> None:
        self.said, self.attached = [*self._first], []

    def _say(self, words: str) -> None:
        if not words and self.attached and not self._alone:
            raise UsageError("say something about what is attached, or /drop to leave it out")
        if not words and not self.attached:
            return
        asked = Message("user", (*self.attached, *([Text(words)] if words else [])))
        before = self.said if self._model.remembers else []
        answer = self._spoken(self._model.stream([*before, asked], self._options))
        if answer.outcome in ("answered", "truncated"):
            # An answer that failed is not remembered, and neither is its question: it can be put again.
            self.said += [asked, Message("assistant", (Text(answer.text),))]
            self.attached = []
        elif answer.outcome == "error" and (before or self.attached):
            ways = ["/drop leaves out what is attached"] * bool(self.attached) + ["/new forgets what was said"] * bool(before)
            typer.echo(f"this question is not remembered; {', '.join(ways)}", err=True)

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
        if not path.endswith(".jsonl"):
            raise UsageError(f"/save needs a file that ends in .jsonl, not {path or 'nothing'}")
        if self.said == self._first:
            raise UsageError("nothing was said yet")
        file = Path(path).expanduser()
        if file.exists() and file != self._saved:
            raise UsageError(f"{path}: there is something here already; choose another name")
        turns = [{"role": message.role, "content": [_content(part) for part in message.parts]} for message in self.said]
        file.write_text(dumps({"id": file.stem, "messages": turns}, ensure_ascii=False) + "\n", "utf-8")
        self._saved = file
        typer.echo(f"saved: {path}", err=True)


def _options(max_tokens: int, temperature: float = 0.0, **settings: Any) -> ChatOptions:
    """How to answer; raises `UsageError` for settings that would make no difference."""
    drawn = [name for name in ("top_p", "top_k", "min_p") if settings.get(name) is not None]
    if not temperature and drawn:
        raise UsageError(f"--{drawn[0].replace('_', '-')} is about what is drawn, and nothing is at temperature 0: give --temperature too")
    return ChatOptions(max_tokens=max_tokens, temperature=temperature, **settings)


def _content(part: Part) -> dict[str, str]:
    """A part as `data.formats.dialogues` reads it."""
    return {"type": part.kind, part.kind: part.text if isinstance(part, Text) else str(part.path.resolve() if part.path else part.where)}


def _line() -> str | None:
    """What is typed next; None at the end."""
    try:
        if not sys.stdin.isatty():
            return sys.stdin.readline() or None
        if not sys.stdout.isatty():  # answers go into a file: the prompt does not
            typer.echo("> ", nl=False, err=True)
        return input("> " if sys.stdout.isatty() else "")
    except EOFError:
        return None
    except UnicodeDecodeError as error:
        raise UsageError(f"what is typed or piped in is not {sys.stdin.encoding} ({error.reason}); write it in UTF-8") from None
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


def _say_rate(model: Model, part: Part) -> None:
    """That a sound is brought to the model's rate, where it has another."""
    wanted = model.identity.preprocessing.get("audio.rate")
    if not isinstance(part, Audio) or wanted is None:
        return
    from tonggan.data.audio import own_rate

    if (own := own_rate(part)) not in (None, wanted):
        typer.echo(f"note: {part.where}: {own} Hz, brought to the model's {wanted} Hz", err=True)


def _medium(file: Path) -> Image | Audio | Video:
    """A file by its ending; what is neither a sound nor a clip is taken for a picture. One that may move is a clip where it does."""
    from tonggan.data.formats.clips import ANIMATED, is_clip_name
    from tonggan.data.media import moves

    kind: type[Image] | type[Audio] | type[Video] = Image
    if file.suffix.lower() in SOUNDS:
        kind = Audio
    elif is_clip_name(file) or (file.suffix.lower() in ANIMATED and moves(file)):
        kind = Video
    return open_media(kind, file)


def _plain(answer: Answer) -> dict[str, Any]:
    usage = {"input_tokens": answer.usage.input_tokens, "output_tokens": answer.usage.output_tokens}
    told: dict[str, Any] = {"text": answer.text, "outcome": answer.outcome, "finish_reason": answer.finish_reason}
    told |= {"usage": usage, "error": answer.error}
    if answer.tokens is not None:
        told |= {"tokens": list(answer.tokens), "logprobs": list(answer.logprobs or ())}
    return told | ({"others": [_plain(one) for one in answer.others]} if answer.others else {})


def _print_one(answer: Answer, longest: int, where: str = "") -> None:
    if answer.text or answer.outcome in ("answered", "truncated"):  # a line for every answer, also an empty one
        typer.echo(f"{where}{answer.text}")
    _say_outcome(answer, longest, where)


def _say_outcome(answer: Answer, longest: int, where: str = "") -> None:
    match answer.outcome:
        case "answered" if not answer.text:
            typer.secho(f"{where}the answer is empty", err=True, fg="yellow")
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
