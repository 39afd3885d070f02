//! G: what the machine or the command line cannot grant, and how that is said.
