"""Measurements that others can repeat: each script prints its table and writes its numbers and claims to results/."""
