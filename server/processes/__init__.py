"""The launcher, the processes that it starts and watches, and the ASGI server."""
