"""The examples of README.md and docs/ are run as they stand there."""
