"""A network of one's own: represented in a call, sized to a target, exported, shared."""
