"""How MobileInst computes: any recorded number derived, pages and chapters that show it."""
