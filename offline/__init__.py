"""What stands behind `zqserve.LLM` beside the engine itself."""
