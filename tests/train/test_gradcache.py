"""GradCache gives exactly the gradient of the whole batch, dropout included, in the memory of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonggan.objectives.contrastive import info_nce
from tonggan.tensors import Batch, Sounds, StepOutput
from tonggan.train import checkpoint, gradcache
from tonggan.train.gradcache import cached_backward


class Toy(nn.Module):
    """Two little towers with dropout, a learned scale, and a record of how many rows each encoding saw."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 5))
        self.b = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 5))
        self.log_scale = nn.Parameter(torch.tensor([math.log(10.0)]))
        self.seen: list[int] = []

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        self.seen.append(len(batch))
        assert batch.image_features is not None and batch.text_features is not None
        return {"a": F.normalize(self.a(batch.image_features), dim=1), "b": F.normalize(self.b(batch.text_features), dim=1)}

    def couple(self, reps: dict[str, Tensor], keys: Tensor | None) -> StepOutput:
        found = info_nce(reps["a"], reps["b"], self.log_scale, keys=keys)
        return StepOutput(found.loss, {"loss": float(found.loss.detach())})


def batch(n: int = 23) -> Batch:
    return Batch(
        ids=tuple(map(str, range(n))),
        image_features=torch.randn(n, 6),
        text_features=torch.randn(n, 4),
        keys=torch.randint(0, 9, (n, 2)),
    )


@pytest.fixture(autouse=True)
def _double() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("micro", [1, 5, 8, 22])
def test_equals_the_plain_gradient(micro: int) -> None:
    step, data = Toy(dropout=0.0), batch()
    plain = step.couple(step.encode(data), data.keys)
    plain.loss.backward()
    expected = {name: p.grad.clone() for name, p in step.named_parameters() if p.grad is not None}
    step.zero_grad()
    cached = cached_backward(step, data, micro)
    assert float(cached.loss) == pytest.approx(float(plain.loss), abs=1e-12)
    for name, p in step.named_parameters():
        assert p.grad is not None
        # The scale too: accumulation that repeats the loss per part makes its gradient as many times too large.
        assert torch.allclose(p.grad, expected[name], atol=1e-12, rtol=0), name


def test_dropout_is_replayed() -> None:
    step, data = Toy(dropout=0.5), batch()
    torch.manual_seed(7)
    cached_backward(step, data, 5)
    got = {name: p.grad.clone() for name, p in step.named_parameters() if p.grad is not None}
    after = torch.get_rng_state()
    step.zero_grad()
    torch.manual_seed(7)
    parts = [step.encode(data.slice(i, i + 5)) for i in range(0, 23, 5)]
    step.couple({k: torch.cat([p[k] for p in parts]) for k in parts[0]}, data.keys).loss.backward()
    for name, p in step.named_parameters():
        assert p.grad is not None
        assert torch.allclose(got[name], p.grad, atol=1e-12, rtol=0), name
    assert torch.equal(after, torch.get_rng_state()), "the generator stands where one encoding leaves it"


