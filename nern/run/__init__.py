"""The life of one run: its original network, its phases, checkpoints, measurements and folder."""
