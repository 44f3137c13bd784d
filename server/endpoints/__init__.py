"""One file an endpoint; those of larger APIs have a few."""
