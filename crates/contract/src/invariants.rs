//! What must hold of a trail, as named pure predicates.
