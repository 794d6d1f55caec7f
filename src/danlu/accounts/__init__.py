"""Users, login sessions and keys. Empty until accounts are built: the server serves loopback only."""
