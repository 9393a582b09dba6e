"""A `transformers` directory of a family that we have no code for, as a `Model`: two-tower models embed, the others chat.

What the library computes is what is measured: its processor, its chat template, its `generate`. Nothing is downloaded, no code
from the directory is run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from tonggan import devices
from tonggan.data.images import canonical_picture
from tonggan.data.media import load_image
from tonggan.data.resolve import resolve
from tonggan.hub.families import OURS, PUBLISHED
from tonggan.hub.identity import weights_hash
from tonggan.types import (
    Answer,
    CannotError,
    ChatOptions,
    Embeddings,
    EmbedOptions,
    Identity,
    Image,
    Item,
    MediaError,
    Message,
    MissingExtra,
    Model,
    Part,
    Text,
    TongganError,
    Usage,
    as_part,
)

log = logging.getLogger("tonggan")


def foreign(directory: Path, device: torch.device | str | None = None, *, name: str | None = None) -> Model:
    """The model in a `transformers` directory; raises `TongganError` that says why it cannot be one of the two kinds.

    `name` is what it is called, when that is not the directory.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtra("a transformers directory", "hf") from None
    try:
        config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
        kinds = transformers.models.auto.modeling_auto
        wanted = next(iter(getattr(config, "architectures", None) or ()), "")
        if config.model_type in kinds.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES or "QuestionAnswering" in wanted:
            # The class that the directory names, where it names one: a family may have several heads.
            made = getattr(transformers, wanted, transformers.AutoModelForImageTextToText)
            kind: type[_Foreign] = ForeignChat
        else:
            made, kind = transformers.AutoModel, ForeignTowers
        module = made.from_pretrained(directory, local_files_only=True, dtype="auto")
        processor = transformers.AutoProcessor.from_pretrained(directory, local_files_only=True)  # type: ignore[no-untyped-call]
    except Exception as error:  # the library raises whatever its readers do: of JSON, pickles, weights, tokenizers
        if damaged := _damaged(directory):
            raise TongganError(f"{damaged}: damaged or incomplete, fetch it again ({_reason(error)})") from None
        raise TongganError(f"{directory}: transformers cannot open it ({_reason(error)})") from None
    if kind is ForeignTowers and not all(hasattr(module, name) for name in ("get_image_features", "get_text_features")):
        raise TongganError(f"{directory}: a {config.model_type} neither answers (image-text-to-text) nor embeds pictures and text")
    chosen = devices.choose(device)
    try:
        return kind(name or str(directory), module, processor, chosen)
    except Exception as error:  # a processor that opens may still fail on the canonical picture
        raise TongganError(f"{directory}: transformers opens it, but its parts do not work ({_reason(error)})") from None


def _damaged(directory: Path) -> Path | None:
    """The first weights file that cannot be read as one, if any."""
    for file in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError):
            return file
    return None


def is_foreign(directory: Path) -> bool:
    """Whether a directory names a family, or an architecture of it, that we have no code for."""
    try:
        raw = json.loads((directory / "config.json").read_text("utf-8"))
        named = raw.get("model_type") is not None
    except (OSError, ValueError, AttributeError):
        return False
    return named and not any(family.reads(raw) for family in (*PUBLISHED, OURS))


class _Foreign(Model):
    def __init__(self, name: str, module: Any, processor: Any, device: torch.device) -> None:
        self.name, self.device = name, device
        self.module, self.processor = module.to(device).eval(), processor
        self.modalities = frozenset({"text", "image"})
        self.identity = Identity(self._record(), weights_hash(module.state_dict()), verified=False)

    def _record(self) -> dict[str, Any]:
        """What the processor does to a canonical picture, and every setting that it has."""
        parts = {name: getattr(self.processor, name, None) for name in ("image_processor", "tokenizer")}
        record: dict[str, Any] = {"family": self.module.config.model_type}
        if (pictures := parts["image_processor"]) is not None:
            record |= {f"image.{name}": str(value) for name, value in pictures.to_dict().items()}
            pixels = pictures(images=canonical_picture(), return_tensors="np")["pixel_values"]
            record["image.pixels"] = hashlib.sha256(np.round(np.asarray(pixels, np.float32), 4).tobytes()).hexdigest()[:16]
        if (tokenizer := parts["tokenizer"]) is not None:
            ids = tokenizer(["一只红色的小鸟，停在３根树枝上！", "A photo of 2 kittens."])["input_ids"]
            record["text.ids"] = hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16]
        record["chat_template"] = hashlib.sha256(str(getattr(self.processor, "chat_template", None)).encode()).hexdigest()[:16]
        return record


