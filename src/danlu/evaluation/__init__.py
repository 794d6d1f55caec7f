"""Before and after: held-out loss, probe questions, general knowledge, and the report of it."""
