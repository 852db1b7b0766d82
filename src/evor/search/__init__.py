"""Acting is a choice among candidates: how they are scored and which one is taken."""
