"""Pages as they are written in English (the United States)."""

from tonggan.data.sources.pages.english import calendar, chart, invoice, menu, note, sign, table, timetable

KINDS = {
    "invoice": (invoice.draw, invoice.STYLES),
    "menu": (menu.draw, menu.STYLES),
    "timetable": (timetable.draw, timetable.STYLES),
    "calendar": (calendar.draw, calendar.STYLES),
    "sign": (sign.draw, sign.STYLES),
    "table": (table.draw, table.STYLES),
    "chart": (chart.draw, chart.STYLES),
    "note": (note.draw, note.STYLES),
}
"""What draws each kind of page, and in which ways it can be hard."""
