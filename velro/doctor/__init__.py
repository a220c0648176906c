"""What an operator checks before trusting an installation: each check one function, one finding."""
