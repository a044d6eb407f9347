"""What is golden: the declared cases, by kind."""
