"""Words out of a talker: sampling, beams, stopping, streaming, and how likely a given answer is.

(answers,) = generate(model, batch, [Sampling(max_tokens=20)], ends=(2,), decode=tokenizer.decode)
"""

from tonggan.generate.engine import generate, logprob, stream
from tonggan.generate.prefixes import Prefixes, Shared
from tonggan.generate.said import Said
from tonggan.generate.sampling import Sampling
from tonggan.nn.talking import Talker

__all__ = ["Prefixes", "Said", "Sampling", "Shared", "Talker", "generate", "logprob", "stream"]
