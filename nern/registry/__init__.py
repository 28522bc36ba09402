"""Finds plugins and keeps which component each name stands for."""
