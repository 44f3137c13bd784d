"""What the server is told at its start: flags, their help, and what becomes of vLLM's."""
