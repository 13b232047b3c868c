"""The API of a running node on a unix socket: messages, server, client."""
