"""Import paths that users of vLLM's offline API know; what they name lives elsewhere in the package."""
