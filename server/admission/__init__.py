"""Which requests are let in, in what turn, and for how long."""
