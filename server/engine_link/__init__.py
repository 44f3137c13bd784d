"""The front-end's end of the wire, and what turns texts into engine requests and tokens into texts."""
