"""Sets of prompts, and averages over them."""
