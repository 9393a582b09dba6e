"""One small module per training task: `forward(batch)` computes the loss, the trainer knows nothing else of it."""
