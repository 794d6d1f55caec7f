"""Keys of programs that call the API. Users and their sessions are not built: the server serves loopback only."""
