"""What every endpoint needs of HTTP: keys, bodies, errors, ids, events, metrics, the document of the API."""
