"""Tasks of different fates, and a worker that is killed in front of you."""
