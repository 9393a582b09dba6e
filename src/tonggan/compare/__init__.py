"""Models held side by side: what is published about them (`registry`), each fact with its source, and what they do on the same items."""

from tonggan.compare.runner import Cell, Compared, Pair, compare
from tonggan.compare.tasks import SUITES, Task, task

__all__ = ["SUITES", "Cell", "Compared", "Pair", "Task", "compare", "task"]
