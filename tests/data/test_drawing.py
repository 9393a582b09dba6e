"""Drawings are rendered in processes of their own: what ends or holds the renderer costs one drawing, and nothing is left over."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL.Image
import pytest

from tonggan.data import drawing
from tonggan.data.drawing import Painters
from tonggan.data.media import load_image
from tonggan.types import Image, MediaError

pytest.importorskip("resvg_py", reason="drawing needs the extra 'files'")

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10">{}</svg>'
DEEP = SVG.format("<g>" * 100_000 + "</g>" * 100_000)
NOISE = SVG.format(
    "<filter id='n'><feTurbulence baseFrequency='.1' numOctaves='2000000000'/></filter><rect width='20' height='10' filter='url(#n)'/>"
)


def square(red: int) -> str:
    return SVG.format(f'<rect width="20" height="10" fill="rgb({red},0,0)"/>')


def red(png: bytes) -> int:
    return PIL.Image.open(io.BytesIO(png)).convert("RGB").getpixel((5, 5))[0]  # type: ignore[index,return-value]


def gone(pid: int) -> bool:
    """Whether a process ended, within a moment."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def painters() -> Iterator[Painters]:
    painters = Painters(seconds=0.3)
    yield painters
    painters.close()


def test_one_process_draws_one_drawing_after_another(painters: Painters):
    assert [red(painters.draw("x", svg_string=square(n))) for n in range(5)] == [0, 1, 2, 3, 4]
    assert len(painters._all) == 1
    with pytest.raises(MediaError, match="corrupt drawing"):
        painters.draw("x", svg_string="<svg")
    assert len(painters._all) == 1, "an error is an answer, not an end"


@pytest.mark.parametrize(("svg", "says"), [(DEEP, "nested too deep"), (NOISE, r"longer than 0\.3 s")])
def test_what_ends_or_holds_the_renderer_costs_one_drawing(painters: Painters, svg: str, says: str):
    with pytest.raises(MediaError, match=says):
        painters.draw("x", svg_string=svg)
    assert red(painters.draw("x", svg_string=square(7))) == 7


def test_a_strangers_picture_cannot_end_us():
    with pytest.raises(MediaError, match="nested too deep"):
        load_image(Image(data=DEEP.encode()))
    assert load_image(Image(data=square(9).encode())).getpixel((5, 5)) == (9, 0, 0)


def test_memory_is_limited():
    painters = Painters(memory=300 * 1024**2)
    with pytest.raises(MediaError, match="larger than its memory"):
        painters.draw("x", svg_string=square(1), width=20_000, height=20_000)
    assert red(painters.draw("x", svg_string=square(3))) == 3
    painters.close()


def test_a_renderer_that_does_not_work_is_told_from_a_drawing_that_does_not(monkeypatch: pytest.MonkeyPatch, painters: Painters):
    monkeypatch.setattr(drawing, "_WORKER", Path("no-such-script.py"))
    with pytest.raises(MediaError, match="import resvg_py"):
        painters.draw("x", svg_string=square(1))


def test_a_process_that_was_ended_meanwhile_costs_nothing(painters: Painters):
    painters.draw("x", svg_string=square(1))
    (idle,) = painters._all
    os.kill(idle.pid, signal.SIGKILL)
    idle.wait()
    assert red(painters.draw("x", svg_string=square(2))) == 2


def test_an_interruption_leaves_no_answer_for_the_next(painters: Painters, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(drawing, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            painters.draw("x", svg_string=square(1))
    assert red(painters.draw("x", svg_string=square(2))) == 2


def test_threads_get_each_their_own(painters: Painters):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: red(painters.draw("x", svg_string=square(n))), range(60)))
    assert found == list(range(60))
    assert len(painters._all) <= 4


def test_a_script_that_forks_draws_in_both_and_leaves_nobody_behind(tmp_path: Path):
    """Without `if __name__ == "__main__"`; the pipes of the parent's renderer are not the child's to use."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from tonggan.data import drawing\n"
        "from tonggan.data.media import load_image\n"
        "from tonggan.types import Image\n"
        f"SVG = {square(200)!r}.encode()\n"
        "def look(): return load_image(Image(data=SVG)).getpixel((5, 5))[0]\n"
        "def pids(): return [p.pid for p in drawing._painters()._all]\n"
        "first = look()\n"
        "child = os.fork()\n"
        "print(first, look(), *pids(), flush=True)\n"
        "if child: os.waitpid(child, 0); print(look(), flush=True)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [[int(n) for n in line.split()] for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines if len(line) == 3] == [[200, 200]] * 2
    assert lines[-1] == [200]
    renderers = {line[2] for line in lines if len(line) == 3}
    assert len(renderers) == 2
    assert all(gone(pid) for pid in renderers)
    assert done.stderr == ""


def test_ctrl_c_is_not_the_renderers(painters: Painters):
    painters.draw("x", svg_string=square(1))
    (idle,) = painters._all
    assert os.getpgid(idle.pid) != os.getpgid(0)
