"""The original CNN: its weights files, its convolutions, its feature maps, and the pair of networks that runs in training."""
