"""Models held side by side: what is published about them (`registry`), each fact with its source, and what they do on the same items."""

from tonggan.compare import registry
from tonggan.compare.about import About, Price, releases
from tonggan.compare.files import plain, write
from tonggan.compare.measure import Cell, How, conversations
from tonggan.compare.pairs import Apart, Pair, gap, score_of, slices
from tonggan.compare.runner import Compared, compare, together
from tonggan.compare.suite import SuiteConfig, suite
from tonggan.compare.tasks import SUITES, Task, TaskConfig, distinct, task, tasks

__all__ = [
    "SUITES",
    "About",
    "Apart",
    "Cell",
    "Compared",
    "How",
    "Pair",
    "Price",
    "SuiteConfig",
    "Task",
    "TaskConfig",
    "compare",
    "conversations",
    "distinct",
    "gap",
    "plain",
    "registry",
    "releases",
    "score_of",
    "slices",
    "suite",
    "task",
    "tasks",
    "together",
    "write",
]
