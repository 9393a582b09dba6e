"""The doctor's findings as a page, with the pictures that they are about."""

from __future__ import annotations

import io

from tonggan.data.doctor import Diagnosis
from tonggan.data.examine import Finding
from tonggan.data.media import load_image
from tonggan.report import Page, Picture, Words
from tonggan.types import MediaError

MARKS = {
    "error": Words("must be mended", "必须处理"),
    "warning": Words("to know about", "需要留意"),
    "info": Words("for information", "供参考"),
}
SHOWN = 8


def page(diagnosis: Diagnosis) -> Page:
    """One section per severity; thumbnails of the rows that findings name."""
    verdict = (
        Words("nothing must be mended", "没有必须处理的问题") if diagnosis.ok else Words("some rows must be mended", "有必须处理的问题")
    )
    made = Page(
        Words(f"Data doctor: {diagnosis.name}", f"数据体检：{diagnosis.name}"),
        Words(f"{len(diagnosis.dataset)} rows; {verdict.en}.", f"共 {len(diagnosis.dataset)} 行，{verdict.zh}。"),
    )
    for severity, found in (("error", diagnosis.errors), ("warning", diagnosis.warnings), ("info", diagnosis.info)):
        if found:
            made.part(MARKS[severity])
        for finding in found:
            made.text(Words(finding.en, finding.zh))
            if finding.examples:
                made.table([Words("where", "位置"), Words("what", "情况")], [[e.where, e.detail] for e in finding.examples[:20]])
            if pictures := _pictures(diagnosis, finding):
                made.grid(pictures)
    if diagnosis.proposal is not None:
        made.part(Words("Proposed split", "建议的划分"))
        made.table([Words("split", "划分"), Words("rows", "行数")], [[name, str(n)] for name, n in diagnosis.proposal.counts.items()])
    return made


def _pictures(diagnosis: Diagnosis, finding: Finding) -> list[Picture]:
    shown: list[Picture] = []
    for example in finding.examples:
        if example.row is None or len(shown) == SHOWN or not diagnosis.dataset[example.row].images:
            continue
        try:
            picture = load_image(diagnosis.dataset[example.row].images[0], decode="fast", size_hint=160)
        except MediaError:
            continue
        picture.thumbnail((160, 160))
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=80)
        shown.append(Picture(out.getvalue(), example.where))
    return shown