def test_the_generator_of_the_batchs_own_gpu_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only which device is asked for: no GPU is needed."""
    second = torch.device("cuda:1")
    states = {second: torch.ones(3), torch.device("cuda:0"): torch.zeros(3)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: put.append((state, device)))
    put: list[tuple[Tensor, torch.device]] = []
    on_second = Batch(ids=("a",), pixels=SimpleNamespace(device=second))  # type: ignore[arg-type]
    gradcache._restore(gradcache._random_state(on_second))
    checkpoint.restore_random(*checkpoint.random_state(second), second)
    assert [(float(state.sum()), device) for state, device in put] == [(3.0, second)] * 2


@pytest.mark.parametrize("name", ["pixels", "tokens", "sounds", "clips", "image_features", "text_features"])
def test_any_tensor_of_a_batch_says_which_gpu(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    second = torch.device("cuda:1")
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", asked.append)
    gradcache._random_state(Batch(ids=("a",), **{name: SimpleNamespace(device=second)}))  # type: ignore[arg-type]
    assert asked == [second]


def test_sounds_are_encoded_twice_with_the_same_dropout() -> None:
    """Bit for bit, in parts of other lengths than one another."""
    data = Batch(tuple("abcde"), sounds=Sounds(torch.randn(5, 9), torch.tensor([9, 4, 7, 1, 8])), clips=torch.randn(5, 4))
    encoded: list[dict[str, Tensor]] = []

    class Hearing(Toy):
        def encode(self, batch: Batch) -> dict[str, Tensor]:
            assert batch.sounds is not None and batch.clips is not None
            heard, seen = batch.sounds.values[:, :6] * batch.sounds.lengths[:, None], batch.clips
            encoded.append({"a": F.normalize(self.a(heard), dim=1), "b": F.normalize(self.b(seen), dim=1)})
            return encoded[-1]

    cached_backward(Hearing(dropout=0.5), data, 2)
    assert len(encoded) == 6
    for first, second in zip(encoded[:3], encoded[3:], strict=True):
        assert all(torch.equal(first[name], second[name]) for name in ("a", "b"))
    assert not torch.equal(encoded[0]["a"], Hearing(dropout=0.5).encode(data.slice(0, 2))["a"]), "dropout was at work"


def test_never_encodes_more_than_a_part() -> None:
    step = Toy()
    cached_backward(step, batch(), 6)
    assert max(step.seen) == 6
    assert sum(step.seen) == 2 * 23


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision(dtype: torch.dtype) -> None:
    step, data = Toy(dropout=0.0).to(dtype), batch(64)
    assert data.image_features is not None and data.text_features is not None
    data = replace(data, image_features=data.image_features.to(dtype), text_features=data.text_features.to(dtype))
    step.couple(step.encode(data), data.keys).loss.backward()
    expected = [p.grad.clone() for p in step.parameters() if p.grad is not None]
    step.zero_grad()
    cached_backward(step, data, 7)
    for p, plain in zip(step.parameters(), expected, strict=True):
        assert p.grad is not None and p.grad.dtype == dtype
        assert float((p.grad - plain).abs().max() / plain.abs().max()) < (1e-5 if dtype == torch.float32 else 1e-10)


def test_the_scale_gets_its_gradient_once() -> None:
    """The usual accumulation, one loss per part against the others' fixed representations, gives it as many times as there are parts."""
    step, data = Toy(dropout=0.0), batch(24)
    step.couple(step.encode(data), data.keys).loss.backward()
    whole = float(step.log_scale.grad)  # type: ignore[arg-type]
    feature = step.a[0].weight.grad.clone()  # type: ignore[union-attr, operator]
    step.zero_grad()
    with torch.no_grad():
        fixed = step.encode(data)
    for start in range(0, 24, 6):
        mine = step.encode(data.slice(start, start + 6))
        joined = {name: torch.cat([fixed[name][:start], mine[name], fixed[name][start + 6 :]]) for name in mine}
        step.couple(joined, data.keys).loss.backward()
    assert torch.allclose(step.a[0].weight.grad, feature)  # type: ignore[union-attr, arg-type]
    assert float(step.log_scale.grad) / whole == pytest.approx(4)  # type: ignore[arg-type]
    step.zero_grad()
    cached_backward(step, data, 6)
    assert float(step.log_scale.grad) / whole == pytest.approx(1)  # type: ignore[arg-type]


def test_memory_is_that_of_a_part() -> None:
    """Bytes that autograd holds at one time, counted as tensors are saved and freed."""

    class Held:
        now = most = 0

        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            self.bytes = tensor.numel() * tensor.element_size()
            Held.now += self.bytes
            Held.most = max(Held.most, Held.now)

        def __del__(self) -> None:
            Held.now -= self.bytes

    def most(run: Callable[[], object]) -> int:
        Held.now = Held.most = 0
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            run()
        return Held.most

    def widen(step: Toy) -> Toy:
        step.a = nn.Sequential(*[nn.Sequential(nn.Linear(6, 256), nn.GELU(), nn.Linear(256, 6)) for _ in range(4)], nn.Linear(6, 5))
        return step

    step, data = widen(Toy()), batch(128)
    plain = most(lambda: step.couple(step.encode(data), data.keys).loss.backward())
    cached = most(lambda: cached_backward(step, data, 8))
    assert cached < plain / 4
    assert most(lambda: cached_backward(step, data, 128)) > plain / 2  # the count itself sees activations


def test_all_parts_but_the_last_are_quiet() -> None:
    step, data, entered = Toy(), batch(), []

    @contextmanager
    def quiet() -> Iterator[None]:
        entered.append(len(step.seen))
        yield
        entered.append(len(step.seen))

    cached_backward(step, data, 6, quiet=quiet)
    assert entered == [4, 5, 5, 6, 6, 7]  # after four encodings without a graph; the eighth, the last part's, is outside


def test_a_frozen_tower_gets_no_gradient() -> None:
    step, data = Toy(dropout=0.0), batch()
    step.b.requires_grad_(False)
    cached_backward(step, data, 6)
    assert all(p.grad is None for p in step.b.parameters())
    assert all(p.grad is not None for p in step.a.parameters())


def test_a_part_has_at_least_one_row() -> None:
    with pytest.raises(ValueError, match="micro"):
        cached_backward(Toy(), batch(), 0)


def test_gradients_add_up() -> None:
    step, data = Toy(dropout=0.0), batch()
    cached_backward(step, data, 6)
    once = step.log_scale.grad.clone()  # type: ignore[union-attr]
    cached_backward(step, data, 6)
    assert torch.allclose(step.log_scale.grad, 2 * once)  # type: ignore[arg-type]
