"""Files of other tools and of users, read with every check."""
