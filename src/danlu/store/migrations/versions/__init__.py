"""One file a change of the tables, in the order given by ``down_revision``."""
