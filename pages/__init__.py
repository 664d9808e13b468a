"""One page per question, and the frame around them (`pages.shared`)."""
