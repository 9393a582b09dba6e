"""Rows, formats, media, text, order and sources: everything between a user's files and a batch."""
