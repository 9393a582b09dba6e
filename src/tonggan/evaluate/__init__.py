"""Tasks and metrics, each with a protocol id; they see a `Model` and rows, nothing else."""

from tonggan.data.prompts import TEMPLATES
from tonggan.evaluate.resample import Estimate, mean_interval, statistic_interval
from tonggan.evaluate.result import Result, paired
from tonggan.evaluate.tasks.choice import choice
from tonggan.evaluate.tasks.classification import class_vectors, classification
from tonggan.evaluate.tasks.questions import questions
from tonggan.evaluate.tasks.retrieval import retrieval

__all__ = [
    "TEMPLATES",
    "Estimate",
    "Result",
    "choice",
    "class_vectors",
    "classification",
    "mean_interval",
    "paired",
    "questions",
    "retrieval",
    "statistic_interval",
]
