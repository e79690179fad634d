"""Sets of labelled pictures for classification: reading, mirroring, splitting."""
