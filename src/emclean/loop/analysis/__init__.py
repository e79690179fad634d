"""From large micrographs to the population's left-to-right ratio, window by window."""
