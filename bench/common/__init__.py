"""What the benches share: servers and load, percentiles, and how results are told."""
