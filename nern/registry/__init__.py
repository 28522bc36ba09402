"""Finds plugins, and knows which component each name means."""
