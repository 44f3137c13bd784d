"""JSON Schema: read into nodes and clauses, and run as a machine on values."""
