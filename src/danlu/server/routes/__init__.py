"""The routes, one file a noun: parse, call a service, answer."""
