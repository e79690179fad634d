"""Pictures in, arrays out: reading, simulating."""
