"""Pools of words to draw from, written as running text."""


def words(text: str) -> tuple[str, ...]:
    """What spaces separate."""
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """What bars separate."""
    return tuple(text.split("|"))
