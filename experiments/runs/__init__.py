"""Many runs on many machines: plans, claims, records, and the nodes that train."""
