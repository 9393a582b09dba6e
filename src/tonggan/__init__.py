"""Tonggan."""
