"""Directories in and out: read, save, identity, and our modules run on the reference's named tensors."""

from tonggan.hub.families import family_for
from tonggan.hub.gradients import gradients
from tonggan.hub.identity import identity
from tonggan.hub.outputs import outputs
from tonggan.hub.read import Checkpoint, read
from tonggan.hub.write import save

__all__ = ["Checkpoint", "family_for", "gradients", "identity", "outputs", "read", "save"]
