"""A second implementation of docs/format.md in plain Python, to compare the extensions with: written to be read, not to be fast."""
