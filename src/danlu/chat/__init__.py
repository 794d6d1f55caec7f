"""Conversations, messages and answer streams that belong to the server, not to a socket."""
