"""The message broker: connections that survive, delivery that ends in a dead letter."""
