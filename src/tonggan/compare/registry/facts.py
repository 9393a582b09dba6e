"""What is known of a model. Cells keep the words of their source; what is worked out of them is a classification of ours.

Every rule below is an explicit table that ends in "unknown" where the words leave a doubt; nothing is filled in from elsewhere.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tonggan.compare.registry.reading import Line

Origin: TypeAlias = Literal["CN", "foreign", "unknown"]
Terms: TypeAlias = Literal["permissive", "conditions", "non-commercial", "proprietary", "unknown"]
Commercial: TypeAlias = Literal["yes", "conditions", "no", "unknown"]
Where: TypeAlias = Literal["stays with you", "in mainland China", "abroad", "unknown"]

COLUMNS = (
    "id", "display_name_en", "name_zh", "developer", "country_region", "release_date", "family_paradigm", "modalities_in",
    "modalities_out", "parameters", "vision_encoder", "text_backbone", "training_objectives", "context_resolution_notes", "licence",
    "weights", "languages", "source", "date_basis", "notes",
)  # fmt: skip
NEEDED = ("id", "display_name_en", "family_paradigm", "modalities_in", "modalities_out", "source")

MODALITIES = (
    "text", "image", "multi-image", "image tokens", "video", "audio", "speech", "embedding", "score", "boxes", "masks", "points", "JSON",
    "depth", "thermal", "infrared", "IMU",
)  # fmt: skip
CAPABILITIES: dict[str, tuple[Literal["in", "out"], frozenset[str]]] = {
    "embed": ("out", frozenset({"embedding"})),
    "chat": ("out", frozenset({"text"})),
    "draw": ("out", frozenset({"image"})),
    "film": ("out", frozenset({"video"})),
    "speak": ("out", frozenset({"speech", "audio"})),
    "locate": ("out", frozenset({"boxes", "masks", "points"})),
    "see": ("in", frozenset({"image", "multi-image"})),
    "watch": ("in", frozenset({"video"})),
    "hear": ("in", frozenset({"audio", "speech"})),
}
"""What a model can, by what goes in or comes out."""

PARADIGMS: dict[str, tuple[str, ...]] = {
    "two-tower": ("two-tower",),
    "fusion": ("fusion encoder", "encoder-decoder", "multiway", "MoME", "self-distillation"),
    "projector": ("projector+LLM",),
    "cross-attention": ("cross-attention LLM",),
    "unified": ("unified", "omni", "Thinker-Talker", "early-fusion", "heterogeneous MoE"),
    "generation": ("diffusion", "MLLM +", "AR "),
    "api": ("API",),
    "other": ("",),
}
"""Classes of `family_paradigm`, by how it begins; the first that fits."""

_LICENCES: tuple[tuple[str, Terms, Commercial], ...] = (
    (r"[^;]*(non-commercial|CC-BY-NC|research licen[cs]e)[^;]*", "non-commercial", "no"),
    (r".*;.*(non-commercial|CC-BY-NC|research licen[cs]e).*", "conditions", "conditions"),  # one part of several
    (r"(proprietary|original closed).*", "proprietary", "unknown"),
    (
        r".*(community licen[cs]e|Tongyi Qianwen|Qwen licen[cs]e|DeepSeek model licen[cs]e|MiniMax model|CogVLM2 licen[cs]e"
        r"|CogVideoX licen[cs]e|GLM-4 licen[cs]e|Llama ?3(\.\d)? licen[cs]e|Gemma terms|Open RAIL|by registration).*",
        "conditions",
        "conditions",
    ),
    (r"modified MIT", "conditions", "conditions"),
    # Not "Apache-2.0 code" nor "MIT (repo)": what holds for the code need not hold for the weights.
    (
        r"(Apache-2\.0|MIT|BSD-[23](-Clause)?|CC0(-1\.0)?|CC-BY-4\.0)( \((README licence section|whatmodel\.sh)[^)]*\))?",
        "permissive",
        "yes",
    ),
)

_UNITS = {"M": 1e-3, "B": 1.0, "T": 1e3, "亿": 0.1}
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s?(M|B|T|亿)(?![A-Za-z])")
"""`7B` and `ViT-B/16 188M`, but neither the `3B` in `30B-A3B` (active parameters) nor the name `SO400M`."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One release of a model: the cells of its line, None where they are empty, and what follows from them."""

    id: str
    name: str
    name_zh: str | None
    developer: str | None
    country: str | None
    """`CN`, `US`, `EU`, `UK`, …; `community` for work of no one country."""
    released: str | None
    """`YYYY-MM` or `YYYY-MM-DD`."""
    paradigm: str
    """In the words of the table; `family` is its class."""
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    parameters: str | None
    vision_encoder: str | None
    text_backbone: str | None
    objectives: str | None
    context: str | None
    licence: str | None
    weights: str | None
    languages: str | None
    source: str
    date_basis: str | None
    notes: str | None
    file: str
    """The table that the line is in."""

    @property
    def origin(self) -> Origin:
        """`CN` or `foreign`, by the developer's country."""
        return "unknown" if self.country is None else "CN" if self.country == "CN" else "foreign"

    @property
    def family(self) -> str:
        """The class of the paradigm, one of `PARADIGMS`."""
        return next(name for name, beginnings in PARADIGMS.items() if self.paradigm.startswith(beginnings))

    @property
    def can(self) -> tuple[str, ...]:
        """Which of `CAPABILITIES` it has."""
        sides = {"in": set(self.takes), "out": set(self.gives)}
        return tuple(name for name, (side, words) in CAPABILITIES.items() if sides[side] & words)

    @property
    def sizes(self) -> tuple[float, ...]:
        """Numbers of parameters that the table names, in billions, ascending; see `sizes_in`."""
        return sizes_in(self.parameters or "")

    @property
    def open_weights(self) -> bool | None:
        """Whether weights can be had; None where the table does not say, or only that they are not at the usual place."""
        if self.weights is None or self.weights == "not HF":
            return None
        return not self.weights.startswith("closed")

    @property
    def terms(self) -> Terms:
        """The class of the licence."""
        return _licence(self.licence)[0]

    @property
    def commercial(self) -> Commercial:
        """Whether commercial use is allowed: `conditions` when the licence must be read, `unknown` also for a vendor's own contract."""
        return _licence(self.licence)[1]

    @property
    def data_goes(self) -> Where:
        """Where pictures and words go when the model is used: nowhere with open weights, else to where the vendor is at home."""
        if self.open_weights:
            return "stays with you"
        offered = self.paradigm.startswith("API") or (self.licence or "").startswith("proprietary")  # not a model only written about
        if self.open_weights is None or not offered or self.country is None:
            return "unknown"
        return "in mainland China" if self.origin == "CN" else "abroad"


