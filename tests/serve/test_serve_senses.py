"""Sounds and clips over HTTP, in the content parts that others send."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import tonggan
from senses import clip_rows, model_of, sound_rows
from tonggan.search import Index
from tonggan.serve.engine import Engine
from tonggan.serve.http import create_app
from tonggan.types import Model, Row


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Model, list[Row]]]:
    where = tmp_path_factory.mktemp("senses")
    model = tonggan.load(str(model_of(where / "model", "text", "audio", "video")))
    rows = [*sound_rows(where / "files", 2), *clip_rows(where / "files", 1)]
    index = Index.create(where / "index", model)
    index.add(model, rows)
    with Engine(model, index) as engine:
        yield TestClient(create_app(engine), base_url="http://127.0.0.1:8000"), model, rows


def packed(row: Row) -> str:
    path = (*row.audios, *row.videos)[0].path
    assert path is not None
    return base64.b64encode(path.read_bytes()).decode()


def sound(data: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def clip(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def test_sounds_and_clips_are_embedded_as_the_model_does(served: tuple[TestClient, Model, list[Row]]) -> None:
    client, model, rows = served
    first, second, last = (packed(row) for row in rows)
    given = [sound(first), "a bird", clip(f"data:video/mp4;base64,{last}"), sound(f"data:audio/wav;base64,{second}")]
    reply = client.post("/v1/embeddings", json={"input": given})
    assert reply.status_code == 200, reply.text
    found = np.array([one["embedding"] for one in reply.json()["data"]])
    expected = model.embed([rows[0].audios[0], "a bird", rows[2].videos[0], rows[1].audios[0]]).vectors
    assert np.abs(found - expected).max() < 1e-5
    alone = client.post("/v1/embeddings", json={"messages": [{"role": "user", "content": [sound(first)]}]})
    assert np.abs(np.array(alone.json()["data"][0]["embedding"]) - expected[0]).max() < 1e-5


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (sound("@@@@"), "base64 is damaged"),
        (sound("aGVsbG8="), "input 0: not a sound that can be read"),
        (sound("http://127.0.0.1:1/a.wav"), "base64 is damaged"),
        (clip("http://127.0.0.1:1/a.mp4"), "addresses are not followed here; send the file as a data URI"),
        (clip("file:///etc/passwd"), "addresses are not followed here"),
        (clip("data:video/mp4;base64,aGVsbG8="), "input 0: not a clip that can be read"),
        ({"type": "video_url", "image_url": {"url": "data:,x"}}, "type video_url needs its field 'video_url'"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}, "embeds audio, text, video, not image"),
    ],
)
def test_bad_parts_say_why(served: tuple[TestClient, Model, list[Row]], part: dict[str, Any], says: str) -> None:
    reply = served[0].post("/v1/embeddings", json={"input": [part]})
    assert reply.status_code == 400 and says in reply.json()["error"]["message"], reply.text


def test_what_is_found_has_a_thumbnail(served: tuple[TestClient, Model, list[Row]]) -> None:
    found = served[0].post("/v1/search", json={"query": "a bird", "limit": 3}).json()["data"]
    assert {one["id"] for one in found} == {"s0", "s1", "c0"}
    for one in found:
        head, _, data = one["thumbnail"].partition(",")
        assert head == "data:image/jpeg;base64" and base64.b64decode(data).startswith(b"\xff\xd8\xff")
