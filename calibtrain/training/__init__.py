"""Training: state, step, optimizer, checkpoints, and the loop that ties them into a run."""
