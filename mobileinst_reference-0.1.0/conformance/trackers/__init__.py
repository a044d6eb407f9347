"""What any tracker must satisfy, tried on one's own in any language, and trackers known to fail."""
