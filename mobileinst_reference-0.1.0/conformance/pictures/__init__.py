"""Pictures, and inputs made of them."""
