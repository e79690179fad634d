"""A grid of experiments: methods x noises x rates x seeds, every cell on its own and kept by its content."""
