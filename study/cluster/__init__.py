"""Ray clusters: start or join one, check its machines, send a study to it."""
