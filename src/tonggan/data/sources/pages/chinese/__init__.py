"""Pages as they are written in Chinese."""

from tonggan.data.sources.pages.chinese import calendar, chart, invoice, menu, sign, table, timetable, vertical

KINDS = {
    "invoice": (invoice.draw, invoice.STYLES),
    "menu": (menu.draw, menu.STYLES),
    "timetable": (timetable.draw, timetable.STYLES),
    "calendar": (calendar.draw, calendar.STYLES),
    "sign": (sign.draw, sign.STYLES),
    "table": (table.draw, table.STYLES),
    "chart": (chart.draw, chart.STYLES),
    "vertical": (vertical.draw, vertical.STYLES),
}
"""What draws each kind of page, and in which ways it can be hard."""
