"""Small functions that several packages need."""