class ForeignTowers(_Foreign):
    """A two-tower model: `get_image_features` and `get_text_features`, scaled to unit length."""

    can = frozenset({"embed"})

    def embed(self, items: Sequence[Item], options: EmbedOptions | None = None) -> Embeddings:
        """Every item as a unit vector: float32 [items, dim]."""
        chosen = options or EmbedOptions()
        parts = [as_part(item) for item in items]
        rows: dict[int, np.ndarray] = {}
        errors: dict[int, str] = {}
        texts = [(i, part.text) for i, part in enumerate(parts) if isinstance(part, Text)]
        pictures: list[tuple[int, Any]] = []
        for i, part in enumerate(parts):
            if isinstance(part, Image):
                try:
                    pictures.append((i, load_image(resolve(part))))
                except MediaError as error:
                    errors[i] = error.reason
            elif not isinstance(part, Text):
                raise CannotError(f"{self.name} does not take {part.kind}; it takes: image, text")
        self._encode(texts, self._texts, chosen.batch_size, rows)
        self._encode(pictures, self._pictures, chosen.batch_size, rows)
        width = len(next(iter(rows.values()))) if rows else 0
        vectors = (
            np.stack([rows.get(i, np.zeros(width, np.float32)) for i in range(len(parts))]) if parts else np.zeros((0, width), np.float32)
        )
        lengths = dict(zip([i for i, _ in texts], self._lengths([text for _, text in texts]), strict=True))
        longest = self._longest()
        cut = tuple(i for i, length in lengths.items() if length > longest)
        return Embeddings(vectors, errors, cut, sum(min(length, longest) for length in lengths.values()))

    def _encode(self, some: list[tuple[int, Any]], encode: Callable[[list[Any]], Any], size: int, rows: dict[int, np.ndarray]) -> None:
        for start in range(0, len(some), size):
            batch = some[start : start + size]
            with torch.inference_mode():
                found = encode([item for _, item in batch])
                # Later versions of the library wrap the vectors.
                vectors = found if isinstance(found, torch.Tensor) else found.pooler_output
            unit = torch.nn.functional.normalize(vectors.float(), dim=1).cpu().numpy()
            rows |= dict(zip([i for i, _ in batch], unit, strict=True))

    def _texts(self, texts: list[str]) -> Any:
        # Padding as the family was trained: SigLIP attends to its padding, so it is always padded to the whole length.
        whole = "siglip" in self.module.config.model_type
        made = self.processor.tokenizer(
            texts, padding="max_length" if whole else True, truncation=True, max_length=self._longest(), return_tensors="pt"
        )
        if whole:
            made.pop("attention_mask", None)
        return self.module.get_text_features(**made.to(self.device))

    def _pictures(self, pictures: list[Any]) -> Any:
        made = self.processor.image_processor(images=pictures, return_tensors="pt")
        return self.module.get_image_features(pixel_values=made["pixel_values"].to(self.device))

    def _longest(self) -> int:
        config = self.module.config
        text = getattr(config, "text_config", config)
        return min(int(getattr(text, "max_position_embeddings", 512)), int(self.processor.tokenizer.model_max_length))

    def _lengths(self, texts: list[str]) -> list[int]:
        return [len(ids) for ids in self.processor.tokenizer(texts)["input_ids"]] if texts else []


