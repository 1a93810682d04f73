"""A stand-in for the Hub on the loopback interface."""
