"""Pictures of icons and their English names, to pretrain a CLIP on; built, not shipped."""