class ForeignChat(_Foreign):
    """An image-text-to-text model or a picture-to-text encoder-decoder; one conversation at a time."""

    can = frozenset({"chat", "logprob"})

    def chat(self, conversations: Sequence[Sequence[Message]], options: ChatOptions | None = None) -> list[Answer]:
        """An answer per conversation; greedy when the temperature is 0 or None. One that cannot be asked is an answer with its error."""
        chosen = options or ChatOptions()
        return [self._one(conversation, chosen) for conversation in conversations]

    def logprob(self, conversations: Sequence[Sequence[Message]], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """Summed log-probabilities of each continuation's tokens after the conversation; NaN (and a warning in the log) for all of a
        conversation that cannot be asked."""
        if self._decodes_apart:
            raise CannotError(f"{self.name}: log-probabilities of encoder-decoder models are not here yet; use chat")
        for continuation in (one for some in continuations for one in some):
            if not self._tokens(continuation).numel():
                raise TongganError(f"{self.name}: the continuation {continuation!r} has no tokens")
        return [self._scores(conversation, some) for conversation, some in zip(conversations, continuations, strict=True)]

    @property
    def _decodes_apart(self) -> bool:
        """Whether the answer is a sequence of its own (encoder-decoder) rather than the prompt's continuation."""
        return bool(getattr(self.module.config, "is_encoder_decoder", False)) or self.module.config.model_type == "blip"

    def _one(self, conversation: Sequence[Message], options: ChatOptions) -> Answer:
        try:
            return self._answer(conversation, options)
        except (MediaError, CannotError) as error:
            return Answer(outcome="error", error=str(error))
        except Exception as error:  # the directory's own template and code, which may raise anything; the others are still asked
            return Answer(outcome="error", error=self._why(conversation, error))

    def _answer(self, conversation: Sequence[Message], options: ChatOptions) -> Answer:
        begun = time.monotonic()
        settings = self._settings(options)
        inputs = self._inputs(conversation)
        if options.temperature and options.seed is not None:
            torch.manual_seed(options.seed)
        with torch.inference_mode():
            rows = self.module.generate(**inputs, max_new_tokens=options.max_tokens, **settings).tolist()
        prompt = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        said = [self._said(row if self._decodes_apart else row[prompt:], options, prompt) for row in rows]
        first, *others = (replace(one, model=self.name, seconds=time.monotonic() - begun) for one in said)
        return replace(first, others=tuple(others))

    def _settings(self, options: ChatOptions) -> dict[str, Any]:
        """As `generate` names them; what is None is what the directory says. Raises `CannotError` for what is not passed on."""
        if options.logprobs:
            raise CannotError(f"{self.name} runs in transformers, which is not asked for log-probabilities of answers; leave logprobs out")
        drawn = {"temperature": options.temperature, "top_p": options.top_p, "top_k": options.top_k, "min_p": options.min_p}
        named = {
            "do_sample": None if options.temperature is None else bool(options.temperature),
            **({} if options.temperature == 0 else drawn),
            "repetition_penalty": options.repetition_penalty,
            "num_beams": options.beams,
            "length_penalty": options.length_penalty,
            "num_return_sequences": options.samples,
        }
        return {name: value for name, value in named.items() if value is not None}

    def _said(self, ids: list[int], options: ChatOptions, prompt: int) -> Answer:
        end = self.module.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        # Rows that ended before the longest one are filled up; a decoder of its own may begin with what also ends.
        begins = int(self._decodes_apart)
        whole = next((place + 1 for place, one in enumerate(ids) if one in ends and place >= begins), len(ids))
        text = self.processor.tokenizer.decode(ids[:whole], skip_special_tokens=True)
        found = [place for stop in options.stop if (place := text.find(stop)) >= 0]
        cut = not found and len(ids) >= options.max_tokens and not (whole and ids[whole - 1] in ends)
        return Answer(
            text=text[: min(found, default=len(text))].strip(),
            outcome="truncated" if cut else "answered",
            finish_reason="length" if cut else "stop",
            usage=Usage(prompt, whole),
        )

    def _scores(self, conversation: Sequence[Message], continuations: Sequence[str]) -> list[float]:
        try:
            inputs = self._inputs(conversation)
            return [self._score(inputs, self._tokens(continuation)) for continuation in continuations]
        except Exception as error:  # as in `_one`
            log.warning("not scored: %s", error if isinstance(error, (MediaError, CannotError)) else self._why(conversation, error))
            return [float("nan")] * len(continuations)

    def _why(self, conversation: Sequence[Message], error: Exception) -> str:
        """Why a conversation could not be asked; where it is longer than the model's positions, that too."""
        said = f"{self.name} could not be asked: {_reason(error)}"
        config = self.module.config
        longest = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
        words = " ".join(part.text for message in conversation for part in message.parts if isinstance(part, Text))
        try:
            count = self._tokens(words).shape[1]
        except Exception:  # the tokenizer may be what failed
            return said
        return f"{said}; the text has {count} tokens, the model takes {longest}" if longest and count > longest else said

    def _tokens(self, text: str) -> torch.Tensor:
        return torch.tensor([self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]], dtype=torch.long, device=self.device)

    def _score(self, inputs: dict[str, torch.Tensor], tokens: torch.Tensor) -> float:
        joined = dict(inputs)
        joined["input_ids"] = torch.cat([inputs["input_ids"], tokens], dim=1)
        joined["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(tokens)], dim=1)
        if "token_type_ids" in joined:
            joined["token_type_ids"] = torch.cat([inputs["token_type_ids"], torch.zeros_like(tokens)], dim=1)
        if "mm_token_type_ids" in joined:
            joined["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(tokens)], dim=1)
        with torch.inference_mode():
            logits = self.module(**joined).logits[0, -tokens.shape[1] - 1 : -1].float()
        return float(logits.log_softmax(dim=-1).gather(1, tokens[0][:, None]).sum())

    def _inputs(self, conversation: Sequence[Message]) -> dict[str, torch.Tensor]:
        """What the processor makes of a conversation: by its chat template, or, without one, of one picture and the text."""
        if getattr(self.processor, "chat_template", None):
            messages = [{"role": message.role, "content": [_content(part) for part in message.parts]} for message in conversation]
            made = self.processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        else:
            parts = [part for message in conversation for part in message.parts]
            words = " ".join(part.text for part in parts if isinstance(part, Text))
            pictures = [_content(part)["image"] for part in parts if isinstance(part, Image)]
            if len(pictures) != 1:
                raise CannotError(f"{self.name} has no chat template: it answers about one picture, not {len(pictures)}")
            made = self.processor(images=pictures[0], text=words or None, return_tensors="pt")
        return {name: value.to(self.device) for name, value in made.items() if isinstance(value, torch.Tensor)}


def _content(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "image", "image": load_image(resolve(part))}
    raise CannotError(f"{part.kind} is not passed on to transformers yet; pictures and text are")


def _reason(error: Exception) -> str:
    """The first line of what a library said, with the kind of error where it said nothing or a bare word."""
    first = (str(error).splitlines() or [""])[0][:200]
    return first if " " in first else f"{type(error).__name__}: {first}"
