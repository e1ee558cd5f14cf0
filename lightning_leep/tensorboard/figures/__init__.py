"""Figures of one transfer and of a history."""
