"""Leave-one-domain-out experiments with disam_jax: data, models, training, reports."""
