"""Long work that outlives a command: the path from a recipe to a model version, run in a child process."""
