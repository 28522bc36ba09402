"""One step of training: sample, predict, run what the losses need, add up, step (Ashkenazi et al. 2023, sec. 3.2)."""
