"""A frozen tower encodes each row once; what it gives is kept on disk and stands in for its input from then on.

Equal to encoding again in every batch, because a frozen tower is in evaluation mode and its input is not augmented, except
by the fixed views that are encoded too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from torch import Tensor

from tonggan.backends.local import LocalModel
from tonggan.data.media import read_bytes
from tonggan.data.sources import cache_home
from tonggan.models import DualEncoder
from tonggan.models.ngram import BilingualText
from tonggan.tensors import Tokens
from tonggan.types import Dropped, MediaError, Row

log = logging.getLogger("tonggan")
BATCH = 64
"""Pictures encoded at a time."""
BATCH_TOKENS = 4096
"""Text encoded at a time: many short captions, or few long ones."""


def image_features(model: LocalModel, rows: Sequence[Row], views: int = 1) -> tuple[dict[str, Tensor], list[Dropped]]:
    """Pooled features of each row's first picture by row id, [width] or [views, width]; and the rows that cannot be read."""
    module = model.module
    assert model.processor.image is not None and isinstance(module, DualEncoder) and module.image is not None
    processor, dropped, keys, pixels_of = model.processor.image, [], [], {}
    for row in rows:
        try:
            keys.append((row.id, hashlib.sha256(read_bytes(row.images[0])).hexdigest()[:24]))
            pixels_of[row.id] = row.images[0]
        except MediaError as error:
            dropped.append(Dropped(row.id, error.reason))
    shape = module.config.image.model_dump(mode="json") if module.config.image is not None else None
    store = _Store("image", {**model.processor.record()["image"], "views": views, "tower": shape}, module.image)

    def read(key: tuple[str, str]) -> np.ndarray | MediaError:
        try:
            picture = processor.open(pixels_of[key[0]])
            return np.stack([processor(view(picture, k)) for k in range(views)])
        except MediaError as error:
            return error

    def encode(some: list[tuple[str, str]]) -> list[Tensor | MediaError]:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(read, some))
        good = [f for f in found if not isinstance(f, MediaError)]
        made = iter(())
        if good:
            with torch.inference_mode():
                flat = torch.from_numpy(np.concatenate(good)).to(model.device)
                rows_ = torch.cat([module.features("image", flat[i : i + BATCH]) for i in range(0, len(flat), BATCH)])
            made = iter(rows_.float().cpu().clone().view(len(good), views, -1))
        return [f if isinstance(f, MediaError) else next(made) for f in found]

    features: dict[str, Tensor] = {}
    for start in range(0, len(keys), BATCH):
        some = keys[start : start + BATCH]
        missing = [key for key in some if key[1] not in store]
        for key, value in zip(missing, encode(missing) if missing else [], strict=True):
            if isinstance(value, MediaError):
                dropped.append(Dropped(key[0], value.reason))
            else:
                store[key[1]] = value
        features |= {name: store[content] if views > 1 else store[content][0] for name, content in some if content in store}
    store.write()
    return features, dropped


def text_features(model: LocalModel, captions: Iterable[str]) -> dict[str, Tensor]:
    """Pooled features of each caption: [width]."""
    module, tokenizer = model.module, model.processor.text
    assert tokenizer is not None and isinstance(module, DualEncoder) and module.text is not None
    shape = module.config.text.model_dump(mode="json") if module.config.text is not None else None
    store = _Store("text", {**model.processor.record()["text"], "tower": shape}, module.text)
    keys = {caption: hashlib.sha256(caption.encode()).hexdigest()[:24] for caption in captions}
    missing = [caption for caption, key in keys.items() if key not in store]
    ids, _ = tokenizer.encode(missing)
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    with torch.inference_mode():
        while order:
            size = max(1, BATCH_TOKENS // len(ids[order[0]]))  # the longest of those that are left
            some, order = order[:size], order[size:]
            tokens = model.processor.collate([ids[i] for i in some])
            rows = module.features("text", Tokens(tokens.ids.to(model.device), tokens.lengths.to(model.device)))
            for i, row in zip(some, rows.float().cpu().clone(), strict=True):
                store[keys[missing[i]]] = row
    store.write()
    return {caption: store[key] for caption, key in keys.items()}


def bert_features(model: LocalModel, captions: Iterable[str]) -> dict[str, Tensor]:
    """Pooled features of those captions that a bilingual tower sends to its BERT: [width]."""
    module, tokenizer = model.module, model.processor.text
    assert tokenizer is not None and isinstance(module, DualEncoder) and isinstance(module.text, BilingualText)
    each = list(dict.fromkeys(captions))
    ids, _ = tokenizer.encode(each)
    return text_features(model, [caption for caption, own in zip(each, ids, strict=True) if not bool(module.text.is_han[own].any())])


def view(picture: PIL.Image.Image, number: int) -> PIL.Image.Image:
    """View 0 is the picture, 1 its mirror image, 2 the picture with a white margin, 3 both."""
    if number >= 2:
        width, height = (round(side / 0.85) for side in picture.size)
        larger = PIL.Image.new("RGB", (width, height), (255, 255, 255))
        larger.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
        picture = larger
    return PIL.ImageOps.mirror(picture) if number % 2 else picture


class _Store:
    """Features by content on disk, in one file per tower (its shape and its weights) and way of looking."""

    def __init__(self, kind: str, looking: dict[str, object], tower: torch.nn.Module) -> None:
        digest = hashlib.sha256(json.dumps(looking, sort_keys=True, default=str).encode())
        for name, tensor in sorted(tower.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        self._path: Path = cache_home() / "features" / f"{kind}-{digest.hexdigest()[:24]}.npz"
        self._known: dict[str, Tensor] = {}
        self._changed = False
        if self._path.is_file():
            try:
                with np.load(self._path) as stored:
                    self._known = dict(zip(stored["keys"].tolist(), torch.from_numpy(stored["values"]), strict=True))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                self._known = {}  # a damaged cache is made again

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Tensor:
        return self._known[key]

    def __setitem__(self, key: str, value: Tensor) -> None:
        self._known[key] = value
        self._changed = True

    def write(self) -> None:
        """Keep what is new."""
        if not self._changed:
            return
        temporary = self._path.with_suffix(f".{os.getpid()}.part.npz")  # another run may be writing the same features
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(temporary, keys=np.array(list(self._known)), values=torch.stack(list(self._known.values())).numpy())
            temporary.replace(self._path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            log.warning("%s: features could not be kept (%s); they will be computed again next time", self._path, error.strerror)
