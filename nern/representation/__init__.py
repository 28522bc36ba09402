"""The trained representation: from coordinates to kernels, from kernels to the weights of a network (Ashkenazi et al. 2023, sec. 3.1)."""
