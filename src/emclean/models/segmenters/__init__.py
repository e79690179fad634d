"""A small U-Net that says where particles are, and where the middle of each lies."""
