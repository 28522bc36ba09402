"""For the user's own network: represents it in one call, finds the size for a target, exports and shares the result."""
