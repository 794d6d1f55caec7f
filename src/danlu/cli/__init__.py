"""The command line: one file of commands per noun; parses, calls, prints."""
