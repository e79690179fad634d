"""The active-cleaning loop: states, decisions, controller."""
