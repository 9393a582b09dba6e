"""A comparison as a user runs it, on a table of questions: a model of ours, two of `transformers`, and a provider that misbehaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from e2e.people import draw
from tonggan.recipes.config import RunConfig
from tonggan.recipes.run import Run

pytest.importorskip("transformers", reason="the extra 'hf' is not installed")
pytest.importorskip("openai", reason="the extra 'api' is not installed")
import tiny

STANDIN = Path(__file__).parent.parent / "standin.py"
SHAPE = {
    "kind": "dual_encoder",
    "image": {"kind": "vit", "image_size": 64, "patch_size": 16, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
    "text": {"kind": "transformer", "vocab_size": 400, "context": 48, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
    "dim": 16,
}
FAULTS = ("[429]", "[500]", "[slow]", "[half]", "[wrong json]", "[refuse]", "[filter]", "[cut]")


def table(folder: Path, marks: tuple[str, ...], n: int) -> Path:
    """Questions in GB18030 with columns as people name them; the first ones carry a fault each."""
    folder.mkdir()
    colours = {"红": (220, 30, 30), "绿": (30, 180, 60), "蓝": (40, 60, 220)}
    with (folder / "题目.csv").open("w", encoding="gb18030", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["图片", "问题", "A", "B", "C", "答案"])
        for i in range(n):
            name = list(colours)[i % 3]
            draw("circle", colours[name], i).save(folder / f"{i}.png")
            writer.writerow([f"{i}.png", f"{marks[i] if i < len(marks) else ''} 第{i}张图是什么颜色？", *colours, "ABC"[i % 3]])
    return folder / "题目.csv"


def models(folder: Path) -> list[str]:
    stream = {"data": {"source": "scenes", "options": {"n": 30}, "split": None}, "loader": {"batch_size": 8}}
    stage = {"streams": [stream], "train": {"steps": 2}}
    config = RunConfig.parse({"name": "ours", "model": {"config": SHAPE, "vocab_size": 400}, "stages": [stage]})
    Run(config, folder / "ours", quiet=True).train()
    return [str(folder / "ours"), *(str(tiny.llava(folder / f"llava-{seed}", seed, brief=True)) for seed in range(2))]


@pytest.fixture
def provider() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, str(STANDIN), "0.02"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    process.kill()
    process.wait()


def seen(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url + "/counts") as reply:
        counts: dict[str, int] = json.load(reply)["seen"]
        return counts


def command(names: list[str], data: Path, out: Path, *further: str) -> list[str]:
    columns = ["--image-col", "图片", "--question-col", "问题"]
    return [sys.executable, "-m", "tonggan.cli", "compare", *names, "--on", str(data), "--out", str(out), *columns, *further]


@pytest.mark.slow
def test_a_comparison_is_complete_whatever_a_provider_does(tmp_path: Path, provider: str) -> None:
    names = [*models(tmp_path), f"openai+{provider}#tiny"]
    data = table(tmp_path / "data", FAULTS, 12)
    done = subprocess.run(command(names, data, tmp_path / "out", "--json"), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (task,) = told["scores"]
    scores = told["scores"][task]
    assert set(scores) == set(names), done.stderr
    outcomes = scores[names[3]]["outcomes"]
    assert (outcomes["refused"], outcomes["filtered"], outcomes["truncated"]) == (1, 1, 1)
    assert outcomes["error"] == 2, "half an answer and wrong JSON; 429 and 500 were tried again, the slow one came"
    assert [one["why"] for one in told["not_compared"]] == ["asked differently"] * 3, "the model of ours was asked by vectors"
    assert {(p["one"], p["other"]) for p in told["pairs"]} == {(names[1], names[2]), (names[1], names[3]), (names[2], names[3])}
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "各模型答案不一致" in page and "张图是什么颜色" in page
    table_of_items = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert {one["model"] for one in table_of_items} == set(names)
    assert sum(one["model"] == names[3] and not one["blind"] for one in table_of_items) == 12
    kept = sum(len(file.read_text("utf-8").splitlines()) for file in (tmp_path / "out" / "results").rglob("*.items.jsonl"))
    assert kept == 2 * 4 * 12, "every answer is on file, with pictures and without"
    # Again: what failed is asked again, nothing else.
    before = seen(provider)
    subprocess.run(command(names, data, tmp_path / "out", "--json"), capture_output=True, check=True, timeout=400)
    after = seen(provider)
    changed = {question for question in after if after[question] > before.get(question, 0)}
    assert changed and all("[half]" in q or "[wrong json]" in q for q in changed)


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(tmp_path: Path, provider: str) -> None:
    data = table(tmp_path / "data", (), 40)
    run: list[Any] = command([f"openai+{provider}#tiny"], data, tmp_path / "out")
    child = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while sum(seen(provider).values()) < 20:
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    time.sleep(0.3)
    subprocess.run(run, check=True, capture_output=True, timeout=300)
    counts = seen(provider)
    assert sum(counts.values()) <= 80 + 4, "40 questions, with and without pictures; at most those under way are repeated"
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_what_would_be_sent_is_told_before_and_a_limit_is_kept(tmp_path: Path, provider: str) -> None:
    data = table(tmp_path / "data", (), 10)
    name = f"openai+{provider}#tiny"
    dry = subprocess.run(command([name], data, tmp_path / "out", "--dry-run", "--json"), capture_output=True, text=True, check=True)
    (planned,) = json.loads(dry.stdout)
    assert planned["requests"] == 20 and planned["bytes"] > 1000 and planned["pictures"] == 10 and planned["cost"] is None
    priced = [*command([name], data, tmp_path / "out", "--dry-run", "--json"), "--price", f"{name}=1000,2000,CNY,100"]
    (planned,) = json.loads(subprocess.run(priced, capture_output=True, text=True, check=True).stdout)
    assert planned["cost"] > 20 * 512 * 2000 / 1e6, "at least what so many answers of full length would cost"
    tight = [*command([name], data, tmp_path / "out"), "--price", f"{name}=1000,2000,CNY,100", "--max-cost", "1 CNY"]
    stopped = subprocess.run(tight, capture_output=True, text=True)
    assert stopped.returncode == 1 and "of the budget of 1," in stopped.stdout + stopped.stderr
    assert not seen(provider), "not even the first question fits"
    done = subprocess.run(command([name], data, tmp_path / "out", "--max-requests", "5"), capture_output=True, text=True)
    assert done.returncode == 1 and "5 requests is used up" in done.stdout + done.stderr
    assert sum(seen(provider).values()) == 5
    assert (tmp_path / "out" / "report.html").is_file(), "what there is is reported"
    subprocess.run(command([name], data, tmp_path / "out"), check=True, capture_output=True)
    assert sum(seen(provider).values()) == 20, "the five are not asked again"
