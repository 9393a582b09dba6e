"""Losses as pure functions: tensors in, `Objective` out."""
