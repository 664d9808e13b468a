"""What all pages share: the frame, the link, the worker, the figure card."""
