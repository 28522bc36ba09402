"""Bases and helpers that components are made from; the plugins that ship and those of others use the same."""
