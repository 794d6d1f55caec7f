"""The training loop and what makes it fast; checkpoints that an interrupted run continues from."""
