"""Methods that train on noisy labels, one file each."""
