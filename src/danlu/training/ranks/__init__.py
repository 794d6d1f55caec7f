"""Several processes that train one model: who computes what, and where weights and what updates them are kept."""
