"""What is looked for in examples: each group of checks is a module. The entry is ``data.check``."""
