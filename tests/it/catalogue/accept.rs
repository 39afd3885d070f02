//! A: accepting, when there are too few descriptors, too many clients, or errors of every kind.
