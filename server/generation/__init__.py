"""What all endpoints that generate share, from parameters to answers and events."""
