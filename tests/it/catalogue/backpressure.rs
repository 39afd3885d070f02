//! B: clients that send and do not read, memory that runs short, sizes of every kind.
