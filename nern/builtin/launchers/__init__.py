"""Launchers that ship: where the runs of a sweep are started."""
