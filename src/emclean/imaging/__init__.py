"""Pictures in, arrays out: reading, tiling, simulating."""
