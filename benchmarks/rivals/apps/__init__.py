"""One module for each queue: its tasks, and how a program enqueues them. Both as its documentation shows it."""
