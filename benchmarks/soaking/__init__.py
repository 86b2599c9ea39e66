"""The soak: workers under load while processes are killed and frozen and connections cut, and the books on it."""
