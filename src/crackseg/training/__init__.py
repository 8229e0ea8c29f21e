"""Train a network: loss, optimizer step, loop, checkpoints, several processes."""
