"""One way to make a page: tables, SVG plots, picture grids, Chinese and English, one file that opens offline."""

from tonggan.report.page import Page, Picture, Said, Words, interval, words

__all__ = ["Page", "Picture", "Said", "Words", "interval", "words"]
