"""A policy behind a socket: the server that robots talk to, and its client."""
