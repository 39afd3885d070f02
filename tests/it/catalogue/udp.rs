//! U: datagrams, their limits, and the loops that they can start.
