"""Which prompts are read together: reading a short one beside a long one costs as much as a long one."""

from __future__ import annotations

from collections.abc import Sequence

FORWARD = 32
"""What a pass through the model costs before its first token, in tokens: so many padded ones are borne rather than another pass. Measured
on a processor with models of 6 layers; on others it is more, but a pass more or less is little of all that is said."""


def alike(lengths: Sequence[int], forward: int = FORWARD) -> list[list[int]]:
    """Rows in groups of like length, longest first, such that all tokens with their padding and all passes cost the least."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    # A group begins where the length changes: to cut between equal ones saves nothing.
    begins = [at for at in range(len(order)) if at == 0 or lengths[order[at]] != lengths[order[at - 1]]]
    best: dict[int, tuple[int, int]] = {0: (0, 0)}
    """For each place up to which rows are grouped: the least cost, and where the last group begins."""
    for number, end in enumerate([*begins[1:], len(order)], 1):
        best[end] = min((best[start][0] + (end - start) * lengths[order[start]] + forward, start) for start in begins[:number])
    groups, end = [], len(order)
    while end:
        start = best[end][1]
        groups.append(order[start:end])
        end = start
    return groups[::-1]
