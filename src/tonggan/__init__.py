"""Tonggan 通感: one toolkit for models over text, images, sound and video.

    import tonggan
    model = tonggan.load("runs/demo")
    model.embed(["一只红色的鸟", tonggan.Image.open("bird.png")])

Names load lazily: `import tonggan` costs neither torch nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tonggan.types import Answer, Audio, Embeddings, EmbedOptions, Image, Message, Model, Row, Text, TongganError, Video

if TYPE_CHECKING:
    from tonggan.backends import load as load

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "Audio",
    "EmbedOptions",
    "Embeddings",
    "Image",
    "Message",
    "Model",
    "Row",
    "Text",
    "TongganError",
    "Video",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "load":
        from tonggan.backends import load

        return load
    raise AttributeError(f"module 'tonggan' has no attribute {name!r}")
