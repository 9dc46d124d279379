"""Rules from the names of our layers to the names of tensors in public checkpoints, a file a family."""
