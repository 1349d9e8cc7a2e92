"""What the studies are made of."""
