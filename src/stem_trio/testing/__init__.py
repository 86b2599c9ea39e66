"""Help for tests: of programs that use stem-trio, and of stores that keep its contracts."""
