"""One module for each peer; contract.py says what they have in common."""
