"""The only parts that import ray."""
