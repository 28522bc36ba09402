"""Writes the skeleton of a plugin package."""
