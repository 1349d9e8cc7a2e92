"""Models: backbones, images -> features, and the head on them."""
