"""Everything in a scene but its things."""
