"""Models: which there are, what they need, how they are read, and where each site of them is."""
