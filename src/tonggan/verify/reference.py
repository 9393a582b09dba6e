"""The published model and its processor, as `transformers` (or `sentence-transformers`) opens the same directory."""

from __future__ import annotations

import copy
import inspect
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tonggan.data.processor import Processor
from tonggan.data.video import load_frames
from tonggan.hub.convert.table import KeyTable
from tonggan.hub.weights import read_weights
from tonggan.types import Audio, MissingExtra, TongganError, Video
from tonggan.verify.conversations import LibrarysProcessor
from tonggan.verify.inputs import Items, pictures
from tonggan.verify.precision import own_memory

LONGEST = 1_000_000
"""Tokenizers that know no longest text say 10^30."""


class Refused(TongganError):
    """The reference cannot read what ours reads."""


INSIDE = frozenset({"attentions", "cross_attentions", "hidden_states", "past_key_values", "loss"})
"""What a forward may show of its way; all else that it gives is an output."""


class Reference:
    """Opened by its own library, in single precision on the CPU. Nothing is downloaded, no code of the directory is run. `table` has the
    names under which its weights are published."""

    def __init__(self, directory: Path, table: KeyTable | None = None) -> None:
        try:
            import transformers
        except ImportError:
            raise MissingExtra("a check against transformers", "hf") from None
        self._library = transformers
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.directory, self._table = directory, table
        self.versions = {"transformers": transformers.__version__}
        if not (directory / "config.json").is_file():
            raise TongganError(f"{directory}: there is no config.json, so transformers does not know what it is (open_clip's have none)")
        raw = json.loads((directory / "config.json").read_text("utf-8"))
        named = next(iter(raw.get("architectures") or ()), "")
        made = getattr(transformers, named, transformers.AutoModel)
        self.module: nn.Module = self._open(made, dtype=torch.float32).eval()
        own_memory(self.module)
        # Of an encoder-decoder without a head for words only the encoder is ours.
        alone = getattr(self.module.config, "is_encoder_decoder", False) and not self.module.can_generate()
        self._called: nn.Module = self.module.get_encoder() if alone else self.module
        if "bool_masked_pos" in _required(self._called):  # a head that only fills in what is hidden (VideoMAE's) has nothing to say
            self._called = self.module.base_model
        self._sentences: Any = self._sentence_encoder() if (directory / "modules.json").is_file() else None

    @property
    def modules(self) -> list[nn.Module]:
        """All that computes in `forward`."""
        return [self.module] if self._sentences is None else [self.module, self._sentences]

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `bare` gives, and the sentences' vectors of a directory of `sentence-transformers`, by that library."""
        found = self.bare(inputs)
        if self._sentences is not None:
            features = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            found["sentence_embedding"] = nn.functional.normalize(self._sentences(features)["sentence_embedding"], dim=-1)
        return found

    def bare(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every named tensor that the module's forward gives, a part's under the part's name (`text_last_hidden_state`); and what parts
        give on the way that it does not show: the model under a head, and two towers before they are projected (`text_tower_output`).

        Raises `Refused` for inputs that it cannot read.
        """
        given, known = self.accepted(inputs), inspect.signature(self._called.forward).parameters
        with _in_order(), self._overheard() as found:
            try:
                output = self._called(**given)
            except (ValueError, RuntimeError, LookupError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                raise Refused(f"the reference refuses {', '.join(given)}: {reason}") from None
            found |= _flat(output) | _features(output)
            if "prediction_logits" in found:  # so BERT with both its heads calls what its others call logits
                found["logits"] = found.pop("prediction_logits")
            if "use_itm_head" in known:
                # BLIP says by the same names what it makes of pictures and texts apart; here they are named as `hub.outputs` does.
                apart = _flat(self._called(**given, use_itm_head=False))
                found |= {"itc_score": apart["itm_score"], "text_last_hidden_state": apart["question_embeds"]}
        return found

    @contextmanager
    def _overheard(self) -> Iterator[dict[str, Tensor]]:
        """Fills with what parts of the module give while it runs."""
        found: dict[str, Tensor] = {}

        def tower(name: str, output: Mapping[str, Any]) -> None:
            if isinstance(pooled := output.get("pooler_output"), Tensor):
                found[f"{name}_tower_output"] = pooled

        with ExitStack() as hooks:
            base = getattr(self._called, "base_model", self._called)
            if base is not self._called:
                hooks.callback(base.register_forward_hook(lambda _, args, output: found.update(_flat(output))).remove)
            for name in ("text", "vision"):
                if isinstance(part := getattr(self._called, f"{name}_model", None), nn.Module):
                    hooks.callback(part.register_forward_hook(lambda _, args, output, name=name: tower(name, output)).remove)
            yield found

    def accepted(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those inputs that its forward has a name for. Where a text may see any of several pictures, each sees its own one whole."""
        known = inspect.signature(self._called.forward).parameters
        found = {name: tensor for name, tensor in inputs.items() if name in known}
        if "image_attention_mask" in known and "image_attention_mask" not in found:
            found["pixel_values"] = found["pixel_values"][:, None]
            found["image_attention_mask"] = torch.ones(*found["input_ids"].shape, 1, dtype=torch.long)
        if "decoder_input_ids" in known and "decoder_input_ids" not in found and getattr(self.module.config, "is_encoder_decoder", False):
            rows = next(iter(found.values()))  # what is said of them makes no difference to a comparison: the text itself, or any
            found["decoder_input_ids"] = inputs["input_ids"] if "input_ids" in found else torch.arange(3, 8).repeat(len(rows), 1)
        return found

    def positions(self, frames: int) -> int:
        """How many states a sound of so many samples or frames has."""
        return int(self._called._get_feat_extract_output_lengths(torch.tensor(frames)))  # type: ignore[operator]

    @cached_property
    def names(self) -> dict[str, str]:
        """The name that each parameter has in the published file, and its own in the module: the library renames some on the way.

        Found out by saving a twin whose parameters are numbered, so it holds for whatever the library does.
        """
        twin = copy.deepcopy(self.module)
        own = [name for name, _ in twin.named_parameters()]
        with torch.no_grad(), tempfile.TemporaryDirectory() as place:
            for number, parameter in enumerate(twin.parameters()):
                parameter.fill_(number)
            for buffer in twin.buffers():
                buffer.copy_(torch.full_like(buffer, -1))
            twin.save_pretrained(place)  # type: ignore[operator]
            saved = read_weights(Path(place))
        found = {name: own[int(t.flatten()[0])] for name, t in saved.items() if t.numel() and int(t.flatten()[0]) >= 0}
        # Files of a model have no prefix, those of one under a head have; both are read.
        prefix = f"{getattr(self.module, 'base_model_prefix', '')}."
        every = {form: name for one, name in found.items() for form in (prefix + one, one.removeprefix(prefix))} | found
        # Other releases have other names (LLaVA's towers); ours go by the first of them.
        return {first: name for one, name in every.items() if self._table is not None and (first := self._table.first(one))} | every

    def prepare(self, items: Items, processor: Processor) -> dict[str, Tensor]:
        """What its own processor makes of the same files and strings, with whatever its files say; `processor` is ours and says only which
        parts there are."""
        if items.conversations and processor.chat is not None:
            return self._conversations(items.conversations, processor.chat)
        made: dict[str, Any] = {}
        if items.texts and processor.text is not None:
            # How a family pads is written in no file: SigLIP's processor is always told.
            padding: dict[str, Any] = {"padding": "max_length" if processor.text.config.pad_to is not None else True}
            padding["padding_side"] = "right"  # as ours; where the side makes a difference, another than that is not read
            longest = self._longest(self._tokenizer)
            made |= self._tokenizer(list(items.texts), truncation=True, max_length=longest, return_tensors="pt", **padding)
        if items.images:
            pixels = self._pictures(pictures(items.images), return_tensors="pt")
            made |= {"pixel_values": pixels} if isinstance(pixels, Tensor) else pixels  # bare from Idefics' processor
        if items.clips and processor.video is not None:
            # Which frames are taken is the caller's matter there, so ours are given.
            config = processor.video.config
            clips = [list(load_frames(Video.open(file), config.frames, config.sampling)) for file in items.clips]
            made |= self._pictures(clips, return_tensors="pt")
        if items.sounds and processor.audio is not None:
            rate = processor.audio.config.rate
            sounds = [processor.audio.open(Audio.open(file))[0] for file in items.sounds]
            padding = {"padding": True} if processor.audio.config.kind == "waveform" else {}
            made |= self._sounds(sounds, sampling_rate=rate, return_tensors="pt", **padding)
        return {name: value for name, value in made.items() if isinstance(value, Tensor)}

    @cached_property
    def _tokenizer(self) -> Any:
        made = self._open(self._library.AutoTokenizer)
        if made.pad_token is None:  # as of many language models: the mask hides what it is
            made.pad_token = made.eos_token
        return made

    @cached_property
    def _pictures(self) -> Any:
        return self._open(self._library.AutoImageProcessor, backend="pil")

    @cached_property
    def _conversations(self) -> LibrarysProcessor:
        return LibrarysProcessor(self.directory, self.module, self._pictures, self._tokenizer)

    @cached_property
    def _sounds(self) -> Any:
        return self._open(self._library.AutoFeatureExtractor)

    def _longest(self, tokenizer: Any) -> int:
        if self._sentences is not None:
            return int(self._sentences.max_seq_length)
        text = getattr(self.module.config, "text_config", self.module.config)
        places = int(getattr(text, "max_position_embeddings", LONGEST))
        return min(places, int(tokenizer.model_max_length)) if tokenizer.model_max_length < LONGEST else places

    def _sentence_encoder(self) -> Any:
        try:
            import sentence_transformers
        except ImportError:
            raise TongganError(
                f"{self.directory}: a sentence encoder; how long its texts may be and what its vectors are, only sentence-transformers "
                "says, and it is not installed: pip install sentence-transformers"
            ) from None
        self.versions |= {"sentence-transformers": sentence_transformers.__version__}
        encoder = sentence_transformers.SentenceTransformer(str(self.directory), device="cpu", local_files_only=True).eval()
        own_memory(encoder)
        return encoder

    def _open(self, kind: Any, **settings: Any) -> Any:
        try:
            return kind.from_pretrained(self.directory, local_files_only=True, **settings)
        except Exception as error:  # the library raises whatever its readers do
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise TongganError(f"{self.directory}: transformers cannot open it as {kind.__name__}: {reason}") from None


def _features(output: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the words' model reads of pictures, which the library gives one by one: as one tensor where they have one shape."""
    found = (output.get("image_outputs") or {}).get("pooler_output")
    if not isinstance(found, list | tuple) or len({one.shape for one in found}) != 1:
        return {}
    return {"image_hidden_states": torch.stack(list(found))}


def _required(module: nn.Module) -> set[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    return {one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD}


@contextmanager
def _in_order() -> Iterator[None]:
    """ViLT draws the order of a picture's patches by lot, also in evaluation; here every lot falls on the next."""
    drawn = torch.multinomial
    torch.multinomial = lambda weights, count, **_: torch.arange(int(count)) % len(weights)
    try:
        yield
    finally:
        torch.multinomial = drawn


def _flat(output: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in output.items():
        if name in INSIDE:
            continue
        if isinstance(value, Tensor):
            found[prefix + name] = value
        elif isinstance(value, tuple):
            found |= {f"{prefix}{name}.{i}": one for i, one in enumerate(value) if isinstance(one, Tensor)}
        elif isinstance(value, Mapping):
            found |= _flat(value, name.removesuffix("model_output").removesuffix("outputs"))
    return found
