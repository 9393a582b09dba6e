"""The web page over the server's engine."""
