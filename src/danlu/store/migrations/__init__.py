"""The history of the tables; applied by ``danlu.store.migrate``."""