def sizes_in(text: str) -> tuple[float, ...]:
    """Numbers of parameters in billions, ascending: `"0.8B / 7B; 30B-A3B"` gives 0.8, 7, 30.

    Parts joined by `+` are added (`307M+117M` are two towers of one model). What stands in brackets is left out (parts, or another count
    of the same model), and so are active parameters. Of `EVA-CLIP-8B 8.1B`, a name and a size, the size counts.
    """
    found = set()
    for group in re.split(r"[;；]", re.sub(r"[(（][^)）]*[)）]", " ", text)):
        if "activated" in group:  # said once for all of the group
            continue
        for item in re.split(r"[/,，、]|\.\.|\bor\b", group):
            if re.search(r"\bactive\b", item):
                continue
            named = [_SIZE.findall(part) for part in item.split("+")]
            total = sum(float(parts[-1][0]) * _UNITS[parts[-1][1]] for parts in named if parts)
            if total:
                found.add(round(total, 6))
    return tuple(sorted(found))


def months(released: str) -> int:
    """A release date as a number of months, to be subtracted."""
    return int(released[:4]) * 12 + int(released[5:7]) - 1


def is_date(text: str) -> bool:
    """Whether it is `YYYY-MM` or `YYYY-MM-DD`, and in the calendar."""
    found = re.fullmatch(r"(\d{4})-(\d\d)(?:-(\d\d))?", text)
    if not found:
        return False
    year, month, day = (int(part or 1) for part in found.groups())
    return 1990 <= year < 2100 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]


def _licence(text: str | None) -> tuple[Terms, Commercial]:
    for pattern, terms, commercial in _LICENCES:
        if text is not None and re.fullmatch(pattern, text, re.IGNORECASE):
            return terms, commercial
    return "unknown", "unknown"


def model_of(line: Line) -> ModelFacts:
    """A line of `models.tsv`; notes what is wrong with it."""
    country = line.text("country_region")
    if country is not None:
        line.matching("country_region", r"[A-Z]{2}|other \([A-Za-z/]+\)", "CN, US, EU, another code of two letters, other (WHERE), or none")
        country = country.removeprefix("other (").rstrip(")")
    released = line.text("release_date")
    if released is not None and not is_date(released):
        line.wrong("release_date", "YYYY-MM or YYYY-MM-DD, or empty when it is not known")
    return ModelFacts(
        id=line.matching("id", r"[a-z0-9][a-z0-9._+-]*", "small letters, digits and . _ + -, such as qwen2.5-vl"),
        name=line.required("display_name_en", "the model's name"),
        name_zh=line.text("name_zh"),
        developer=line.text("developer"),
        country=country,
        released=released,
        paradigm=line.required("family_paradigm", "how the model is built, such as projector+LLM"),
        takes=_modalities(line, "modalities_in"),
        gives=_modalities(line, "modalities_out"),
        parameters=line.text("parameters"),
        vision_encoder=line.text("vision_encoder"),
        text_backbone=line.text("text_backbone"),
        objectives=line.text("training_objectives"),
        context=line.text("context_resolution_notes"),
        licence=line.text("licence"),
        weights=line.text("weights"),
        languages=line.text("languages"),
        source=line.required("source", "where this was read; a fact without a source is not kept"),
        date_basis=line.text("date_basis"),
        notes=line.text("notes"),
        file=line.file,
    )


def _modalities(line: Line, column: str) -> tuple[str, ...]:
    plain = re.sub(r"\([^)]*\)", "", line.required(column, "modalities, such as image,text"))
    words = tuple(word.strip() for word in re.split(r"[,，/、]", plain) if word.strip())
    if any(word not in MODALITIES for word in words):
        line.wrong(column, f"of {', '.join(MODALITIES)}, separated by commas")
    return words
